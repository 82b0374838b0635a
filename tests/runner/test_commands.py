from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from abstractgateway.errors import StaleWrite, Unavailable
from abstractgateway.runner import CommandApplier
from abstractgateway.runtime import Commit, CommitReceipt, EffectType, RunStatus
from abstractgateway.stores import open_memory_stores
from tests.runner.bench import Bench
from tests.runtime.workflows import Crash, Json, ask_then_end, effect, end, loop, spec

CHOICES = {"prompt": "Go on?", "choices": ["yes", "no"], "allow_free_text": False}
HEARS = spec(
    "hears",
    wait=effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end", key="heard"),
    end=end("end", "heard"),
)
TIMER = spec(
    "timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": "2026-01-01T00:01:00Z"}, then="end"), end=end()
)


def starts(child: str, workflow_id: str) -> Any:
    request = {"workflow_id": child}
    return spec(workflow_id, start=effect("start", EffectType.START_SUBWORKFLOW, request, then="end"), end=end())


def waiting(bench: Bench, workflow: Any, **ids: Any) -> str:
    run_id = bench.start(workflow, **ids)
    bench.runner().run_until_idle()
    return run_id


def test_an_answer_is_applied_and_the_run_goes_on(bench: Bench) -> None:
    run_id = waiting(bench, ask_then_end())
    command = bench.send(run_id, "resume", {"wait_key": f"user:{run_id}:ask", "payload": {"response": "yes"}})

    bench.runner().run_until_idle()

    assert bench.outcome(command) == ("applied", None)
    assert bench.state(run_id).output == {"answer": {"response": "yes"}}


def test_an_outcome_tells_when_and_which_command(bench: Bench) -> None:
    run_id = waiting(bench, ask_then_end())
    bench.clock.move(5)
    command = bench.send(run_id, "cancel")

    bench.runner().run_until_idle()

    found = bench.stores.commands.outcome(command)
    assert found.to_dict() == {
        "seq": 1,
        "command_id": command,
        "status": "applied",
        "reason": None,
        "applied_at": "2026-01-01T00:00:05+00:00",
    }


@pytest.mark.parametrize(
    ("type", "payload", "reason"),
    [
        ("resume", {"payload": {}, "wait_key": "user:other"}, "wait_key mismatch"),
        ("resume", {"payload": {}, "waitKey": "user:other"}, "wait_key mismatch"),
        ("resume", {"payload": "yes"}, "payload.payload: must be an object, not str"),
        ("resume", {"payload": None}, "payload.payload: must be an object, not NoneType"),
        ("resume", {"payload": {"response": "maybe"}}, "'maybe' is not one of the choices ['yes', 'no']"),
        ("emit_event", {}, "name: is blank"),
        ("emit_event", {"name": "go", "scope": "galaxy"}, "'galaxy' is not one of"),
        ("emit_event", {"name": "go", "scope": "workflow"}, "workflow_id: is missing"),
        ("explode", {}, "unknown command type 'explode'; known: pause, resume"),
        ("update_schedule", {"interval": "1h"}, "is not part of a schedule"),
        ("compact_memory", {}, "is not part of a schedule"),
    ],
)
def test_a_command_that_cannot_be_applied_is_rejected_and_changes_nothing(
    bench: Bench, type: str, payload: Json, reason: str
) -> None:
    run_id = waiting(bench, ask_then_end(CHOICES))
    before = bench.stores.runs.open(run_id)
    command = bench.send(run_id, type, payload)

    bench.runner().run_until_idle()

    status, why = bench.outcome(command)
    assert status == "rejected"
    assert reason in str(why)
    assert bench.stores.runs.open(run_id) == before


@pytest.mark.parametrize("type", ["pause", "resume", "cancel", "update_schedule", "compact_memory"])
def test_a_command_for_an_unknown_run_is_rejected(bench: Bench, type: str) -> None:
    command = bench.send("nobody", type)

    bench.runner().run_until_idle()

    assert bench.outcome(command) == ("rejected", "unknown run 'nobody'")


def test_an_answer_to_a_run_that_does_not_wait_or_has_ended_is_rejected(bench: Bench) -> None:
    run_id = waiting(bench, ask_then_end())
    first, second = (bench.send(run_id, "resume", {"payload": {"response": text}}) for text in ("yes", "no"))

    bench.runner().run_until_idle()

    assert bench.outcome(first) == ("applied", None)
    assert "is not waiting; it is running" in str(bench.outcome(second)[1])
    assert bench.state(run_id).output == {"answer": {"response": "yes"}}


def test_an_answer_to_a_paused_run_is_rejected_with_the_reason(bench: Bench) -> None:
    run_id = waiting(bench, HEARS)
    bench.send(run_id, "pause")
    answer = bench.send(run_id, "resume", {"payload": {}})

    bench.runner().run_until_idle()

    assert "is paused" in str(bench.outcome(answer)[1])


def test_commands_are_applied_in_the_order_they_were_accepted_in(bench: Bench) -> None:
    run_id = waiting(bench, loop(5, EffectType.ASK_USER, {"prompt": "?"}))
    sent = [bench.send(run_id, type) for type in ("pause", "cancel", "resume", "pause")]
    order: list[int] = []
    bench.stores.subscribe(lambda changes: order.append(bench.stores.commands.get_cursor()))

    bench.runner().run_until_idle()

    assert [bench.outcome(command)[0] for command in sent] == ["applied"] * 4
    assert bench.stores.commands.get_cursor() == 4
    assert bench.state(run_id).status is RunStatus.CANCELLED


def test_a_command_sent_twice_is_applied_once(bench: Bench) -> None:
    run_id = waiting(bench, loop(5, EffectType.ASK_USER, {"prompt": "?"}))
    answer = {"payload": {"response": "x"}}
    for _ in range(3):
        bench.send(run_id, "resume", answer, command_id="same")
        bench.runner().run_until_idle()

    resumes = [record for record in bench.ledger(run_id) if (record["effect"] or {}).get("type") == "resume"]
    assert len(resumes) == 1
    assert bench.stores.commands.get_last_seq() == 1


def test_a_command_that_was_accepted_before_a_restart_is_applied_after_it(bench: Bench) -> None:
    run_id = waiting(bench, ask_then_end())
    command = bench.send(run_id, "resume", {"payload": {"response": "yes"}})

    before = bench.outcome(command)
    for _ in range(3):
        bench.runner().run_until_idle()

    assert before == ("pending", None)
    assert bench.outcome(command) == ("applied", None)
    assert len([record for record in bench.ledger(run_id) if (record["effect"] or {}).get("type") == "resume"]) == 1


class Faulty:
    """Memory stores on which every n-th kind of commit ends the process, or fails for a while."""

    def __init__(self) -> None:
        self._stores = open_memory_stores()
        self.crash_at_outcome: str | None = None
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def commit(self, commit: Commit) -> CommitReceipt:
        if self.failures > 0 and commit.command is None:
            self.failures -= 1
            raise Unavailable("the disk is full")
        if commit.outcome is None or self.crash_at_outcome is None:
            return self._stores.commit(commit)
        if self.crash_at_outcome == "after":
            self._stores.commit(commit)
        self.crash_at_outcome = None
        raise Crash


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("type", ["resume", "cancel", "nonsense"])
def test_a_crash_while_a_command_is_applied_applies_it_once(when: str, type: str) -> None:
    stores = Faulty()
    bench = Bench(stores)
    run_id = waiting(bench, loop(5, EffectType.ASK_USER, {"prompt": "?"}))
    command = bench.send(run_id, type, {"payload": {"response": "x"}})
    stores.crash_at_outcome = when
    with pytest.raises(Crash):
        bench.runner().run_until_idle()

    bench.runner().run_until_idle()

    assert bench.outcome(command)[0] == ("rejected" if type == "nonsense" else "applied")
    assert bench.stores.commands.get_cursor() == 1
    resumes = [record for record in bench.ledger(run_id) if (record["effect"] or {}).get("type") == "resume"]
    assert len(resumes) == (1 if type == "resume" else 0)


def test_what_a_command_changes_and_its_outcome_are_one_commit(bench: Bench) -> None:
    run_id = waiting(bench, ask_then_end())
    command = bench.send(run_id, "cancel")
    seen: list[tuple[str, str]] = []
    bench.stores.subscribe(lambda changes: seen.append((bench.outcome(command)[0], bench.state(run_id).status.value)))

    bench.runner().run_until_idle()

    assert seen == [("applied", "cancelled")]


def test_a_command_waits_while_the_store_cannot_write() -> None:
    stores = Faulty()
    bench = Bench(stores)
    run_id = waiting(bench, ask_then_end())
    command = bench.send(run_id, "cancel")
    runner = bench.runner()
    stores.failures = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            runner.run_until_idle()

    pending = bench.outcome(command)
    runner.run_until_idle()

    assert pending == ("pending", None)
    assert bench.outcome(command) == ("applied", None)


class OddRuns:
    """A run store that breaks the first time it is asked for children."""

    def __init__(self, runs: Any) -> None:
        self._runs = runs
        self._is_broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runs, name)

    def children_of(self, run_id: str) -> list[str]:
        if self._is_broken:
            self._is_broken = False
            raise TypeError("odd")
        found: list[str] = self._runs.children_of(run_id)
        return found


def test_one_command_that_nobody_foresaw_does_not_keep_the_next_from_its_turn() -> None:
    stores = Faulty()
    bench = Bench(stores)
    run_id = waiting(bench, ask_then_end())
    stores.runs = OddRuns(stores.runs)
    odd, good = bench.send(run_id, "pause"), bench.send(run_id, "cancel")

    bench.runner().run_until_idle()

    assert bench.outcome(odd) == ("rejected", "internal error: TypeError: odd")
    assert bench.outcome(good) == ("applied", None)


def tree(bench: Bench) -> list[str]:
    """Return a root, its child and its grandchild, which waits for an event."""
    bench.know(HEARS, starts("hears", "middle"))
    root = waiting(bench, starts("middle", "outer"), session_id="s1")
    ids = [root]
    for run_id in ids:
        ids += bench.stores.runs.children_of(run_id)
    return ids


def test_a_pause_and_its_end_reach_the_whole_tree(bench: Bench) -> None:
    ids = tree(bench)
    bench.send(ids[0], "pause", {"reason": "hold"})
    bench.runner().run_until_idle()
    controls = [bench.state(run_id).vars["_runtime"]["control"] for run_id in ids]
    bench.send(ids[0], "resume")

    bench.runner().run_until_idle()

    assert [(control["paused"], control["pause_reason"]) for control in controls] == [(True, "hold")] * 3
    assert [bench.state(run_id).vars["_runtime"]["control"].get("paused") for run_id in ids] == [None] * 3


def test_a_cancellation_reaches_the_whole_tree_and_what_ended_before_stays(bench: Bench) -> None:
    ids = tree(bench)
    bench.runtime().fail_run(ids[2], "broken")
    failed_tree = [bench.state(run_id).status.value for run_id in ids]
    others = tree_again(bench)
    bench.send(others[0], "cancel", {"reason": "enough"})

    bench.runner().run_until_idle()

    assert failed_tree == ["failed", "failed", "failed"]
    assert [bench.state(run_id).status.value for run_id in others] == ["cancelled"] * 3
    assert {bench.state(run_id).error for run_id in others} == {"enough"}
    ends = [record["idempotency_key"] for run_id in others for record in bench.ledger(run_id)]
    assert ends.count("system:terminal_status:cancelled") == 3


def tree_again(bench: Bench) -> list[str]:
    root = waiting(bench, bench.registry.get_or_raise("outer"))
    ids = [root]
    for run_id in ids:
        ids += bench.stores.runs.children_of(run_id)
    return ids


def test_cancelling_a_child_fails_the_parent_that_waits_for_it(bench: Bench) -> None:
    root, middle, leaf = tree(bench)
    bench.send(middle, "cancel")

    bench.runner().run_until_idle()

    assert [bench.state(run_id).status.value for run_id in (root, middle, leaf)] == ["failed", "cancelled", "cancelled"]
    assert bench.state(root).error == "subworkflow 'middle' cancelled: Cancelled"


@pytest.mark.parametrize(
    ("payload", "is_heard"),
    [
        ({"name": "go", "session_id": "s1"}, True),
        ({"name": "go", "sessionId": "s1"}, True),
        ({"name": "go"}, False),
        ({"name": "stop", "session_id": "s1"}, False),
        ({"name": " go ", "scope": "Session", "session_id": "s1"}, True),
        ({"name": "go", "scope": "global"}, False),
    ],
)
def test_an_event_from_a_client_reaches_its_listeners(bench: Bench, payload: Json, is_heard: bool) -> None:
    run_id = waiting(bench, HEARS, session_id="s1")
    command = bench.send("any", "emit_event", {"payload": {"x": 1}, "event_id": "e-1", **payload})

    bench.runner().run_until_idle()

    assert bench.outcome(command) == ("applied", None)
    assert (bench.state(run_id).status is RunStatus.COMPLETED) is is_heard


def test_an_event_from_a_client_comes_in_its_envelope(bench: Bench) -> None:
    run_id = waiting(bench, HEARS)
    bench.send(run_id, "emit_event", {"name": "go", "payload": [1], "emittedAt": "2026-01-01T00:00:00Z"})

    bench.runner().run_until_idle()

    assert bench.state(run_id).output == {
        "heard": {
            "event_id": None,
            "name": "go",
            "scope": "session",
            "session_id": run_id,
            "payload": {"value": [1]},
            "emitted_at": "2026-01-01T00:00:00Z",
            "emitter": {"source": "external", "client_id": "me"},
        }
    }


def test_an_event_passes_by_a_paused_listener_and_reaches_the_others(bench: Bench) -> None:
    first, paused, last = (waiting_again(bench, HEARS) for _ in range(3))
    bench.send(paused, "pause")
    bench.send("s1", "emit_event", {"name": "go"})

    bench.runner().run_until_idle()

    assert [bench.state(run_id).status.value for run_id in (first, paused, last)] == [
        "completed",
        "waiting",
        "completed",
    ]


def waiting_again(bench: Bench, workflow: Any) -> str:
    return waiting(bench, workflow, session_id="s1")


def test_an_answer_fires_a_timer_early(bench: Bench) -> None:
    run_id = waiting(bench, TIMER)
    bench.send(run_id, "resume", {"payload": {"mode": "run_now"}})

    bench.runner().run_until_idle()

    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_commands_change_runs_of_other_actors_but_nobody_drives_those(bench: Bench) -> None:
    bench.know(ask_then_end())
    run_id = bench.start(ask_then_end(), actor_id="ar_program")
    bench.send(run_id, "pause")
    bench.send(run_id, "resume")

    bench.runner().run_until_idle()

    assert bench.state(run_id).status is RunStatus.RUNNING
    assert bench.ledger(run_id) == []


class HotRun:
    """Memory stores whose runs somebody else changes first, until everything else is quiet."""

    def __init__(self) -> None:
        self._stores = open_memory_stores()
        self.attempts = 0
        self.is_quiet = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def commit(self, commit: Commit) -> CommitReceipt:
        if commit.outcome is not None and not self.is_quiet:
            self.attempts += 1
            raise StaleWrite("somebody was faster")
        return self._stores.commit(commit)

    @contextmanager
    def quieted(self) -> Iterator[None]:
        self.is_quiet = True
        yield
        self.is_quiet = False


def test_a_command_for_a_run_that_never_rests_is_applied_in_a_moment_of_quiet() -> None:
    stores = HotRun()
    bench = Bench(stores)
    run_id = bench.start(ask_then_end())
    bench.send(run_id, "cancel")
    (command,), _ = stores.commands.list_after(after=0)

    outcome = CommandApplier(stores, bench.clock, quietly=stores.quieted).apply(command)

    assert (outcome.status, stores.attempts, stores.is_quiet) == ("applied", 3, False)
    assert bench.state(run_id).status is RunStatus.CANCELLED


def test_a_command_that_never_fits_in_is_tried_again_later_and_not_rejected() -> None:
    stores = HotRun()
    bench = Bench(stores)
    run_id = bench.start(ask_then_end())
    command_id = bench.send(run_id, "cancel")
    (command,), _ = stores.commands.list_after(after=0)

    with pytest.raises(Unavailable, match="changed too often"):
        CommandApplier(stores, bench.clock).apply(command)

    assert bench.outcome(command_id) == ("pending", None)
