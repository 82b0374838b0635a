"""Commands: durable requests to change a run, and what became of them."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field, choice, json_object
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import named
from .inputs import optional_text, required_text


def submit_command(call: Call) -> Response:
    """Accept a command into the durable inbox; whether it could be applied is its outcome."""
    command_id = call.body["command_id"]
    receipt = call.gateway.commands.submit(**{**call.body, "command_id": command_id if command_id.strip() else None})
    return json_answer({"accepted": receipt.accepted, "duplicate": receipt.duplicate, "seq": receipt.seq})


def get_command(call: Call) -> Response:
    """Return what became of a command."""
    return json_answer(call.gateway.commands.outcome(call.path["command_id"]))


COMMAND_TYPES = ("pause", "resume", "cancel", "emit_event", "update_schedule", "compact_memory")

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/commands",
        submit_command,
        answers=(Answer("The command is stored durably, now or by an earlier request.", named("Receipt")),),
        body=(
            required_text("command_id", "Chosen by the client; the same one again changes nothing. Blank: a new one."),
            required_text("run_id", "The run that the command is for."),
            Field("type", choice(*COMMAND_TYPES), required=True, about="What to do."),
            Field("payload", json_object, default=dict, about="What the type needs."),
            optional_text("ts", "When the client made it, as an ISO time."),
            optional_text("client_id", "Who made it."),
        ),
        refusals=(400,),
    ),
    Route(
        "GET",
        f"{API}/commands/{{command_id}}",
        get_command,
        answers=(Answer("The outcome.", named("CommandOutcome")),),
        refusals=(404,),
    ),
)
