"""The gateway as an object that a program drives directly."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ..config import GatewayConfig
from ..runner.deltas import Deltas
from ..runner.runner import Runner
from ..runtime.effects.model import LanguageModel
from ..runtime.effects.tools import ToolBox
from ..runtime.models import EffectType
from ..runtime.policy import Reconciler
from ..stores.base import Changes, Stores
from ..visualflow.nodes.knowledge import KnowledgeGraph
from .access import Access
from .artifacts import ArtifactService
from .attachments import AttachmentService
from .bundles import BundleService
from .bundles_of_flows import FlowFileService
from .commands import CommandService
from .embeddings import Embedder, EmbeddingService
from .knowledge import KnowledgeService
from .ledger import LedgerService
from .media import Media
from .metrics import Metrics
from .on_request import OnRequest
from .readiness import Readiness
from .run_inputs import RunInputs
from .runner_status import RunnerStatus
from .runs import RunService
from .schedules import ScheduleService
from .semantics import SemanticsService
from .visualflows import VisualflowService
from .workspace import WorkspaceService


class GatewayService:
    """One gateway: its use cases by noun, its stores and its runner.

    `deltas.subscribe(run_id, listener)` passes on the pieces of answers that are being written, where this process
    drives the runs.

    `GatewayService.open(config)` makes one; it is a context manager, and closes what it opened.
    """

    def __init__(
        self,
        *,
        config: GatewayConfig,
        stores: Stores,
        runner: Runner | None,
        runs: RunService,
        ledger: LedgerService,
        commands: CommandService,
        bundles: BundleService | FlowFileService,
        artifacts: ArtifactService,
        inputs: RunInputs,
        schedules: ScheduleService,
        knowledge: KnowledgeService,
        readiness: Readiness,
        runner_status: RunnerStatus,
        visualflows: VisualflowService,
        attachments: AttachmentService,
        workspace: WorkspaceService,
        semantics: SemanticsService,
        embeddings: EmbeddingService,
        on_request: OnRequest,
        access: Access | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.config = config
        self.runs = runs
        self.ledger = ledger
        self.commands = commands
        self.bundles = bundles
        self.artifacts = artifacts
        self.inputs = inputs
        self.schedules = schedules
        self.knowledge = knowledge
        self.readiness = readiness
        self.runner_status = runner_status
        self.visualflows = visualflows
        self.attachments = attachments
        self.workspace = workspace
        self.semantics = semantics
        self.embeddings = embeddings
        self.talk = on_request.talk
        self.media = on_request.media
        self.discovery = on_request.discovery
        self.prompt_cache = on_request.prompt_cache
        self.host_metrics = on_request.host_metrics
        self.access = access or Access()
        self.stores = stores
        self.runner = runner
        self.metrics = Metrics(stores=stores, runner=runner)
        self.deltas = runner.deltas if runner is not None else Deltas(lambda run_id: None)
        self._is_closed = False
        self._on_close = on_close

    @staticmethod
    def open(
        config: GatewayConfig | None = None,
        *,
        model: LanguageModel | None = None,
        tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None,
        knowledge: KnowledgeGraph | None = None,
        embedder: Embedder | None = None,
        media: Media | None = None,
        reconcilers: Mapping[EffectType, Reconciler] | None = None,
    ) -> GatewayService:
        """Open a gateway on a data directory and start its runner; without a config, the environment's settings.

        `model` answers model calls, `tools` are what agents and flows may call: a `ToolBox`, or functions by name,
        `knowledge` is where flows keep statements, `embedder` makes vectors of texts, and `media` makes speech,
        transcripts and images. `reconcilers` find out, by effect type, what became of an effect that a crash
        interrupted: each is called `(run, effect, idempotency_key)` and returns its outcome, or None. Raises `Invalid`
        for settings that cannot work, `Unavailable` when the data directory cannot be used.
        """
        open_gateway = pkgutil.resolve_name("abstractgateway.compose:open_gateway")  # above this floor of the house
        settings = config or GatewayConfig.from_env()
        opened: GatewayService = open_gateway(
            settings,
            model=model,
            tools=tools,
            knowledge=knowledge,
            embedder=embedder,
            media=media,
            reconcilers=reconcilers,
        )
        return opened

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call the listener with the ids of runs that changed, after each commit that became durable.

        Where this process drives the runs, it is called with the ids of commands that were dealt with as well. It is
        called in threads of the store and the runner, and must be quick. Returns how to stop it.
        """

        def note(changes: Changes) -> None:
            if changes.runs:
                listener(frozenset(row.run_id for row in changes.runs))

        stops = [self.stores.subscribe(note)]
        if self.runner is not None:
            stops.append(self.runner.subscribe_outcomes(lambda command_id: listener(frozenset({command_id}))))

        def stop() -> None:
            for stop_one in stops:
                stop_one()

        return stop

    def close(self, *, grace_s: float | None = None) -> None:
        """Stop the runner and close the stores; runs go on when the gateway is opened again.

        Effects under way have `grace_s` seconds to end, or what the settings say. Whoever follows a ledger is told.
        Closing again does nothing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.ledger.close()
        if self.runner is not None:
            self.runner.stop(self.config.shutdown_grace_s if grace_s is None else max(grace_s, 0.0))
        self.stores.close()
        self.access.audit.close()
        self.visualflows.close()
        if self._on_close is not None:
            self._on_close()

    def __enter__(self) -> GatewayService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
