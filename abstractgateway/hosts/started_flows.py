"""Runs go on with the flow they started with, whatever has become of its bundle since."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject
from ..runtime.models import RunState, WorkflowSpec
from ..runtime.registry import WorkflowRegistry
from ..schedules import SeedOf, is_schedule_id, schedule_workflow
from ..stores.base import Stores
from ..visualflow.sandbox import CodeRunner
from .base import WorkflowHost
from .snapshots import FORMAT, Snapshots, compile_snapshot

KEPT_FLOWS = 64
"""How many flows that are not served any more are kept compiled."""

KEPT_ORIGINS = 10_000
"""Of how many runs it is remembered which flow they started with."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Origin:
    """The snapshot that a run goes by, and how many runs are above it."""

    reference: JsonObject | None
    depth: int

    def of_child(self, child: RunState) -> _Origin:
        return _Origin(named_snapshot(child) or self.reference, self.depth + 1)


class StartedFlows:
    """Finds the workflows of a run: those of its snapshot when the host serves others or none, else the host's.

    A run names its snapshot in `vars._runtime.workflow_snapshot`; a child goes by the nearest run above it that names
    one. A run that is nested `max_depth` deep finds no workflow for children of its own. `look` has the host notice
    what other processes have changed. Safe to use from many threads.
    """

    def __init__(
        self,
        *,
        hosted: HostedWorkflows,
        stores: Stores,
        max_depth: int,
        code_runner: CodeRunner | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_depth = max_depth
        self._look = look
        self._hosted = hosted
        self._stores = stores
        self._code_runner = code_runner
        self._present = Snapshots(hosted.host)
        self._flows: _Recent[StartedWorkflows] = _Recent(KEPT_FLOWS)
        self._origins: _Recent[_Origin] = _Recent(KEPT_ORIGINS)

    def registry(self, run: RunState) -> WorkflowRegistry:
        """Return where the run, and whoever starts children for it, looks for workflows.

        Raises `NotFound` when the run's flow is not served any more and its snapshot cannot be used.
        """
        self._look()  # before it is decided whether the run's flow is still served
        origin = self._origins.get(run.run_id, lambda: self._find_origin(run))
        found = self._registry_of(origin.reference)
        return found if origin.depth < self._max_depth else LastGeneration(found, self._max_depth)

    def workflow(self, run: RunState) -> WorkflowSpec:
        """Return the workflow that drives a run. Raises `NotFound` when there is none."""
        return self.registry(run).get_or_raise(run.workflow_id)

    def served(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow that is served under an id now. Raises `NotFound`."""
        return self._hosted.get_or_raise(workflow_id)

    def _registry_of(self, reference: JsonObject | None) -> WorkflowRegistry:
        if reference is None or self._is_present(reference):
            return self._hosted
        try:
            return self._flows.get(str(reference["sha256"]), lambda: self._stored(reference))
        except NotFound:
            self._hosted.get(str(reference.get("workflow_id")))  # has the host look at its directory again
            if not self._is_present(reference):
                raise
            return self._hosted

    def _find_origin(self, run: RunState) -> _Origin:
        """Go up to the first run of which the origin is known, and back down, so that each is looked at once."""
        line: list[RunState] = []
        current: RunState | None = run
        while current is not None and current.run_id not in self._origins and len(line) <= KEPT_ORIGINS:
            line.append(current)
            parent = self._stores.runs.open(current.parent_run_id) if current.parent_run_id else None
            current = parent.state if parent is not None else None
        origin = self._origins.peek(current.run_id) if current is not None else None
        for member in reversed(line):
            origin = _Origin(named_snapshot(member), 0) if origin is None else origin.of_child(member)
            self._origins.put(member.run_id, origin)
        return origin or _Origin(None, 0)

    def _is_present(self, reference: JsonObject) -> bool:
        present = self._present.of(str(reference.get("workflow_id")))
        return present is not None and present.sha256 == reference.get("sha256")

    def _stored(self, reference: JsonObject) -> StartedWorkflows:
        name = f"the flow {reference.get('workflow_id')!r} that the run started with"
        body = self._stores.artifacts.load(str(reference.get("artifact_id")))
        if body is None or hashlib.sha256(body).hexdigest() != reference.get("sha256"):
            raise NotFound(f"{name} is served no more, and its stored copy is not there", code="unknown_workflow")
        try:
            workflows = compile_snapshot(body, code_runner=self._code_runner)
        except Invalid as error:
            raise NotFound(f"{name} cannot be used: {error}", code="unknown_workflow") from error
        return StartedWorkflows(workflows, self._hosted)


def named_snapshot(run: RunState) -> JsonObject | None:
    """Return the reference of the drawn flow that a run itself names, or None."""
    own = run.vars.get("_runtime")
    found = own.get("workflow_snapshot") if isinstance(own, dict) else None
    return found if isinstance(found, dict) and found.get("format") == FORMAT and found.get("sha256") else None


def no_schedules(workflow_id: str) -> JsonObject:
    """Raise `NotFound`: this gateway starts nothing on a schedule."""
    raise NotFound(f"workflow {workflow_id!r} is not started on a schedule here", code="unknown_workflow")


class HostedWorkflows(WorkflowRegistry):
    """The workflows of a host, as the kernel looks for them when it starts a child run; and those of schedules.

    `seed_of` says with which `_runtime` a schedule starts a workflow, or refuses to.
    """

    def __init__(self, host: WorkflowHost, *, seed_of: SeedOf = no_schedules) -> None:
        super().__init__()
        self.host = host
        self._seed_of = seed_of

    def get(self, workflow_id: str) -> WorkflowSpec | None:
        if is_schedule_id(workflow_id):
            return schedule_workflow(workflow_id, self._seed_of)
        try:
            return self.host.workflow(workflow_id)
        except NotFound:
            return super().get(workflow_id)

    def get_or_raise(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id. Raises `NotFound`, naming ids that exist."""
        if is_schedule_id(workflow_id):
            return schedule_workflow(workflow_id, self._seed_of)
        return super().get(workflow_id) or self.host.workflow(workflow_id)


class StartedWorkflows(WorkflowRegistry):
    """The workflows of one snapshot; what it does not hold is looked for among those that are served now."""

    def __init__(self, workflows: Mapping[str, WorkflowSpec], hosted: HostedWorkflows) -> None:
        super().__init__()
        self._specs = dict(workflows)
        self._hosted = hosted

    def get(self, workflow_id: str) -> WorkflowSpec | None:
        return super().get(workflow_id) or self._hosted.get(workflow_id)


class LastGeneration(WorkflowRegistry):
    """The workflows of a run that is nested so deeply that it may start no further one."""

    def __init__(self, workflows: WorkflowRegistry, depth: int) -> None:
        super().__init__()
        self._workflows = workflows
        self._depth = depth

    def get(self, workflow_id: str) -> WorkflowSpec | None:
        """Refuse to find a child's workflow."""
        raise Invalid(
            "",
            f"workflow {workflow_id!r} is not started: the run is nested {self._depth} deep, "
            "which is as much as ABSTRACTGATEWAY_MAX_SUBFLOW_DEPTH allows",
            code="nested_too_deeply",
        )

    def get_or_raise(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow that drives the run itself."""
        return self._workflows.get_or_raise(workflow_id)


class _Recent(Generic[Value]):
    """The values that were asked for last, by name; each is made when it is asked for and not there."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def peek(self, name: str) -> Value | None:
        return self._values.get(name)

    def get(self, name: str, make: Callable[[], Value]) -> Value:
        with self._lock:
            if name in self._values:
                self._values.move_to_end(name)
                return self._values[name]
        made = make()
        self.put(name, made)
        return made

    def put(self, name: str, value: Value) -> None:
        with self._lock:
            self._values[name] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
