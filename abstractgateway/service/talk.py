"""Talking about runs: summaries, answers to questions, and threads of such a conversation."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import Invalid
from ..jsonvalue import JsonObject, check_json, dumps, dumps_canonical, loads
from ..runtime.effects.model import LanguageModel
from ..runtime.models import RunState
from ..stores.base import Stores
from .direct_calls import DirectCalls
from .history import run_tree
from .ledger_digest import MAX_CHARS, LedgerDigest, ledger_digest
from .model_choice import Chosen, ModelChoice
from .run_events import RunEvent, RunEvents

NODE = "observer"
ROLES = ("user", "assistant", "system")
MAX_TITLE_CHARS = 200
MAX_ANSWER_TOKENS = 2_000
"""A few pages; a model that goes on without end is cut off there."""

_SUMMARY = (
    "You write for the person who watches a run of a workflow. Below is what its ledger says. Tell in plain language "
    "what the run was to do, what it has done, how it stands now, and what went wrong or is being waited for. Name the "
    "facts that matter. Say only what the ledger shows. A page at most.\n\n{digest}"
)
_CHAT = (
    "You answer questions about a run of a workflow. Below is what its ledger says. Say only what it shows; where it "
    "does not tell, say so.\n\n{digest}"
)


class _Answer(NamedTuple):
    text: str
    provider: str | None
    model: str | None
    at: str
    source: JsonObject


class TalkService:
    """The use cases around talking about runs. What is said becomes a record of the run's ledger."""

    def __init__(
        self,
        *,
        stores: Stores,
        events: RunEvents,
        model: LanguageModel,
        choice: ModelChoice,
        calls: DirectCalls,
        max_thread_bytes: int,
    ) -> None:
        self._stores = stores
        self._events = events
        self._model = model
        self._choice = choice
        self._calls = calls
        self._max_thread_bytes = max_thread_bytes
        self._keeping = threading.Lock()
        """Two requests with the same conversation at once keep it once."""

    def summary(
        self, run_id: str, *, provider: str | None = None, model: str | None = None, include_subruns: bool = True
    ) -> JsonObject:
        """Have a model summarise a run; return `{ok, run_id, provider, model, generated_at, summary}`.

        The summary is appended to the run's ledger as the event `abstract.summary`. Raises `NotFound` for an unknown
        run, `Invalid` when no model is named or the call fails, `Unavailable` when too many calls are under way.
        """
        run = self._events.run(run_id)
        answer = self._ask(run, provider, model, include_subruns, _SUMMARY, [])
        payload = {"text": answer.text, **_made(answer), "source": answer.source}
        self._events.append(run_id, RunEvent(NODE, "abstract.summary", payload))
        return {"ok": True, "run_id": run_id, **_made(answer), "summary": answer.text}

    def chat(
        self,
        run_id: str,
        *,
        messages: Sequence[JsonObject],
        provider: str | None = None,
        model: str | None = None,
        include_subruns: bool = True,
        persist: bool = False,
    ) -> JsonObject:
        """Have a model answer the last of some messages; return `{ok, run_id, provider, model, generated_at, answer}`.

        Messages are `{role, content}`. With `persist` question and answer are appended to the run's ledger as the event
        `abstract.chat`. Raises as `summary`, and `Invalid` for messages without a question.
        """
        run = self._events.run(run_id)
        said = _checked(messages)
        question = _question(said)
        answer = self._ask(run, provider, model, include_subruns, _CHAT, said)
        if persist:
            payload = {**_made(answer), "question": question, "answer": answer.text, "source": answer.source}
            self._events.append(run_id, RunEvent(NODE, "abstract.chat", payload))
        return {"ok": True, "run_id": run_id, **_made(answer), "answer": answer.text}

    def chat_thread(
        self,
        run_id: str,
        *,
        messages: Sequence[JsonObject],
        title: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        include_subruns: bool = True,
    ) -> JsonObject:
        """Keep a conversation about a run as an artifact of it, and tell of it in the run's ledger.

        Returns `{ok, run_id, workflow_id, thread_id, created_at, duplicate, title, message_count, chat_artifact}`. The
        same messages under the same title again are a duplicate and change nothing. Raises `NotFound` for an unknown
        run, `Invalid` for no messages and, with the code `chat_thread_too_large`, for too many.
        """
        run = self._events.run(run_id)
        said = _checked(messages)
        heading = _title(title, said)
        thread_id = hashlib.sha256(dumps_canonical([run_id, heading, said])).hexdigest()[:32]
        thread: JsonObject = {
            "version": 1,
            "thread_id": thread_id,
            "run_id": run_id,
            "workflow_id": run.workflow_id,
            "created_at": self._events.now_iso(),
            "title": heading,
            "provider": provider,
            "model": model,
            "include_subruns": include_subruns,
            "messages": said,
        }
        content = dumps(thread, field="messages")
        if len(content) > self._max_thread_bytes:
            why = f"Chat thread too large ({len(content)} bytes > {self._max_thread_bytes} bytes)"
            raise Invalid("", why, code="chat_thread_too_large")
        with self._keeping:
            return self._kept_once(thread, run, f"chat_thread_{thread_id}", f"observer:chat_thread:{thread_id}")

    def _kept_once(self, thread: JsonObject, run: RunState, artifact_id: str, key: str) -> JsonObject:
        known = self._stores.artifacts.load(artifact_id)
        is_told = known is not None and self._events.find(run.run_id, key) is not None
        kept = loads(known, field="chat_thread") if known is not None else thread
        told = _outline(kept, self._keep(kept, run, artifact_id))
        if not is_told:
            self._events.append(run.run_id, RunEvent(NODE, "abstract.chat.thread", told, key))
        return {"ok": True, **told, "duplicate": is_told}

    def _keep(self, thread: JsonObject, run: RunState, artifact_id: str) -> JsonObject:
        """Store a thread, which does nothing for one that is there, and return a reference to it."""
        tags = {"kind": "chat_thread", "thread_id": thread["thread_id"], "title": thread["title"], "source": NODE}
        filename = f"chat-{thread['thread_id'][:8]}.json"
        metadata = self._stores.artifacts.store(
            dumps(thread),
            content_type="application/json",
            run_id=run.run_id,
            tags={**tags, "filename": filename, **({"session_id": run.session_id} if run.session_id else {})},
            artifact_id=artifact_id,
        )
        return {
            "$artifact": metadata.artifact_id,
            "content_type": metadata.content_type,
            "filename": filename,
            "sha256": metadata.blob_id,
            "size_bytes": metadata.size_bytes,
        }

    def _ask(
        self,
        run: RunState,
        provider: str | None,
        model: str | None,
        include_subruns: bool,
        task: str,
        messages: list[JsonObject],
    ) -> _Answer:
        chosen = self._choice.of_request(provider, model, run.workflow_id)
        with self._calls.place():
            run_ids = run_tree(self._stores.runs, run.run_id) if include_subruns else [run.run_id]
            digest = ledger_digest(self._stores, run, run_ids=run_ids)
            said = self._said(chosen, task.format(digest=digest.text), _latest(messages))
        return _Answer(
            text=said["content"].strip(),
            provider=chosen.provider or said.get("provider"),
            model=chosen.model or said.get("model"),
            at=self._events.now_iso(),
            source=_source(run.run_id, include_subruns, digest),
        )

    def _said(self, chosen: Chosen, system_prompt: str, messages: list[JsonObject]) -> JsonObject:
        """Return the answer of the model. Raises `Invalid` for whatever keeps it from giving one."""
        named = {"provider": chosen.provider, "model": chosen.model}
        call: JsonObject = {
            "messages": messages,
            "prompt": "" if messages else "Summarise the run.",
            "system_prompt": system_prompt,
            "max_output_tokens": MAX_ANSWER_TOKENS,
            "params": {},
            "tools": [],
            **{name: value for name, value in named.items() if value},
        }
        limits = {"timeout_s": self._calls.timeout_s} if "timeout_s" in _parameters(self._model) else {}
        try:
            answer = dict(self._model.generate(call, **limits))
            check_json(answer.get("content"), field="the answer")
        except Exception as error:  # a model may raise anything; the client is told what
            raise _failed(str(error) or type(error).__name__) from error
        if not isinstance(answer.get("content"), str) or not answer["content"].strip():
            raise _failed("the model gave no text")
        return answer


def _parameters(model: LanguageModel) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(model.generate).parameters)
    except ValueError:
        return frozenset()  # a builtin tells no signature


def _failed(why: str) -> Invalid:
    return Invalid("", f"the model did not answer: {why}", code="direct_call_failed")


def _made(answer: _Answer) -> JsonObject:
    return {"provider": answer.provider, "model": answer.model, "generated_at": answer.at}


def _source(run_id: str, include_subruns: bool, digest: LedgerDigest) -> JsonObject:
    return {"run_id": run_id, "include_subruns": include_subruns, "ledger_len_by_run": digest.lengths}


def _checked(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Return role and content of messages that have something in them. Raises `Invalid` when none has."""
    for item in messages:
        if item.get("role") not in ROLES or not isinstance(item.get("content"), str):
            raise Invalid("messages", f"each needs a text as 'content' and as 'role' one of {', '.join(ROLES)}")
    said = [{"role": item["role"], "content": item["content"]} for item in messages if item["content"].strip()]
    if not said:
        raise Invalid("messages", "has no message with a content")
    return said


def _latest(messages: list[JsonObject]) -> list[JsonObject]:
    """Return the last message and as many before it as a model can read together with a digest."""
    left = MAX_CHARS
    kept: list[JsonObject] = []
    for message in reversed(messages):
        left -= len(message["content"])
        if left < 0 and kept:
            break
        kept.append(message)
    return kept[::-1]


def _question(messages: list[JsonObject]) -> str:
    asked: Any = next((item["content"] for item in reversed(messages) if item["role"] == "user"), None)
    if asked is None:
        raise Invalid("messages", "has no message of the role user, so that there is nothing to answer")
    return str(asked)


def _title(title: str | None, messages: list[JsonObject]) -> str:
    first = next((item["content"] for item in messages if item["role"] == "user"), messages[0]["content"])
    return " ".join((title or "").split() or first.split())[:MAX_TITLE_CHARS]


def _outline(thread: JsonObject, ref: JsonObject) -> JsonObject:
    named = {name: thread[name] for name in ("run_id", "workflow_id", "thread_id", "created_at", "title")}
    return {**named, "message_count": len(thread["messages"]), "chat_artifact": ref}
