"""Large values leave ledger records and ended runs for artifacts, and come back where the kernel reads them.

What stays in a value's place is a reference: `{"$artifact": id, "$offloaded": kind}` with the kind `text` or `json`.
AbstractRuntime's form lacks the second key, and so do the references that flows and clients make themselves. A value
of a user's that looks like one made here is offloaded as well, however small it is; reading it back gives it as it
was, because the content of an artifact is never searched for references. So whatever is read back is what was written.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from ..errors import GatewayError, Invalid, Unavailable
from ..ids import new_hex
from ..jsonvalue import JsonObject, dumps, loads
from .artifact_refs import REF, artifact_ref, is_artifact_ref
from .commit import KernelArtifacts
from .models import RunState, StepRecord

MAX_INLINE_BYTES = 262_144
"""AbstractRuntime's bound: a value whose JSON has more bytes is not kept inline."""

MARK = "$offloaded"
SLOT = "offloaded"
"""The name in `vars._runtime` that says that values of this run were offloaded when it ended."""

WRITER_TAG, WRITER = "writer", "abstractgateway"
"""Artifacts of AbstractRuntime lack this tag; their references have no mark and are known by their other tags."""

EFFECT_SOURCE = "ledger_effect_offload"
RESULT_SOURCE = "ledger_result_offload"
VARS_SOURCE = "run_store_offload"
OUTPUT_SOURCE = "run_output_offload"
SOURCES = frozenset({EFFECT_SOURCE, RESULT_SOURCE, VARS_SOURCE, OUTPUT_SOURCE})
"""What the tag `source` of an artifact says that a record or an ended run refers to."""

_STAYING = ("memory_spans",)
_MARK_BYTES = f'"{MARK}"'.encode()
_CONTENT_TYPES = {"text": "text/plain", "json": "application/json"}
_PLACEHOLDER = "0" * 32


def is_offloaded(value: object) -> bool:
    """Say whether a JSON value has the form of a reference made here."""
    return isinstance(value, dict) and len(value) == 2 and MARK in value and REF in value


def is_owned_by_run(tags: Mapping[str, str]) -> bool:
    """Say whether an artifact with these tags is a part of a run's ledger or state that lies elsewhere."""
    return tags.get(WRITER_TAG) == WRITER and tags.get("source") in SOURCES


def offload_large_values(
    value: Any,
    *,
    artifact_store: KernelArtifacts,
    run_id: str,
    max_inline_bytes: int = MAX_INLINE_BYTES,
    base_tags: Mapping[str, str] | None = None,
    root_path: str = "",
    allow_root_replace: bool = False,
) -> Any:
    """Return a JSON value whose large parts are references to artifacts of the run; the given value is not changed.

    Parts are looked at from the inside out, so what is left of a container may be small enough to stay. References
    to artifacts stay as they are, and the value itself stays unless `allow_root_replace` is set. Each artifact has the
    base tags, its `kind` unless they have one, and the `path` of the value, such as `output.list[3]`. The artifacts are
    durable when this returns. Raises `Invalid` for a value that JSON does not have.
    """
    departure = _Departure(max_inline_bytes)
    left = departure.rest_of(value, root_path, is_root=not allow_root_replace)
    departure.store(artifact_store, run_id, base_tags or {})
    return left


def rehydrate(
    value: Any, artifacts: KernelArtifacts, *, run_id: str | None = None, path: str = "", is_lenient: bool = False
) -> Any:
    """Return a value with everything in the place of its reference that was offloaded from it.

    References that a user put there stay as they are. AbstractRuntime's have no mark: those are read back whose
    artifact says that it was offloaded from the run `run_id`. Raises `Unavailable`, naming the `path`, when an artifact
    is gone or damaged; with `is_lenient` its reference stays.
    """
    return _Return(artifacts, run_id, is_lenient).of(value, path)


def rehydrate_record(record: JsonObject, artifacts: KernelArtifacts | None, *, is_lenient: bool = False) -> JsonObject:
    """Return a decoded ledger record with its effect and result as they were before large values left them."""
    if artifacts is None:
        return record
    back = _Return(artifacts, record.get("run_id"), is_lenient)
    effect = back.of(record.get("effect"), "ledger.effect")
    return {**record, "effect": effect, "result": back.of(record.get("result"), "ledger.result")}


def output_of(state: RunState, artifacts: KernelArtifacts | None, *, is_lenient: bool = False) -> Any:
    """Return a stored run's output as it was when the run ended."""
    if artifacts is None or not state.status.is_terminal:
        return state.output
    return _Return(artifacts, state.run_id, is_lenient).of(state.output, "output")


def output_json_of(state: RunState, artifacts: KernelArtifacts | None) -> bytes:
    """Return the JSON of a stored run's output as it was when the run ended; what is gone or damaged is its reference.

    What was offloaded is not decoded: that would keep all other threads waiting for as long as it takes.
    """
    if artifacts is None or not state.status.is_terminal:
        return dumps(state.output, field="output")
    encoding = _Encoding(artifacts, state.run_id, is_lenient=True)
    return encoding.joined(encoding.of(state.output, "output"))


def has_offloaded_vars(state: RunState) -> bool:
    """Say whether a stored run's variables may lack values that were offloaded."""
    own = state.vars.get("_runtime")
    return isinstance(own, dict) and SLOT in own


def check_whole(state: RunState) -> RunState:
    """Return a state that was put together again, or raise `Unavailable` when that could not be done."""
    if has_offloaded_vars(state):
        why = f"run {state.run_id!r} has values that cannot be read back: their artifacts are gone or damaged"
        raise Unavailable(why, code="artifact_damaged")
    return state


def vars_of(state: RunState, artifacts: KernelArtifacts | None, *, is_lenient: bool = False) -> JsonObject:
    """Return a stored run's variables as they were when the run ended; those of other runs are as they are."""
    if artifacts is None or not has_offloaded_vars(state):
        return state.vars
    vars: JsonObject = _Return(artifacts, state.run_id, is_lenient).of(state.vars, "vars")
    vars["_runtime"].pop(SLOT, None)
    return vars


class Offloading:
    """Where large values go, and above how many bytes; None or 0 keeps all of them inline."""

    def __init__(self, artifacts: KernelArtifacts | None, max_inline_bytes: int | None) -> None:
        self._artifacts = artifacts
        self._limit = max_inline_bytes if max_inline_bytes and max_inline_bytes > 0 else sys.maxsize

    def rehydrate_state(self, state: RunState) -> RunState:
        """Put everything back into a run's state that left it when the run ended, and return it.

        While an artifact cannot be read the state stays as it is, so that the run can still be found; whoever needs all
        of it calls `check_whole`.
        """
        with suppress(Unavailable):
            state.output, state.vars = output_of(state, self._artifacts), vars_of(state, self._artifacts)
        return state

    def rehydrate_record(self, record: JsonObject) -> JsonObject:
        """Return a decoded ledger record with its effect and result as they were before large values left them."""
        return rehydrate_record(record, self._artifacts)

    def concerns(self, body: bytes) -> bool:
        """Say whether an encoded record has something in it that must not stay there."""
        return (len(body) > self._limit or _has_mark(body)) and self._artifacts is not None

    def slim_record(self, record: StepRecord) -> StepRecord:
        """Return a copy of a record without its large values, which are durable as artifacts then."""
        slim = copy(record)
        slim.effect = self._slim(record.effect, record.run_id, "ledger.effect", EFFECT_SOURCE)
        slim.result = self._slim(record.result, record.run_id, "ledger.result", RESULT_SOURCE)
        return slim

    def concerns_state(self, state: RunState, body: bytes) -> bool:
        """Say whether an encoded state is that of an ended run which is large, or has what looks like a reference."""
        is_concerned = state.status.is_terminal and (len(body) > self._limit or _has_mark(body))
        return is_concerned and self._artifacts is not None

    def slim_state(self, state: RunState) -> RunState:
        """Return a copy of an ended run without the large values in its output and variables.

        The namespaces of the kernel and of flows (`vars._…`) stay objects, so that what is small in them can be read.
        The index of what a run remembers stays as well: it changes after the end, and each change would leave a copy.
        """
        slim = copy(state)
        slim.output = self._slim(state.output, state.run_id, "output", OUTPUT_SOURCE, keep_root=False)
        slim.vars = {
            name: self._slim(value, state.run_id, f"vars.{name}", VARS_SOURCE, keep_root=name.startswith("_"))
            for name, value in state.vars.items()
            if name != "_runtime"
        }
        own = state.vars.get("_runtime") or {}
        kept = {name: self._marked(own[name], state.run_id, name) for name in _STAYING if name in own}
        others = {name: value for name, value in own.items() if name not in kept}
        rest = self._slim(others, state.run_id, "vars._runtime", VARS_SOURCE)
        slim.vars["_runtime"] = {**rest, **kept, SLOT: True}
        return slim

    def _marked(self, value: Any, run_id: str, name: str) -> Any:
        """Return a value that stays, however large, without anything in it that looks like a reference made here."""
        everything = Offloading(self._artifacts, None)
        return everything._slim(value, run_id, f"vars._runtime.{name}", VARS_SOURCE)

    def _slim(self, value: Any, run_id: str, path: str, source: str, *, keep_root: bool = True) -> Any:
        assert self._artifacts is not None
        return offload_large_values(
            value,
            artifact_store=self._artifacts,
            run_id=run_id,
            max_inline_bytes=self._limit,
            base_tags={"source": source, WRITER_TAG: WRITER},
            root_path=path,
            allow_root_replace=not (keep_root and isinstance(value, dict) and not is_offloaded(value)),
        )


@dataclass
class _Leaving:
    """A value that leaves, and the reference in its place, which gets its id once the value is stored."""

    value: Any
    kind: str
    path: str
    ref: JsonObject


class _Departure:
    """One walk through a value: what stays of it, and what leaves."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._leaving: list[_Leaving] = []

    def rest_of(self, value: Any, path: str, *, is_root: bool = False) -> Any:
        """Return what stays in the value's place; a root stays at least as the container that it is."""
        if is_offloaded(value) and not is_root:
            return self._leave(value, path)
        encoded = dumps(value)
        if self._may_stay(value, encoded):
            return value
        before = len(self._leaving)
        rest = self._rest_inside(value, path)
        if is_root or len(dumps(rest)) <= self._limit:
            return rest
        del self._leaving[before:]  # what is inside leaves with it
        return self._leave(value, path)

    def store(self, artifacts: KernelArtifacts, run_id: str, tags: Mapping[str, str]) -> None:
        """Make everything durable that leaves."""
        for item in self._leaving:
            content = item.value.encode() if item.kind == "text" else dumps(item.value)
            stored = artifacts.store(
                content,
                content_type=_CONTENT_TYPES[item.kind],
                run_id=run_id,
                tags={"kind": item.kind, **tags, "path": item.path},
                artifact_id=_own_id(run_id, content),
            )
            item.ref[REF] = stored.artifact_id

    def _may_stay(self, value: Any, encoded: bytes) -> bool:
        if _MARK_BYTES in encoded:
            return False
        return len(encoded) <= self._limit or is_artifact_ref(value)

    def _rest_inside(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {name: self.rest_of(item, f"{path}.{name}") for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.rest_of(item, f"{path}[{number}]") for number, item in enumerate(value)]
        return value

    def _leave(self, value: Any, path: str) -> JsonObject:
        kind = "text" if isinstance(value, str) else "json"
        ref = {**artifact_ref(_PLACEHOLDER), MARK: kind}
        self._leaving.append(_Leaving(value, kind, path, ref))
        return ref


def _has_mark(body: bytes) -> bool:
    # A dollar sign is rare, and looking for one byte takes a tenth of the time that the name takes.
    return b"$" in body and _MARK_BYTES in body


def _own_id(run_id: str, content: bytes) -> str:
    """Return an id that no artifact stored by anybody else has: its tags say what it is, and nobody may delete it."""
    return hashlib.sha256(b"%b\0%b\0%b" % (SLOT.encode(), run_id.encode(), content)).hexdigest()[:32]


@dataclass(frozen=True)
class _Return:
    """One walk back through a value of a run."""

    artifacts: KernelArtifacts
    run_id: str | None
    is_lenient: bool

    def of(self, value: Any, path: str) -> Any:
        """Return the value with what was offloaded in its place; what comes back is not looked into.

        Raises `Invalid` for a value that is nested too deeply.
        """
        try:
            return self._of(value, path)
        except RecursionError as error:
            raise Invalid(path, "is nested too deeply") from error

    def _of(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            if is_offloaded(value) or _may_be_foreign(value):
                return self._value_of(value, path)
            return {name: self._of(item, f"{path}.{name}") for name, item in value.items()}
        if isinstance(value, list):
            return [self._of(item, f"{path}[{number}]") for number, item in enumerate(value)]
        return value

    def _value_of(self, ref: JsonObject, path: str) -> Any:
        """Return what a reference stands for where it was made by offloading, else the reference."""
        try:
            kind = str(ref[MARK]) if is_offloaded(ref) else self._foreign_kind(ref)
            return self._content(str(ref[REF]), kind) if kind in _CONTENT_TYPES else ref
        except (GatewayError, ValueError) as error:
            if self.is_lenient or not is_offloaded(ref):
                return ref
            raise Unavailable(f"the value at {path!r} cannot be read back: {error}", code="artifact_damaged") from error

    def _foreign_kind(self, ref: JsonObject) -> str | None:
        """Return what AbstractRuntime offloaded here, `text` or `json`; None when it did not."""
        metadata = self.artifacts.get_metadata(ref[REF]) if self.run_id else None
        if metadata is None or metadata.run_id != self.run_id or WRITER_TAG in metadata.tags:
            return None
        return metadata.tags.get("kind") if metadata.tags.get("source") in SOURCES else None

    def _content(self, artifact_id: str, kind: str | None) -> Any:
        content = self._load(artifact_id)
        return content.decode() if kind == "text" else loads(content, field=f"artifact {artifact_id}")

    def _load(self, artifact_id: str) -> bytes:
        content = self.artifacts.load(artifact_id)
        if content is None:
            raise Unavailable(f"there is no artifact {artifact_id!r}", code="artifact_damaged")
        return content


@dataclass(frozen=True)
class _Encoding(_Return):
    """A walk back to JSON: what was offloaded here stays the JSON that is stored, and a mark holds its place."""

    mark: str = field(default_factory=new_hex)
    parts: list[bytes] = field(default_factory=list)

    def joined(self, value: Any) -> bytes:
        """Return the JSON of what `of` returned."""
        pieces = dumps(value, field="output").split(dumps(self.mark))
        for number, part in enumerate(self.parts):
            pieces.insert(2 * number + 1, part)
        return b"".join(pieces)

    def _value_of(self, ref: JsonObject, path: str) -> Any:
        if is_offloaded(ref):
            return super()._value_of(ref, path)
        # Nobody knows whether what AbstractRuntime stored is strict JSON.
        return _Return(self.artifacts, self.run_id, self.is_lenient)._value_of(ref, path)

    def _content(self, artifact_id: str, kind: str | None) -> Any:
        content = self._load(artifact_id)
        self.parts.append(dumps(content.decode()) if kind == "text" else content)
        return self.mark


def _may_be_foreign(value: JsonObject) -> bool:
    """Say whether a reference has the form that AbstractRuntime's offloading makes; those of users may have it too."""
    return len(value) == 1 and isinstance(value.get(REF), str)
