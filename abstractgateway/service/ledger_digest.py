"""What happened in a run, as a text short enough to be read by a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..jsonvalue import JsonObject, compact_text, loads
from ..runtime.models import RunState
from ..stores.base import Stores

MAX_CHARS = 48_000
"""About 12,000 tokens, which models that run on one's own machine can read too."""
MAX_RUNS = 50
_MAX_RECORDS = 300
_MAX_VALUE_CHARS = 600
_SHARE_OF_THE_RUN = 0.5
"""How much of the text is the run's own at most, when there are runs below it."""


@dataclass(frozen=True)
class LedgerDigest:
    """The text, and how many records each of the runs has that it was made from."""

    text: str
    lengths: dict[str, int]


def ledger_digest(stores: Stores, run: RunState, *, run_ids: list[str]) -> LedgerDigest:
    """Return what the last records of a run and of those below it say, oldest first, `MAX_CHARS` at most.

    `run_ids` begins with the run itself; of the others the first `MAX_RUNS` are told of.
    """
    chosen = run_ids[:MAX_RUNS]
    own = MAX_CHARS if len(chosen) == 1 else int(MAX_CHARS * _SHARE_OF_THE_RUN)
    parts = [_head(run), _part(stores, chosen[0], own)]
    left = MAX_CHARS - sum(map(len, parts))
    for place, run_id in enumerate(chosen[1:]):
        parts.append(_part(stores, run_id, left // (len(chosen) - 1 - place)))
        left -= len(parts[-1])
    if len(run_ids) > len(chosen):
        parts.append(f"{len(run_ids) - len(chosen)} more runs below it are left out.")
    return LedgerDigest("\n\n".join(parts)[:MAX_CHARS], {run_id: stores.ledger.count(run_id) for run_id in chosen})


def _head(run: RunState) -> str:
    error = f"\nerror: {_short(run.error)}" if run.error else ""
    waiting = run.waiting
    wait = f"\nwaits for: {waiting.reason.value} {_short(waiting.prompt or '')}" if waiting is not None else ""
    output = f"\noutput: {_short(run.output)}" if run.output is not None else ""
    began = f"run {run.run_id} of workflow {run.workflow_id}: {run.status.value}, began {run.created_at}"
    return f"{began}{error}{wait}{output}"


def _part(stores: Stores, run_id: str, most: int) -> str:
    """Return the last records of one run that fit."""
    total = stores.ledger.count(run_id)
    first = max(0, total - _MAX_RECORDS)
    lines: list[str] = []
    left = most
    for line in reversed(list(_lines(stores, run_id, first))):
        left -= len(line) + 1
        if left < 0:
            break
        lines.append(line)
    title = f"ledger of run {run_id}, {total} records, of which the last {len(lines)} that say something:"
    return "\n".join([title, *reversed(lines)])


def _lines(stores: Stores, run_id: str, after: int) -> Iterator[str]:
    for cursor, body in enumerate(stores.ledger.read(run_id, after, _MAX_RECORDS).records, after + 1):
        record = loads(body, field="record")
        if record.get("status") != "started":  # what came of it is in a record of its own
            yield f"[{cursor}] {_line(record)}"


def _line(record: JsonObject) -> str:
    effect = record.get("effect")
    known: JsonObject = effect if isinstance(effect, dict) else {}
    head = f"{record.get('started_at')} {record.get('node_id')} {known.get('type') or 'step'} {record.get('status')}"
    told = {"asked": known.get("payload"), "result": record.get("result"), "error": record.get("error")}
    return " | ".join([head, *(f"{name}: {_short(value)}" for name, value in told.items() if value)])


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else compact_text(value)).split())
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}… ({len(text)} characters)"
