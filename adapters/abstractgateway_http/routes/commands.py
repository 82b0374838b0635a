"""Commands: durable requests to change a run, and what became of them."""

from __future__ import annotations

from functools import partial

from werkzeug.wrappers import Response

from abstractgateway.ids import new_hex
from abstractgateway.jsonvalue import dumps

from ..awaiting import Fields, answer_when, prefer
from ..fields import Field, choice, json_object
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import of_command, of_outcome
from ..shapes import named
from .inputs import optional_text, required_text


def submit_command(call: Call) -> Response:
    """Accept a command into the durable inbox; whether it could be applied is its outcome."""
    command_id = call.body["command_id"].strip() or new_hex()
    receipt = call.gateway.commands.submit(**{**call.body, "command_id": command_id})
    known = {"accepted": receipt.accepted, "duplicate": receipt.duplicate, "seq": receipt.seq}
    return answer_when(call, command_id, known, partial(_decided, call, command_id), lambda: None)


def _decided(call: Call, command_id: str) -> Fields | None:
    outcome = call.gateway.commands.outcome(command_id)
    # An earlier command with this id may be for a run that is none of the caller's business.
    is_own = outcome["run_id"] == call.body["run_id"].strip()
    return {"outcome": dumps(outcome)} if is_own and outcome["status"] != "pending" else None


def get_command(call: Call) -> Response:
    """Return what became of a command."""
    command_id = call.path["command_id"]
    outcome = call.gateway.commands.outcome(command_id)
    if outcome["status"] != "pending":
        return json_answer(outcome)
    return answer_when(call, command_id, outcome, partial(_told, call, command_id), lambda: None)


def _told(call: Call, command_id: str) -> Fields | None:
    outcome = call.gateway.commands.outcome(command_id)
    return {name: dumps(value) for name, value in outcome.items()} if outcome["status"] != "pending" else None


COMMAND_TYPES = ("pause", "resume", "cancel", "emit_event", "update_schedule", "compact_memory")

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/commands",
        submit_command,
        scope="command",
        session=of_command,
        audited=("command_id", "run_id", "type", "client_id"),
        answers=(Answer("The command is stored durably, now or by an earlier request.", named("Receipt")),),
        body=(
            required_text("command_id", "Chosen by the client; the same one again changes nothing. Blank: a new one."),
            required_text("run_id", "The run that the command is for."),
            Field("type", choice(*COMMAND_TYPES), required=True, about="What to do."),
            Field("payload", json_object, default=dict, about="What the type needs."),
            optional_text("ts", "When the client made it, as an ISO time."),
            optional_text("client_id", "Who made it."),
        ),
        headers=(prefer("answer with the `outcome` as soon as the command is dealt with"),),
        refusals=(400,),
    ),
    Route(
        "GET",
        f"{API}/commands/{{command_id}}",
        get_command,
        session=of_outcome,
        answers=(Answer("The outcome.", named("CommandOutcome")),),
        headers=(prefer("answer as soon as the command is dealt with"),),
        refusals=(404,),
    ),
)
