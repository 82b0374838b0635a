"""A language model that says what a test wants it to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ..jsonvalue import JsonObject

Answer = str | JsonObject


class ScriptedModel:
    """Answers model calls from a list, one after the other, or by a function of the call.

    An answer is a text, or an object with `content`, `data`, `tool_calls`, `usage`. `calls` remembers every call.
    """

    def __init__(self, script: Iterable[Answer] | Callable[[JsonObject], Answer]) -> None:
        self.calls: list[JsonObject] = []
        self._script = script if callable(script) else None
        self._answers = [] if callable(script) else list(script)
        self._lock = threading.Lock()

    def generate(self, call: JsonObject) -> JsonObject:
        """Answer one call. Raises `LookupError` when the list has no answer left."""
        with self._lock:
            self.calls.append(call)
            answer: Any = self._script(call) if self._script is not None else self._next_answer()
        return {"content": answer} if isinstance(answer, str) else answer

    def _next_answer(self) -> Answer:
        if len(self.calls) > len(self._answers):
            raise LookupError(f"the script has {len(self._answers)} answers; this is call {len(self.calls)}")
        return self._answers[len(self.calls) - 1]
