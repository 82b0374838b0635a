"""What changed in a run's checkpoint since it was last written, where writing all of it would cost too much.

A delta is JSON: `{"fields": {…}, "changes": […]}`, the fields of the state except `vars`, and what happened to `vars`:
`["set", path, value]`, `["remove", path, null]`, `["append", path, values]` and `["drop", path, count]` (from the front
of a list). A path is a list of keys and of places in lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Invalid
from ..jsonvalue import MOST_WEIGHT, JsonObject, check_weight, compact_text, loads
from .models import RunState

DELTA_FROM_BYTES = 16_384
"""A smaller checkpoint is always written as a whole."""
MOST_VARS_WEIGHT = 4 * MOST_WEIGHT
"""How heavy all variables of a run may be together; how large they may grow beyond a moment is a setting."""


def encode_state(state: RunState) -> bytes:
    """Return the stored JSON of a run: one line per field, so that a person can read the file."""
    return encode_fields(state.to_dict())


def encode_fields(fields: JsonObject) -> bytes:
    """Return the stored JSON of a run's fields. Raises `Invalid` for values JSON lacks or that would be too long."""
    check_vars_weight(fields.get("vars"))
    lines = [f'"{name}": {compact_text(value, field=name)}' for name, value in fields.items()]
    return _encoded("{\n  " + ",\n  ".join(lines) + "\n}")


def check_vars_weight(vars: Any) -> None:
    """Raise `Invalid` for variables that would be too long as JSON; the kernel's own among them are not."""
    if isinstance(vars, dict):
        given = {name: value for name, value in vars.items() if name != "_runtime"}
        check_weight(given, field="vars", most=MOST_VARS_WEIGHT)


def encode_delta(state: RunState, changes: Sequence[str]) -> bytes:
    """Return the delta of a state, given what changed in its `vars`. Raises `Invalid` for values JSON lacks."""
    fields = state.to_dict()
    del fields["vars"]
    return _encoded(f'{{"fields":{compact_text(fields, field="run")},"changes":[{",".join(changes)}]}}')


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Invalid("run", f"cannot be written as JSON: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """A run's state as it is stored: JSON, and the deltas that came after it, oldest first."""

    body: bytes
    deltas: tuple[bytes, ...] = ()

    @property
    def delta_bytes(self) -> int:
        return sum(map(len, self.deltas))

    def with_delta(self, delta: bytes) -> Checkpoint:
        return Checkpoint(self.body, (*self.deltas, delta))

    def fields(self) -> JsonObject:
        """Return the fields of the state. Raises `Invalid` where the JSON is none, or a delta does not fit."""
        fields = loads(self.body, field="run")
        if not isinstance(fields, dict):
            raise Invalid("run", "is not an object")
        for delta in self.deltas:
            apply(fields, loads(delta, field="delta"))
        return fields

    def state(self) -> RunState:
        """Return the state. Raises `Invalid` where what is stored is none."""
        return RunState.from_dict(self.fields())

    def whole(self) -> bytes:
        """Return the state as one JSON text. Raises `Invalid` where what is stored is none."""
        return encode_fields(self.fields()) if self.deltas else self.body


def apply(fields: JsonObject, delta: Any) -> None:
    """Change the fields of a state by a delta. Raises `Invalid` for one that does not fit."""
    try:
        fields.update(delta["fields"])
        for verb, path, value in delta["changes"]:
            *parents, last = path
            place = fields["vars"]
            for name in parents:
                place = place[name]
            _change(place, verb, last, value)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise Invalid("delta", f"does not fit its checkpoint: {type(error).__name__}: {error}") from error


def _change(place: Any, verb: str, last: Any, value: Any) -> None:
    if verb == "set":
        place[last] = value
    elif verb == "remove":
        del place[last]
    elif verb == "append":
        place[last].extend(value)
    elif verb == "drop":
        del place[last][:value]
    else:
        raise ValueError(f"{verb!r} is not a change")
