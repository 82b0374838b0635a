"""Prompt caches: what providers can be told about them, and the key of a session."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field, Reader, whole
from ..refusal import Refused
from ..render import json_answer
from ..route import API, Answer, Call, Handler, Route
from ..sessions import anything
from ..shapes import named
from .inputs import optional_text, required_text, switch


def get_prompt_cache_capabilities(call: Call) -> Response:
    """Say what a provider can be told about its prompt cache."""
    return json_answer(call.gateway.prompt_cache.capabilities(**call.query))


def get_prompt_cache_stats(call: Call) -> Response:
    """Say how full a prompt cache is, where a provider tells."""
    return json_answer(call.gateway.prompt_cache.control("stats", **call.query))


def list_saved_prompt_caches(call: Call) -> Response:
    """List the prompt caches that were saved."""
    return json_answer(call.gateway.prompt_cache.saved(**call.query))


def set_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be chosen at a provider."""
    return json_answer(call.gateway.prompt_cache.control("set", **call.body))


def update_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be added to at a provider."""
    return json_answer(call.gateway.prompt_cache.control("update", **call.body))


def fork_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be copied at a provider."""
    return json_answer(call.gateway.prompt_cache.control("fork", **call.body))


def clear_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be emptied at a provider."""
    return json_answer(call.gateway.prompt_cache.control("clear", **call.body))


def prepare_prompt_cache_modules(call: Call) -> Response:
    """Say whether a prompt cache can be filled in parts at a provider."""
    return json_answer(call.gateway.prompt_cache.control("prepare_modules", **call.body))


def save_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be written to a file at a provider."""
    return json_answer(call.gateway.prompt_cache.control("save", **call.body))


def load_prompt_cache(call: Call) -> Response:
    """Say whether a prompt cache can be read from a file at a provider."""
    return json_answer(call.gateway.prompt_cache.control("load", **call.body))


def get_session_prompt_cache(call: Call) -> Response:
    """Return the prompt cache key of a session, and what a start gives to a run for it."""
    return json_answer(call.gateway.prompt_cache.session("status", call.path["session_id"], **call.query))


def prepare_session_prompt_cache(call: Call) -> Response:
    """Return the same, for a session that is about to begin."""
    return json_answer(call.gateway.prompt_cache.session("prepare", call.path["session_id"], **call.body))


def clear_session_prompt_cache(call: Call) -> Response:
    """Say whether the prompt cache of a session can be emptied."""
    return json_answer(call.gateway.prompt_cache.session("clear", call.path["session_id"], **call.body))


def rebuild_session_prompt_cache(call: Call) -> Response:
    """Say whether the prompt cache of a session can be made anew."""
    return json_answer(call.gateway.prompt_cache.session("rebuild", call.path["session_id"], **call.body))


_CACHE = f"{API}/prompt_cache"
_SESSION = f"{API}/sessions/{{session_id}}/prompt_cache"
_ANSWER = (Answer("`supported` says whether it is.", named("PromptCache")),)
_SESSION_ANSWER = (Answer("`supported` says whether it is.", named("SessionPromptCache")),)
_ANYTHING = Reader(lambda value: value, {})
_VERSION = Field("version", whole(1, 10), default=lambda: 1, about="Another version has another key.")
_MODEL = (required_text("provider", "The provider of the model."), required_text("model", "The model."))
_PLACE = (
    ("bundle_id", "The bundle that the session uses."),
    ("bundle_version", "Its version."),
    ("flow_id", "The flow."),
    ("template_id", "The template of the session."),
)
_IDENTITY = (*_MODEL, *(optional_text(name, about) for name, about in _PLACE), _VERSION)
_UNUSED = "Without effect on a cache that the provider keeps by a key; the answer says so."
_CONTENTS = (
    *(Field(name, _ANYTHING, about=_UNUSED) for name in ("modules", "tools", "pinned_attachments", "ttl_s")),
    *(optional_text(name, _UNUSED) for name in ("system_prompt", "workflow_instructions")),
    switch("make_default", _UNUSED),
)
_CONTROLS: tuple[tuple[str, Handler], ...] = (
    ("set", set_prompt_cache),
    ("update", update_prompt_cache),
    ("fork", fork_prompt_cache),
    ("clear", clear_prompt_cache),
    ("prepare_modules", prepare_prompt_cache_modules),
    ("save", save_prompt_cache),
    ("load", load_prompt_cache),
)
_SESSION_CONTROLS: tuple[tuple[str, Handler], ...] = (
    ("prepare", prepare_session_prompt_cache),
    ("clear", clear_session_prompt_cache),
    ("rebuild", rebuild_session_prompt_cache),
)
_READS: tuple[tuple[str, Handler], ...] = (
    ("capabilities", get_prompt_cache_capabilities),
    ("stats", get_prompt_cache_stats),
    ("saved", list_saved_prompt_caches),
)


def _of_session(call: Call, session_id: str) -> Call:
    """The session in the path is the caller's."""
    if call.path["session_id"] != session_id:
        raise Refused(403, "session_not_allowed", "Forbidden (another session is not for a token of one session)")
    return call


def _read(name: str, handler: Handler) -> Route:
    return Route("GET", f"{_CACHE}/{name}", handler, answers=_ANSWER, query=_MODEL, session=anything)


def _control(name: str, handler: Handler) -> Route:
    body = (*_MODEL, optional_text("key", "The key of the cache."))
    return Route("POST", f"{_CACHE}/{name}", handler, answers=_ANSWER, body=body, scope="read", session=anything)


def _session_control(name: str, handler: Handler) -> Route:
    body = (*_IDENTITY, *_CONTENTS)
    return Route(
        "POST",
        f"{_SESSION}/{name}",
        handler,
        answers=_SESSION_ANSWER,
        body=body,
        scope="read",
        session=_of_session,
    )


ROUTES: tuple[Route, ...] = (
    *(_read(name, handler) for name, handler in _READS),
    *(_control(name, handler) for name, handler in _CONTROLS),
    Route(
        "GET",
        f"{_SESSION}/status",
        get_session_prompt_cache,
        answers=_SESSION_ANSWER,
        query=_IDENTITY,
        session=_of_session,
    ),
    *(_session_control(name, handler) for name, handler in _SESSION_CONTROLS),
)
