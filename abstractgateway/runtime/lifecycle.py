"""Transitions: what each verb of the table does to a run, inside a draft.

Every function changes runs in memory only; the draft's commit makes the change durable, together with what the end
of a child run means for its parent.
"""

from __future__ import annotations

from typing import Any

from ..clock import parse_iso
from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject, check_json
from . import budgets, journal, mailbox, records, tool_waits
from .draft import Draft, OpenRun
from .models import RunState, RunStatus, WaitReason, WaitState
from .offloading import has_offloaded_vars
from .paths import namespace, store_at
from .transitions import next_status

_ASKED = ("wait_key", "prompt", "choices", "details")


def is_paused(state: RunState) -> bool:
    """Say whether the run carries the pause flag."""
    return bool(_control(state).get("paused"))


def is_waiting_for_time(state: RunState) -> bool:
    """Say whether the run waits for a time, whether it has come or not, and nothing else."""
    wait = state.waiting
    return wait is not None and wait.reason is WaitReason.UNTIL and wait.until is not None and not is_paused(state)


def is_due(state: RunState, draft: Draft) -> bool:
    """Say whether the run waits for a time that has come."""
    wait = state.waiting
    if wait is None or wait.until is None or not is_waiting_for_time(state):
        return False
    try:
        return parse_iso(wait.until, field="until") <= draft.clock.now()
    except Invalid:
        return False  # another program stored it; the run says what it waits for, and can be answered by hand


def move(draft: Draft, run: OpenRun, next_node: str) -> None:
    """Go on to another node."""
    _enter(draft, run, "step")
    mark_transition(run.state, run.state.current_node, next_node)
    run.state.current_node = next_node


def wait(draft: Draft, run: OpenRun, state: WaitState) -> None:
    """Stand still until the wait is answered; the current node stays the one that waits."""
    _enter(draft, run, "wait")
    mark_transition(run.state, run.state.current_node, state.resume_to_node)
    run.state.waiting = state
    _tell_of_wait(draft, run)


def rest(draft: Draft, run: OpenRun, state: WaitState) -> None:
    """Stand still in the middle of a step, which is not over."""
    _enter(draft, run, "wait")
    run.state.waiting = state
    _tell_of_wait(draft, run)


def ask(draft: Draft, run: OpenRun, state: WaitState) -> None:
    """Rest until a person has answered; the runs above that wait for this one say what is asked."""
    rest(draft, run, state)
    asked: JsonObject = {"run_id": run.state.run_id}
    _tell_above(draft, run.state, asked | {name: getattr(state, name) for name in _ASKED})


def complete(draft: Draft, run: OpenRun, output: JsonObject, *, record: bool = True) -> None:
    """End the run with its output; `record` is False where the effect's own record already tells it."""
    next_status(run.state.status, "complete")
    if record:
        run.append(records.completed(run, output, now=draft.now_iso()))
    _enter(draft, run, "complete")
    run.state.output = output
    _end(draft, run)


def fail(draft: Draft, run: OpenRun, error: str) -> None:
    """End the run as failed."""
    _enter(draft, run, "fail")
    run.state.error = error
    _end(draft, run)


def cancel(draft: Draft, run: OpenRun, reason: str | None = None) -> bool:
    """Cancel a run; False when it had ended already."""
    if run.state.status.is_terminal:
        return False
    _enter(draft, run, "cancel")
    run.state.error = reason or "Cancelled"
    _end(draft, run)
    return True


def tree_of(draft: Draft, run_id: str) -> list[str]:
    """Return a run and everything below it, breadth first."""
    found = [run_id]
    for parent in found:
        found += draft.stores.runs.children_of(parent)
    return found


def pause(draft: Draft, run: OpenRun, reason: str | None = None) -> bool:
    """Pause a run; False when it has ended, is paused, or waits for a person (an answer is a pause already)."""
    state = run.state
    if state.status.is_terminal or is_paused(state) or _waits_for_person(state):
        return False
    was_running = state.status is RunStatus.RUNNING
    _enter(draft, run, "pause")
    control = namespace(namespace(state.vars, "_runtime"), "control")
    control |= {"paused": True, "paused_at": state.updated_at}
    if reason:
        control["pause_reason"] = reason
    if was_running:
        state.waiting = WaitState(
            reason=WaitReason.USER,
            wait_key=f"pause:{state.run_id}",
            resume_to_node=state.current_node,
            prompt="Paused",
            allow_free_text=False,
            details={"kind": "pause"},
        )
    return True


def unpause(draft: Draft, run: OpenRun) -> bool:
    """Take the pause flag off; False when the run was not paused. What happened meanwhile is caught up with."""
    state = run.state
    if not is_paused(state):
        return False
    control = _control(state)
    control.pop("paused", None)
    control.pop("pause_reason", None)
    if is_pause_wait(state.waiting):
        _enter(draft, run, "unpause")
        state.waiting = None
    else:
        _enter(draft, run, "keep")
    control["resumed_at"] = state.updated_at
    catch_up_with_child(draft, run)
    _catch_up_with_event(draft, run)
    return True


def resume(draft: Draft, run: OpenRun, wait_key: str | None, payload: JsonObject) -> None:
    """Answer the run's wait. Raises `Conflict` when it is paused, does not wait, or waits on another key.

    Raises `Invalid` when the wait offers choices only and the answer is none of them, and when it is about tool calls
    and the answer is not.
    """
    waiting = _answerable(run.state, wait_key)
    check_json(payload, field="payload")
    if budgets.is_question(waiting):
        _decide_on_budget(draft, run, waiting, payload)
        return
    _check_choice(waiting, payload)
    if wait_key is not None:
        payload = tool_waits.with_decision(waiting, payload)
    tool_waits.check_answer(waiting, payload)
    answer_wait(draft, run, waiting, payload)


def _decide_on_budget(draft: Draft, run: OpenRun, waiting: WaitState, payload: JsonObject) -> None:
    """Raise a limit for the run and those whose budget it shares, or cancel all of them and what is below."""
    limit = budgets.limit_in(waiting, payload)
    sharing = _sharing(draft, run)
    if limit is None:
        run.append(records.resumed(run, waiting, payload, now=draft.now_iso()))
        for run_id in tree_of(draft, sharing[-1].state.run_id):
            cancel(draft, draft.open(run_id), budgets.stop_reason(waiting))
        return
    for each in sharing:
        budgets.raise_limit(each.state.vars, (waiting.details or {})["budget"], limit)
        each.is_changed = True
    _tell_above(draft, run.state, None)
    answer_wait(draft, run, waiting, payload)


def _sharing(draft: Draft, run: OpenRun) -> list[OpenRun]:
    """Return a run and those above it that share its budget, the one that it was given to last."""
    found = [run]
    while budgets.is_shared(found[-1].state.vars):
        parent = draft.find(found[-1].state.parent_run_id or "")
        if parent is None or parent.state.status.is_terminal or parent in found:
            break
        found.append(parent)
    return found


def answer_wait(draft: Draft, run: OpenRun, waiting: WaitState, payload: JsonObject) -> None:
    """Store what the run waited for and let it go on, or end, where the wait says so."""
    state = run.state
    if journal.is_question(waiting):
        answer = payload.get("response", payload.get("text"))
        journal.decide(state.vars, "again" if answer == "retry" else "give_up")
    if tool_waits.is_decision(waiting, payload):
        _take_decision(draft, run, waiting, payload)
        return
    budgets.count_answered(state.vars, waiting)
    stored = as_tool_result(waiting, payload)
    if waiting.result_key:
        store_at(state.vars, waiting.result_key, stored)
    run.append(records.resumed(run, waiting, payload, now=draft.now_iso()))
    state.waiting = None
    if waiting.resume_to_node is None:
        _enter(draft, run, "complete")
        state.output = {"success": True, "result": stored}
        run.append(records.completed(run, state.output, now=draft.now_iso(), via_wait=waiting))
        _end(draft, run)
        return
    _enter(draft, run, "resume")
    state.current_node = waiting.resume_to_node
    _tell_of_wait(draft, run)


def _take_decision(draft: Draft, run: OpenRun, waiting: WaitState, payload: JsonObject) -> None:
    """Let a run execute the tool calls that somebody agreed to; its node is where it waits, and not over yet."""
    state = run.state
    call = {**tool_waits.effect_of(waiting, payload), "node_id": state.current_node}
    run.append(records.resumed(run, waiting, payload, now=draft.now_iso()))
    journal.remember(state.vars, journal.InFlight(run.ledger_len, waiting.resume_to_node, then="approved", call=call))
    state.waiting = None
    _enter(draft, run, "resume")
    _tell_of_wait(draft, run)


def fire_timer(draft: Draft, run: OpenRun) -> None:
    """Let a run whose time has come go on; nothing is stored and nothing recorded, as in AbstractRuntime."""
    waiting = run.state.waiting
    assert waiting is not None
    run.state.waiting = None
    if waiting.resume_to_node is None:
        complete(draft, run, {"success": True, "result": None})
        return
    _enter(draft, run, "resume")
    run.state.current_node = waiting.resume_to_node
    _tell_of_wait(draft, run)


def catch_up_with_child(draft: Draft, run: OpenRun) -> None:
    """Resume a parent whose child ended while the parent could not take the news.

    Raises `Conflict` while the child's output cannot be read back: that must not hold up everything behind a command.
    """
    child_id = awaited_child(run.state)
    child = draft.peek(child_id) if child_id else None
    if child is None or not child.status.is_terminal:
        return
    if has_offloaded_vars(child):
        raise Conflict(f"the output of child run {child_id!r} is lost: its artifacts are gone or damaged")
    _tell_parent(draft, child, run)


def _catch_up_with_event(draft: Draft, run: OpenRun) -> None:
    """Resume a listener with an event that was kept while it could not take it."""
    waiting = run.state.waiting
    if waiting is None or waiting.reason is not WaitReason.EVENT or not takes_events(waiting):
        return
    event = mailbox.take(draft, waiting.wait_key or "")
    if event is not None:
        answer_wait(draft, run, waiting, event)


def takes_events(waiting: WaitState) -> bool:
    """Say whether an event can be the answer to a wait: not where it must be one of the choices."""
    return waiting.allow_free_text or not waiting.choices


def awaited_child(state: RunState) -> str | None:
    """Return the id of the child run whose end this run waits for."""
    waiting = state.waiting
    if waiting is None or waiting.reason is not WaitReason.SUBWORKFLOW or not waiting.details:
        return None
    found = waiting.details.get("sub_run_id")
    return str(found) if found else None


def mark_transition(state: RunState, node: str, next_node: str | None) -> None:
    """Note the last transition where nodes with several ways in look for it."""
    temp = namespace(state.vars, "_temp")
    temp["prev_node_id"], temp["prev_next_node"] = node, next_node


def is_pause_wait(waiting: WaitState | None) -> bool:
    """Say whether a wait stands for a pause between two steps."""
    return waiting is not None and bool(waiting.details) and (waiting.details or {}).get("kind") == "pause"


def as_tool_result(waiting: WaitState, payload: JsonObject) -> JsonObject:
    """Return the payload as a tool's result where the wait asks for that form."""
    details = waiting.details or {}
    if tool_waits.is_tool_wait(waiting):
        return tool_waits.answered_results(waiting, payload)
    if not details.get("wrap_as_tool_result") or ("mode" in payload and "results" in payload):
        return payload
    return tool_result_of_child(
        payload.get("output"),
        str(payload.get("sub_run_id") or details.get("sub_run_id") or ""),
        name=str(details.get("tool_name") or "start_subworkflow"),
        call_id=str(details.get("call_id") or "subworkflow"),
    )


def tool_result_of_child(output: Any, child_id: str, *, name: str, call_id: str) -> JsonObject:
    """Return a child run's output in the form of an executed tool call."""
    fields = output if isinstance(output, dict) else {"result": output}
    answer = fields.get("answer")
    text = answer if isinstance(answer, str) else str(answer if answer is not None else fields)
    succeeded = fields.get("success") is not False
    result = {"rendered": text, "answer": text, "sub_run_id": child_id}
    entry = {"call_id": call_id, "name": name, "success": succeeded, "output": result, "error": None}
    if not succeeded:
        entry["error"] = str(fields.get("error") or "the sub-workflow failed")
    return {"mode": "executed", "results": [entry]}


def _enter(draft: Draft, run: OpenRun, verb: str) -> None:
    run.state.status = next_status(run.state.status, verb)
    run.touch(draft.now_iso())


def _end(draft: Draft, run: OpenRun) -> None:
    """Close the books of a run that ended, and tell the parent that waits for it, in the same commit."""
    state = run.state
    if budgets.is_question(state.waiting):
        _tell_above(draft, state, None)
    state.waiting = None
    _control(state).pop("paused", None)
    for name in journal.ENDING_KEYS:
        namespace(state.vars, "_runtime").pop(name, None)
    run.append(records.status_event(run, state.status, now=draft.now_iso()))
    parent = draft.peek(state.parent_run_id) if state.parent_run_id else None
    if parent is None or parent.status.is_terminal:
        return
    used = budgets.owed(state.vars)
    if used:
        opened = draft.open(parent.run_id)
        budgets.spend(opened.state.vars, used)
        opened.is_changed = True
    if awaited_child(parent) == state.run_id and not is_paused(parent):
        _tell_parent(draft, state, draft.open(parent.run_id))


def _tell_above(draft: Draft, child: RunState, asked: JsonObject | None) -> None:
    """Keep in the waits of all runs above that wait for this one what a person is asked here; None when it is over."""
    parent = draft.peek(child.parent_run_id) if child.parent_run_id else None
    while parent is not None and awaited_child(parent) == child.run_id:
        opened = draft.open(parent.run_id)
        waiting = opened.state.waiting
        assert waiting is not None
        waiting.details = {name: value for name, value in (waiting.details or {}).items() if name != "asks"}
        waiting.details |= {"asks": asked} if asked is not None else {}
        opened.is_changed = True
        child = opened.state
        parent = draft.peek(child.parent_run_id) if child.parent_run_id else None


def _tell_of_wait(draft: Draft, run: OpenRun) -> None:
    """Keep in a parent's wait what the child waits for that it started in line: `sub_waiting {reason, wait_key}`."""
    child = run.state
    parent = draft.peek(child.parent_run_id) if child.parent_run_id else None
    if parent is None or awaited_child(parent) != child.run_id:
        return
    waiting = child.waiting
    told = {"reason": waiting.reason.value, "wait_key": waiting.wait_key} if waiting is not None else None
    details = (parent.waiting.details if parent.waiting is not None else None) or {}
    if not details.get("sync") or details.get("sub_waiting") == told:
        return
    opened = draft.open(parent.run_id)
    assert opened.state.waiting is not None
    opened.state.waiting.details = {name: value for name, value in details.items() if name != "sub_waiting"}
    if told is not None:
        opened.state.waiting.details["sub_waiting"] = told
    opened.is_changed = True


def _tell_parent(draft: Draft, child: RunState, parent: OpenRun) -> None:
    waiting = parent.state.waiting
    assert waiting is not None
    details = waiting.details or {}
    if details.get("sync") and child.status is not RunStatus.COMPLETED and not details.get("wrap_as_tool_result"):
        fail(draft, parent, f"subworkflow {child.workflow_id!r} {child.status.value}: {child.error}")
        return
    if details.get("gives_output"):
        answer_wait(draft, parent, waiting, child.output or {})
        return
    answer_wait(draft, parent, waiting, child_payload(child, include_traces=bool(details.get("include_traces"))))


def child_payload(child: RunState, *, include_traces: bool) -> JsonObject:
    """Return what a parent gets when its child ends: `{sub_run_id, output[, node_traces]}`.

    The output of a child that did not complete says so: `success` false, `error`, and `cancelled` where it was.
    """
    output: Any = child.output
    if child.status is not RunStatus.COMPLETED:
        output = {"success": False, "error": child.error, **(child.output or {})}
        if child.status is RunStatus.CANCELLED:
            output["cancelled"] = True
    payload: JsonObject = {"sub_run_id": child.run_id, "output": output if output is not None else {}}
    if include_traces:
        payload["node_traces"] = (child.vars.get("_runtime") or {}).get("node_traces") or {}
    return payload


def _answerable(state: RunState, wait_key: str | None) -> WaitState:
    if is_paused(state):
        raise Conflict(f"run {state.run_id!r} is paused; resume it before answering", code="run_paused")
    waiting = state.waiting
    if state.status is not RunStatus.WAITING or waiting is None:
        raise Conflict(f"run {state.run_id!r} is not waiting; it is {state.status.value}", code="not_waiting")
    if wait_key is not None and waiting.wait_key is not None and wait_key != waiting.wait_key:
        raise Conflict(
            f"wait_key mismatch: the run waits on {waiting.wait_key!r}, not {wait_key!r}", code="stale_answer"
        )
    return waiting


def _check_choice(waiting: WaitState, payload: JsonObject) -> None:
    if waiting.allow_free_text or not waiting.choices:
        return
    answer = payload.get("response", payload.get("text"))
    if answer not in waiting.choices:
        raise Invalid(
            "payload.response", f"{answer!r} is not one of the choices {waiting.choices!r}", code="not_a_choice"
        )


def _waits_for_person(state: RunState) -> bool:
    waiting = state.waiting
    return waiting is not None and waiting.reason is WaitReason.USER and not is_pause_wait(waiting)


def _control(state: RunState) -> JsonObject:
    control = (state.vars.get("_runtime") or {}).get("control")
    return control if isinstance(control, dict) else {}
