"""What a run remembers of an effect whose outcome it does not have yet (promise G5).

The place is `vars._runtime.in_flight`: `{cursor, next_node, effect, since[, timeout_s]}` while the effect is being
performed (and after a crash in the middle of it), with `then` once it is known what comes next: `again`, `ask`,
`give_up`, or `asked` while a person decides; or `approved`, with the effect in `call`, once somebody has agreed to it.
`held` is an effect that was not begun, because its run asked for more budget; its cursor is where the ledger says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..jsonvalue import JsonObject
from .models import EffectOutcome, RunState, StepStatus, WaitReason, WaitState
from .paths import namespace

SLOT = "in_flight"
KERNEL_KEYS = (SLOT, "visits", "steps", "history", "node_traces", "control", "offloaded", "budget")
"""What the kernel keeps in `vars._runtime` about one run; it means nothing in another."""
ENDING_KEYS = (SLOT, "visits", "steps", "history")
"""What of it is dropped when the run ends; one that is put back to its start counts from one and finds its results."""
_OPTIONAL = ("then", "effect", "since", "timeout_s", "call")


@dataclass(frozen=True)
class InFlight:
    """The cursor of the effect's latest intent, the node that follows it, and what has been decided about it.

    `effect` is its type, `since` the time (ISO 8601) of the intent, and `timeout_s` how many seconds it may take.
    `call` is the effect that is to be begun: its stored form, with `key` and `node_id`.
    """

    cursor: int
    next_node: str | None
    then: str | None = None
    effect: str | None = None
    since: str | None = None
    timeout_s: float | None = None
    call: JsonObject | None = None


def count_visit(own: JsonObject, node_id: str) -> int:
    """Count that a node asks for an effect, in the run's `vars._runtime`, and return how often it has by now."""
    visits = namespace(own, "visits")
    count: int = visits.get(node_id, 0) + 1
    visits[node_id] = count
    return count


def visit_of(own: JsonObject, node_id: str) -> int:
    """Return how often a node has asked for an effect by now, from 1."""
    return int(namespace(own, "visits").get(node_id, 1))


def remember(vars: JsonObject, found: InFlight) -> None:
    """Write down an effect; the commit that follows makes it durable."""
    entry: JsonObject = {"cursor": found.cursor, "next_node": found.next_node}
    entry |= {name: value for name in _OPTIONAL if (value := getattr(found, name)) is not None}
    namespace(vars, "_runtime")[SLOT] = entry


def recall(vars: JsonObject) -> InFlight | None:
    """Return the effect without outcome, or None."""
    own = vars.get("_runtime")
    entry = own.get(SLOT) if isinstance(own, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("cursor"), int):
        return None
    return InFlight(entry["cursor"], entry.get("next_node"), *map(entry.get, _OPTIONAL))


def forget(vars: JsonObject) -> None:
    """Strike the effect out: its outcome is known, or wanted no more."""
    namespace(vars, "_runtime").pop(SLOT, None)


def decide(vars: JsonObject, then: str) -> None:
    """Note what comes next for an effect in doubt."""
    found = recall(vars)
    if found is not None:
        remember(vars, replace(found, then=then))


def unknown(reason: str | None = None) -> EffectOutcome:
    """Return what is known of an effect that may still be under way: that it was started; and why it is not more."""
    return EffectOutcome(StepStatus.STARTED, error=reason)


def question(state: RunState, effect: Any, node_id: str, cursor: int) -> WaitState:
    """Return the wait that asks a person what to do about an effect in doubt; it is answered `retry` or `fail`."""
    name = effect.get("type") if isinstance(effect, dict) else None
    what = f"The effect {name} of node {node_id!r} was interrupted and may have happened"
    return WaitState(
        reason=WaitReason.USER,
        wait_key=f"in_doubt:{state.run_id}:{cursor}",
        resume_to_node=state.current_node,
        prompt=f"{what}. Perform it again, or fail the run?",
        choices=["retry", "fail"],
        allow_free_text=False,
        details={"kind": "in_doubt", "effect_type": name, "node_id": node_id, "cursor": cursor},
    )


def is_question(wait: WaitState) -> bool:
    """Say whether a wait asks about an effect in doubt."""
    return bool(wait.details) and (wait.details or {}).get("kind") == "in_doubt"


def retry_wait(state: RunState, *, until: str, attempt: int, error: str | None) -> WaitState:
    """Return the rest between two attempts of an effect; whoever answers it early starts the next attempt."""
    return WaitState(
        reason=WaitReason.UNTIL,
        until=until,
        resume_to_node=state.current_node,
        details={"kind": "retry", "attempt": attempt, "error": error},
    )


def without_kernel_keys(own: JsonObject) -> JsonObject:
    """Return what of one run's `vars._runtime` may become part of another's."""
    return {key: value for key, value in own.items() if key not in KERNEL_KEYS}
