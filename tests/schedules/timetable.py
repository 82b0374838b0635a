"""A schedule on a bench whose clock is moved by hand, and the account of what became of each of its times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from abstractgateway.clock import parse_iso, to_iso
from abstractgateway.errors import GatewayError
from abstractgateway.runner import Runner
from abstractgateway.runtime import Effect, EffectType, RunState, StepPlan
from abstractgateway.schedules import Timing, check_timing, first_state, schedule_workflow
from tests.runner.bench import Bench
from tests.runtime.workflows import Json, ask_then_end, end, spec

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
TARGET = "b@1:flow"
_WAKE_UPS = 100_000


def _work(run: RunState, context: Any) -> StepPlan:
    until = to_iso(context.now() + timedelta(seconds=run.vars.get("takes_s", 0)))
    return StepPlan("work", effect=Effect(EffectType.WAIT_UNTIL, {"until": until}), next_node="end")


@dataclass(frozen=True)
class Entry:
    """What became of some nominal times: `fired`, `manual`, or why they were skipped."""

    what: str
    first: datetime | None
    last: datetime | None
    count: int
    at: datetime


class Timetable:
    """A schedule, what it starts, and the runner that drives both; `restart` is a new process."""

    def __init__(self, stores: Any = None) -> None:
        self.bench = Bench(stores)
        self.refusal: GatewayError | None = None
        self.bench.know(spec(TARGET, work=_work, end=end()), spec("b@1:asks", **ask_then_end().nodes))
        self.run_id = ""
        self.runner: Runner = self.bench.runner()

    @property
    def clock(self) -> Any:
        return self.bench.clock

    @property
    def now(self) -> datetime:
        now: datetime = self.bench.clock.now()
        return now

    def seed(self, workflow_id: str) -> Json:
        if self.refusal is not None:
            raise self.refusal
        return {}

    def begin(self, *, vars: Json | None = None, target: str = TARGET, shares: bool = True, **timing: Any) -> str:
        """Make a schedule and drive it until it waits."""
        checked = check_timing(Timing(**timing), self.now)
        told = {"kind": "scheduled_run", "target_workflow_id": target, "share_context": shares}
        workflow = schedule_workflow(f"scheduled:{len(self.bench.registry)}", self.seed)
        given = {
            "vars": vars or {},
            "_meta": {"schedule": {**told, **checked.to_dict()}},
            "_runtime": {"schedule": first_state(checked, self.now)},
        }
        self.run_id = self.bench.start(workflow, given)
        self.runner.run_until_idle()
        return self.run_id

    def restart(self) -> None:
        """Go on with a new runner, as a restarted process does."""
        self.runner = self.bench.runner()
        self.runner.run_until_idle()

    def run_until(self, instant: datetime) -> None:
        """Let time pass, timer by timer."""
        for _ in range(_WAKE_UPS):
            due = self.runner.next_due()
            if due is None or due > instant.timestamp():
                break
            self.clock.move(max(0.0, due - self.now.timestamp()))
            self.runner.run_until_idle()
        self.clock.move(max(0.0, (instant - self.now).total_seconds()))
        self.runner.run_until_idle()

    def run_for(self, **span: float) -> None:
        self.run_until(self.now + timedelta(**span))

    def jump(self, **span: float) -> None:
        """Set the clock, while the gateway goes on."""
        self.clock.set(self.now + timedelta(**span))
        self.runner.run_until_idle()

    def be_down(self, **span: float) -> None:
        """Let time pass while there is no process, then start one."""
        self.clock.move(timedelta(**span).total_seconds())
        self.restart()

    def send(self, type: str, run_id: str | None = None, **payload: Any) -> tuple[str, str | None]:
        command = self.bench.send(run_id or self.run_id, type, payload)
        self.runner.run_until_idle()
        return self.bench.outcome(command)

    @property
    def state(self) -> RunState:
        return self.bench.state(self.run_id)

    @property
    def definition(self) -> Json:
        found: Json = self.state.vars["_meta"]["schedule"]
        return found

    @property
    def children(self) -> list[RunState]:
        return [self.bench.state(run_id) for run_id in self.bench.stores.runs.children_of(self.run_id)]

    @property
    def account(self) -> list[Entry]:
        """What the ledger says became of the schedule's times, in order."""
        found: list[Entry] = []
        for record in self.bench.ledger(self.run_id):
            effect = record["effect"] or {}
            if effect.get("type") == "skip_firings" and record["status"] == "completed":
                found += [_skipped(item, record) for item in effect["payload"]["skipped"]]
            elif effect.get("type") == "start_subworkflow" and record["status"] == "started":
                found.append(_fired(effect["payload"]["firing"], record))
        return found

    @property
    def told(self) -> list[str]:
        """The account as texts: what, the nominal hour and, of several, the last one and the count."""
        return [_text(entry) for entry in self.account]


def _fired(firing: Json, record: Json) -> Entry:
    nominal = firing["nominal_time"]
    instant = parse_iso(nominal) if nominal else None
    what = "fired" if instant else "manual"
    return Entry(what, instant, instant, 1 if instant else 0, parse_iso(record["started_at"]))


def _skipped(item: Json, record: Json) -> Entry:
    at = parse_iso(record["started_at"])
    return Entry(item["reason"], parse_iso(item["first"]), parse_iso(item["last"]), item["count"], at)


def _text(entry: Entry) -> str:
    if entry.first is None or entry.last is None:
        return entry.what
    first = f"{entry.what} {entry.first:%d %H:%M}"
    return first if entry.count == 1 else f"{first} to {entry.last:%d %H:%M}: {entry.count}"
