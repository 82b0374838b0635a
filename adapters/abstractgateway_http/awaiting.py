"""Answers that wait until something has come about, as `Prefer: wait=N` asks (RFC 7240); they hold no worker thread."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from abstractgateway.clock import SystemClock
from abstractgateway.errors import GatewayError
from abstractgateway.jsonvalue import JsonObject, dumps

from .fields import Field, Reader
from .frames import Batch
from .refusal import Refused
from .render import awaited_answer, json_answer
from .route import Call
from .stream import DOOR_KEY, StreamRequest

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("abstractgateway.http")

LONGEST_S = 30
_THREADS = 2
_LOOK_S = 0.5
"""Whoever waits is told by commits of this process; so often it looks itself, for those of others."""
_SECONDS = re.compile(r'"?([0-9]{1,9})"?', re.ASCII)

Fields = Mapping[str, bytes]
"""Fields of an answer with their JSON."""

Told = Callable[[], "Fields | None"]
"""Returns what to add to the answer once it has come about, None until then."""


def _wait_of(value: str) -> int:
    """Return the seconds of the first `wait` among preferences; 0 without one, or for one that makes no sense."""
    for preference in value.split(","):
        name, _, given = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            found = _SECONDS.fullmatch(given.strip())
            return min(int(found[1]), LONGEST_S) if found is not None else 0
    return 0


def prefer(about: str) -> Field:
    """Return the header with which a client says how long it would wait."""
    text = f"`wait=N`: {about}, or after N seconds (up to {LONGEST_S}), with `Preference-Applied`."
    return Field("Prefer", Reader(_wait_of, {"type": "string"}), about=text)


class Aside:
    """Threads that make answers, so that the one thread that sends all of them goes on meanwhile.

    `wake` has it look at an answer again; it is given the id of what the answer waits for.
    """

    def __init__(self) -> None:
        self.wake: Callable[[Iterable[str]], None] = _nobody
        self._threads: ThreadPoolExecutor | None = None

    def make(self, work: Callable[[], None]) -> None:
        """Do some work soon; called by the thread that sends."""
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # a server that starts has no use for it yet

            self._threads = ThreadPoolExecutor(_THREADS, "abstractgateway-answers")
        self._threads.submit(work)

    def close(self) -> None:
        """Do no further work."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


class OneAnswer:
    """How an answer looks on the wire that is made when something has come about, or at a time (monotonic seconds).

    With `aside` it is made there, else by whoever asks for it.
    """

    is_tree = False
    reads_ledger = False
    opening = b" "  # white space before a JSON value means nothing

    def __init__(self, known: JsonObject, told: Told, late: Told, until: float, aside: Aside | None = None) -> None:
        self._known = known
        self._told = told
        self._late = late
        self._until = until
        self._aside = aside
        self._lock = threading.Lock()
        self._is_making = False
        self._is_asked_again = False
        self._made = b""

    def batch(self, run_id: str, after: int, tail: Any) -> Batch:
        body = self._answer() if self._aside is None else self._answer_of(self._aside, run_id)
        return Batch(body, after, bool(body))

    def idle(self, cursor: int) -> Batch:
        return Batch(self.opening, cursor, False)  # whoever has gone is noticed; sending it looks again

    def farewell(self, cursor: int) -> bytes:
        with self._lock:
            made, is_making = self._made, self._is_making
        return made or self._body({} if is_making else self._asked(self._late))

    def _answer_of(self, aside: Aside, run_id: str) -> bytes:
        """Return the answer if it is made; otherwise have somebody look whether it can be."""
        with self._lock:
            if self._made or self._is_making:
                self._is_asked_again = True
                return self._made
            self._is_making = True
        aside.make(partial(self._make, aside, run_id))
        return b""

    def _make(self, aside: Aside, run_id: str) -> None:
        while not (body := self._answer_or_known()) and self._must_look_again():
            continue
        if body:
            with self._lock:
                self._made, self._is_making = body, False
            aside.wake((run_id,))

    def _must_look_again(self) -> bool:
        with self._lock:
            again, self._is_asked_again = self._is_asked_again, False
            self._is_making = again
        return again

    def _answer_or_known(self) -> bytes:
        try:
            return self._answer()
        except Exception:
            # The boundary of a thread that nobody watches: the client must not wait for ever.
            log.exception("an awaited answer could not be made")
            return self._body({})

    def _answer(self) -> bytes:
        """Return the answer; empty while there is none."""
        more = self._asked(self._told)
        if more is None and SystemClock().monotonic() < self._until:
            return b""
        return self._body(self._asked(self._late) if more is None else more)

    def _body(self, more: Fields | None) -> bytes:
        fields = {**{name: dumps(value, field="response") for name, value in self._known.items()}, **(more or {})}
        return b"{%b}" % b",".join(b"%b:%b" % (dumps(name), value) for name, value in fields.items())

    def _asked(self, told: Told) -> Fields | None:
        try:
            return told()
        except GatewayError:
            return None  # what was accepted is durable, and `known` says so; the rest can be asked for


def answer_when(call: Call, watched: str, known: JsonObject, told: Told, late: Told) -> Response:
    """Return what is known at once, or with more as soon as it is told, where the client prefers to wait.

    `watched` is the run or command whose news may change what is told; `late` is asked when the time is over.
    """
    wait_s = call.headers["Prefer"]
    if not wait_s:
        return json_answer(known)
    aside = call.aside if DOOR_KEY in call.request.environ else None
    framing = OneAnswer(known, told, late, SystemClock().monotonic() + wait_s, aside)
    try:
        parts = call.open_stream(StreamRequest(watched, 0, _LOOK_S, framing))
    except (GatewayError, Refused):
        return json_answer(known)  # it is done, so it must not look refused; a preference may be ignored
    response = awaited_answer(parts)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


def _nobody(watched: Iterable[str]) -> None:
    """Wake nobody: answers that are made aside belong to streams, and there are none yet."""
