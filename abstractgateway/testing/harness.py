"""A whole gateway in memory, driven by hand: no threads, no disk, and time moves when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compose import build_runtime, knowledge_in, workspace_policy
from ..config import GatewayConfig
from ..errors import Invalid, NotFound
from ..hosts import BundleHost, FlowSet, HostedWorkflows, Hosts, StartedFlows
from ..jsonvalue import JsonObject
from ..knowledge import MemoryTripleStore
from ..runner import Runner
from ..runtime.effects.model import LanguageModel
from ..runtime.effects.tools import ToolBox, as_tool_box
from ..runtime.lifecycle import is_paused, resume
from ..runtime.models import RunState, WaitReason, WaitState
from ..service.runs import RunService
from ..stores import open_memory_stores
from ..visualflow.nodes.knowledge import KnowledgeGraph
from .clock import ManualClock

Reply = str | JsonObject


@dataclass(frozen=True)
class RunOutcome:
    """How a run stands: `records` are its own ledger, `runs` the states of itself (first) and everything below it."""

    run_id: str
    status: str
    output: JsonObject | None
    error: str | None
    waiting: WaitState | None
    records: list[JsonObject]
    runs: list[RunState]


class GatewayHarness:
    """Runs bundles and drawn flows in memory.

    `bundles` are paths of `.flow` files, `flows` VisualFlow documents by id; `model` answers model calls and `tools`
    are functions by name; `knowledge` keeps statements. Raises `Invalid` for a bundle or flow that cannot be used.
    """

    def __init__(
        self,
        *,
        bundles: Iterable[str | Path] = (),
        flows: Mapping[str, Any] | None = None,
        model: LanguageModel | None = None,
        tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None,
        config: GatewayConfig | None = None,
        knowledge: KnowledgeGraph | None = None,
    ) -> None:
        settings = config or GatewayConfig(store_backend="memory")
        self.clock = ManualClock()
        self.stores = open_memory_stores()
        self.host = Hosts(*_hosts(flows, bundles))
        hosted = HostedWorkflows(self.host)
        started = StartedFlows(hosted=hosted, stores=self.stores, max_depth=settings.max_subflow_depth)
        self.knowledge = knowledge or knowledge_in(
            MemoryTripleStore(), self.stores, self.clock, settings.global_memory_run_id
        )
        self.runtime = build_runtime(
            settings,
            stores=self.stores,
            hosted=hosted,
            clock=self.clock,
            model=model,
            tools=as_tool_box(tools),
            knowledge=self.knowledge,
        )
        self.runner = Runner(
            stores=self.stores,
            runtime=self.runtime,
            find_workflow=started.served,
            registry_of=started.registry,
            clock=self.clock,
            step_batch=settings.step_batch,
            inline=True,
        )
        self.runs = RunService(
            stores=self.stores,
            runtime=self.runtime,
            host=self.host,
            runner=self.runner,
            find_workflow=started.workflow,
            clamp=workspace_policy(settings).clamp,
        )

    def run(
        self,
        flow: str,
        input_data: JsonObject | None = None,
        *,
        answers: Sequence[Reply] = (),
        session_id: str | None = None,
        max_timers: int = 1000,
    ) -> RunOutcome:
        """Start a flow and drive it and its children until it ends, or waits for something that nobody answers.

        `flow` is a flow id, a bundle id or `bundle:flow`. Each answer goes to the oldest open question: a text as
        `{"response": text}`, an object as it is. Timers fire by moving the clock, at most `max_timers` of them.
        """
        run_id = self.start(flow, input_data, session_id=session_id)
        left = list(answers)
        for _ in range(max_timers + len(left) + 1):
            self.runner.run_until_idle()
            if self.runtime.get_state(run_id).status.is_terminal:
                break
            question = self._open_question(run_id)
            if question is not None and left:
                self.answer(question.run_id, left.pop(0))
            elif not self._move_to_next_timer():
                break
        return self.outcome(run_id)

    def start(self, flow: str, input_data: JsonObject | None = None, *, session_id: str | None = None) -> str:
        """Start a flow and return its run id; nothing is driven yet."""
        try:
            return self.runs.start(flow_id=flow, input_data=input_data, session_id=session_id)
        except NotFound:
            return self.runs.start(bundle_id=flow, input_data=input_data, session_id=session_id)

    def answer(self, run_id: str, reply: Reply) -> None:
        """Answer what a run waits for."""
        payload = {"response": reply} if isinstance(reply, str) else reply
        self.runtime.transact(lambda draft: resume(draft, draft.open(run_id), None, payload))

    def outcome(self, run_id: str) -> RunOutcome:
        """Return how a run stands now."""
        state = self.runtime.get_state(run_id)
        return RunOutcome(
            run_id=run_id,
            status=state.status.value,
            output=state.output,
            error=state.error,
            waiting=state.waiting,
            records=self.stores.ledger.list(run_id),
            runs=self._tree(run_id),
        )

    def _tree(self, run_id: str) -> list[RunState]:
        ids = [run_id]
        for parent in ids:
            ids += self.stores.runs.children_of(parent)
        return [self.runtime.get_state(found) for found in ids]

    def _open_question(self, run_id: str) -> RunState | None:
        for state in self._tree(run_id):
            if state.waiting is not None and _is_question(state.waiting) and not is_paused(state):
                return state
        return None

    def _move_to_next_timer(self) -> bool:
        due = self.runner.next_due()
        if due is None:
            return False
        self.clock.move(max(0.0, due - self.clock.now().timestamp()))
        return True


def _is_question(waiting: WaitState) -> bool:
    """An event with a scope comes from other runs; a question has a key of its own."""
    is_event = waiting.reason is WaitReason.EVENT and not str(waiting.wait_key).startswith("evt:")
    return is_event or waiting.reason is WaitReason.USER


def _hosts(flows: Mapping[str, Any] | None, bundles: Iterable[str | Path]) -> list[FlowSet | BundleHost]:
    hosts: list[FlowSet | BundleHost] = [FlowSet(flows)] if flows else []
    for path in bundles:
        host = BundleHost(path)
        for problem in host.list_bundles()["load_errors"]:
            raise Invalid("bundle", f"{problem['file']!r} cannot be used: {problem['error']}")
        hosts.append(host)
    return hosts
