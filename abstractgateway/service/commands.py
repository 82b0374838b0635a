"""Submitting durable commands and learning what became of them."""

from __future__ import annotations

from ..clock import Clock, to_iso
from ..errors import Invalid, NotFound
from ..ids import new_hex
from ..jsonvalue import JsonObject, check_json
from ..runner.commands import COMMAND_TYPES
from ..stores.base import CommandAppendResult, CommandOutcome, CommandRecord, Stores

Receipt = CommandAppendResult


class CommandService:
    """The use cases around commands."""

    def __init__(self, *, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def submit(
        self,
        *,
        run_id: str,
        type: str,
        payload: JsonObject | None = None,
        command_id: str | None = None,
        ts: str | None = None,
        client_id: str | None = None,
    ) -> Receipt:
        """Store a command durably and return its receipt; it is applied in the order of `seq`.

        A `command_id` that was used before changes nothing: the receipt says `duplicate` and names the first one's
        `seq`. The run is not looked up; a command for an unknown one is rejected when its turn comes. Raises
        `Invalid` for an unknown type, a blank run or a payload that is not a JSON object.
        """
        if type not in COMMAND_TYPES:
            raise Invalid("", f"type must be one of {'|'.join(COMMAND_TYPES)}", code="unknown_command_type")
        if not run_id or not run_id.strip():
            raise Invalid("", "Failed to append command: run_id is required", code="run_id_required")
        if payload is not None and not isinstance(payload, dict):
            raise Invalid("payload", f"must be an object, not {payload.__class__.__name__}")
        check_json(payload, field="payload")
        command = CommandRecord(
            command_id=(command_id or "").strip() or new_hex(),
            run_id=run_id.strip(),
            type=type,
            payload=payload or {},
            ts=(ts or "").strip() or to_iso(self._clock.now()),
            client_id=client_id,
        )
        return self._stores.commands.append(command)

    def outcome(self, command_id: str) -> JsonObject:
        """Return `{command_id, run_id, type, seq, status, reason, applied_at}`.

        `status` is pending, applied or rejected. Raises `NotFound` for an unknown id.
        """
        command = self._stores.commands.get(command_id)
        if command is None:
            raise NotFound(f"Command '{command_id}' not found", code="command_not_found")
        told: JsonObject = {"status": "pending", "reason": None, "applied_at": None}
        is_dealt_with = command.seq <= self._stores.commands.get_cursor()
        outcome = self._stores.commands.outcome(command_id)
        if outcome is None and is_dealt_with:
            outcome = CommandOutcome.untold(command)
        if outcome is not None:
            told = {"status": outcome.status, "reason": outcome.reason, "applied_at": outcome.applied_at}
        return {
            "command_id": command.command_id,
            "run_id": command.run_id,
            "type": command.type,
            "seq": command.seq,
            **told,
        }
