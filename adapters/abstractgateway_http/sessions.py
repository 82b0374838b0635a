"""What a caller who knows one session only may ask for: a rule for each kind of route.

A rule returns the request as it may be handled. Runs of other sessions do not exist for such a caller: the answer is
that of an unknown run. A route without a rule is refused, so that a new one reveals nothing by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from abstractgateway.errors import NotFound

from .refusal import Refused
from .route import Call, Route, SessionRule

RUN_ID = "{run_id}"
_SESSION_NAMES = ("session_id", "sessionId")
_REFERENCES = ("$artifact", "artifact_id")


def rule_of(route: Route) -> SessionRule:
    """Return the rule of a route: its own, or that its path names a run of the session."""
    if route.session is not None:
        return route.session
    if not route.needs_token:
        return anything
    return of_run if RUN_ID in route.path else _closed


def anything(call: Call, session_id: str) -> Call:
    """The route tells nothing about runs."""
    return call


def of_run(call: Call, session_id: str) -> Call:
    """The run in the path belongs to the session."""
    _check_runs(call, [call.path["run_id"]], session_id)
    return call


def of_runs(call: Call, session_id: str) -> Call:
    """All runs in the body belong to the session."""
    _check_runs(call, call.body["runs"], session_id)
    return call


def into_session(call: Call, session_id: str) -> Call:
    """What the body makes belongs to the session, without having to say so."""
    _check_session(call.body.get("session_id"), session_id)
    _check_references(call, call.body.get("input_data"), session_id)
    return replace(call, body={**call.body, "session_id": session_id})


def listed(call: Call, session_id: str) -> Call:
    """Only what belongs to the session is listed."""
    _check_session(call.query.get("session_id"), session_id)
    return replace(call, query={**call.query, "session_id": session_id})


def of_command(call: Call, session_id: str) -> Call:
    """A command is for a run of the session, and an event stays in it."""
    _check_runs(call, [call.body["run_id"].strip()], session_id)
    _check_references(call, call.body["payload"], session_id)
    if call.body["type"] != "emit_event":
        return call
    payload = call.body["payload"]
    scope = str(payload.get("scope") or "session").strip().lower()
    if scope != "session":
        raise _refused(f"an event of scope {scope!r}")
    for name in _SESSION_NAMES:
        _check_session(payload.get(name), session_id)
    return replace(call, body={**call.body, "payload": {**payload, "session_id": session_id}})


def of_outcome(call: Call, session_id: str) -> Call:
    """The command in the path was for a run of the session."""
    command_id = call.path["command_id"]
    found = call.gateway.commands.outcome(command_id)
    if call.gateway.runs.session_of(found["run_id"]) != session_id:
        raise NotFound(f"Command '{command_id}' not found", code="command_not_found")
    return call


def _closed(call: Call, session_id: str) -> Call:
    raise _refused("this route")


def _check_runs(call: Call, run_ids: Iterable[str], session_id: str) -> None:
    for run_id in run_ids:
        if call.gateway.runs.session_of(run_id) != session_id:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")


def _check_references(call: Call, value: Any, session_id: str) -> None:
    """No reference leads to an artifact of another session; those that lead nowhere are data like any other."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += item.values()
            for artifact_id in (item.get(name) for name in _REFERENCES):
                _check_artifact(call, artifact_id, session_id)
        elif isinstance(item, list):
            left += item


def _check_artifact(call: Call, artifact_id: Any, session_id: str) -> None:
    owner = call.gateway.artifacts.owner(artifact_id) if isinstance(artifact_id, str) else None
    if owner is not None and call.gateway.runs.session_of(owner) != session_id:
        raise NotFound(f"Artifact '{artifact_id}' not found", code="artifact_not_found")


def _check_session(given: Any, session_id: str) -> None:
    if given is not None and given != "" and given != session_id:
        raise _refused("another session")


def _refused(what: str) -> Refused:
    return Refused(403, "session_not_allowed", f"Forbidden ({what} is not for a token of one session)")
