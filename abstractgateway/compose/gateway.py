"""A gateway put together: each part is made when the first other part asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ..bundles.shared import SharedBundles
from ..clock import SystemClock
from ..config import GatewayConfig
from ..hosts import BundleHost, HostedWorkflows, StartedFlows, VisualflowHost
from ..hosts.drawn_schedules import DIRECTORY as DRAWINGS_DIR
from ..hosts.drawn_schedules import DrawnSchedules
from ..knowledge import StoredKnowledge
from ..runner import Runner, RunnerElsewhere
from ..runtime.effects.model import LanguageModel
from ..runtime.effects.tools import ToolBox, as_tool_box
from ..runtime.models import EffectType
from ..runtime.policy import Reconciler
from ..runtime.runtime import Runtime
from ..security.workspace import WorkspacePolicy
from ..service.access import Access
from ..service.artifacts import ArtifactService
from ..service.attachments import AttachmentService
from ..service.bundles import BundleService
from ..service.bundles_of_flows import FlowFileService
from ..service.commands import CommandService
from ..service.deprecations import FILE_NAME as DEPRECATIONS_FILE
from ..service.deprecations import DeprecationFile, Deprecations
from ..service.embeddings import Embedder, EmbedderOfSettings, EmbeddingService
from ..service.gateway import GatewayService
from ..service.knowledge import KnowledgeService
from ..service.ledger import LedgerService
from ..service.media import Media
from ..service.models_of_settings import ModelsOfSettings
from ..service.on_request import OnRequest
from ..service.providers_of_settings import ProvidersOfSettings
from ..service.readiness import Readiness
from ..service.run_inputs import RunInputs
from ..service.runs import RunService
from ..service.schedules import NoDrawings, ScheduledStarts, ScheduleService
from ..service.semantics import SemanticsService
from ..service.shared_deprecations import SharedDeprecations
from ..service.visualflows import VisualflowService
from ..service.workflow_snapshots import WorkflowSnapshots
from ..service.workspace import WorkspaceService
from ..stores.base import Stores
from ..stores.shelf import SharedShelf
from ..visualflow.nodes.knowledge import KnowledgeGraph
from ..visualflow.sandbox import CodePool
from .kernel import build_runtime, open_code_pool, open_knowledge
from .models import open_embedder, open_models, open_providers
from .stores import (
    SharedStores,
    durable_dir,
    open_stores,
    place_of,
    runner_lock,
    runner_status_of,
    shelf_of,
    standby_lock,
    watch_of,
)
from .tools import McpToolBox, joined_tools, offered_tools, open_mcp_tools, workspace_policy


class _CanClose(Protocol):
    def close(self) -> None: ...


Closable = TypeVar("Closable", bound=_CanClose)


@dataclass(frozen=True)
class Given:
    """What the program brings itself; what it does not is as the settings say."""

    model: LanguageModel | None = None
    tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None
    knowledge: KnowledgeGraph | None = None
    embedder: Embedder | None = None
    media: Media | None = None
    reconcilers: Mapping[EffectType, Reconciler] | None = None


def open_gateway(config: GatewayConfig, **given: Any) -> GatewayService:
    """Open a gateway and start its runner, unless the settings leave that to another process.

    `given` are the fields of `Given`. Raises what its parts raise; none of them is left open then.
    """
    parts = Parts(config, Given(**given))
    try:
        service = parts.service()
    except BaseException:
        parts.give_up()
        raise
    if parts.runner is not None:
        parts.runner.start()
        if parts.mcp_tools is not None:
            parts.mcp_tools.connect()
    return service


class Parts:
    """The parts of one gateway; `closing` ends those that have to be ended, the stores and the runner apart."""

    def __init__(self, config: GatewayConfig, given: Given) -> None:
        self.config = config
        self.given = given
        self.clock = SystemClock()
        self.closing = ExitStack()

    def service(self) -> GatewayService:
        """Return the gateway."""
        config, _ = self.config, self.tools  # wrong entries of servers are told before anything is on the disk
        stores = self.stores
        return GatewayService(
            config=config,
            stores=stores,
            runner=self.runner,
            runs=self.runs,
            ledger=LedgerService(stores=stores),
            commands=CommandService(stores=stores, clock=self.clock),
            bundles=self.bundles,
            artifacts=ArtifactService(stores=stores),
            inputs=RunInputs(
                runs=stores.runs, artifacts=stores.artifacts, host=self.host, workspace_base=self.workspace.base
            ),
            schedules=self.schedules,
            knowledge=KnowledgeService(self.own_knowledge),
            readiness=Readiness(stores=stores, data_dir=durable_dir(config)),
            runner_status=runner_status_of(config, stores, self.runner),
            visualflows=VisualflowService.of(config, durable_dir(config), self.bundles, self.clock, self.shelf),
            embeddings=EmbeddingService(self.embedder),
            workspace=self.files,
            attachments=AttachmentService.of(config, stores, self.clock, self.files),
            semantics=SemanticsService(Path(config.semantics_file) if config.semantics_file else None),
            on_request=self.on_request,
            access=Access.of(config, self.clock, self.shelf),
            on_close=self.closing.close,
        )

    def give_up(self) -> None:
        """Close what was opened for a gateway that is not to be."""
        self.closing.close()
        if "stores" in vars(self):
            self.stores.close()

    @cached_property
    def stores(self) -> Stores:
        return open_stores(self.config)

    @cached_property
    def shelf(self) -> SharedShelf | None:
        return shelf_of(self.config, self.stores)

    @cached_property
    def model(self) -> LanguageModel:
        return self.given.model or self._closed(open_models(self.config))

    @cached_property
    def providers(self) -> ProvidersOfSettings:
        return self._closed(open_providers(self.config))

    @cached_property
    def mcp_tools(self) -> McpToolBox | None:
        opened = open_mcp_tools(self.config)
        return self._closed(opened) if opened is not None else None

    @cached_property
    def tools(self) -> ToolBox:
        return joined_tools(as_tool_box(self.given.tools), self.mcp_tools)

    @cached_property
    def own_knowledge(self) -> StoredKnowledge | None:
        """The gateway's own knowledge graph; None where the program brings one."""
        if self.given.knowledge is not None:
            return None
        opened = open_knowledge(self.config, self.stores, self.clock)
        self.closing.callback(opened.store.close)
        return opened

    @cached_property
    def embedder(self) -> Embedder | EmbedderOfSettings:
        return self.given.embedder or self._closed(open_embedder(self.config))

    @cached_property
    def code(self) -> CodePool:
        return self._closed(open_code_pool(self.config))

    @cached_property
    def host(self) -> BundleHost | VisualflowHost:
        """The workflows of the flows directory: its bundles, or its single flows, as the settings say."""
        directory = self.config.flows_dir
        if self.config.workflow_source == "visualflow":
            return VisualflowHost(directory, code_runner=self.code)
        source = SharedBundles(self.shelf, directory) if self.shelf is not None else directory
        return BundleHost(source, code_runner=self.code)

    @cached_property
    def deprecations(self) -> Deprecations:
        directory = durable_dir(self.config)
        file = DeprecationFile(directory / DEPRECATIONS_FILE if directory else None, clock=self.clock)
        kept = SharedDeprecations(self.shelf, before=file) if self.shelf is not None else file
        return Deprecations(kept, clock=self.clock)

    @cached_property
    def starts(self) -> ScheduledStarts:
        """What an execution that a schedule starts is given."""
        snapshots = WorkflowSnapshots(artifacts=self.stores.artifacts, host=self.host)
        return ScheduledStarts(host=self.host, snapshots=snapshots, check_start=self.deprecations.check_start)

    @cached_property
    def hosted(self) -> HostedWorkflows:
        return HostedWorkflows(self.host, seed_of=self.starts.seed)

    @cached_property
    def runtime(self) -> Runtime:
        return build_runtime(
            self.config,
            stores=self.stores,
            hosted=self.hosted,
            clock=self.clock,
            model=self.model,
            tools=self.tools,
            code_runner=self.code,
            knowledge=self.given.knowledge or cast(StoredKnowledge, self.own_knowledge),
            reconcilers=self.given.reconcilers,
        )

    @cached_property
    def started(self) -> StartedFlows:
        """The flows that runs were started with."""
        return StartedFlows(
            hosted=self.hosted,
            stores=self.stores,
            code_runner=self.code,
            max_depth=self.config.max_subflow_depth,
            look=self.host.look,
        )

    @cached_property
    def schedules(self) -> ScheduleService:
        directory, host = durable_dir(self.config), self.host
        return ScheduleService(
            stores=self.stores,
            runtime=self.runtime,
            host=host,
            starts=self.starts,
            get_bundle=host.get_bundle if isinstance(host, BundleHost) else None,
            check_start=self.deprecations.check_start,
            clamp=self.workspace.clamp,
            drawings=DrawnSchedules(directory / DRAWINGS_DIR) if directory else NoDrawings(),
        )

    @cached_property
    def bundles(self) -> BundleService | FlowFileService:
        if isinstance(self.host, VisualflowHost):
            return FlowFileService(host=self.host)
        return BundleService(
            host=self.host,
            deprecations=self.deprecations,
            max_bytes=self.config.max_bundle_bytes,
            made_flow=self.schedules.flow,
        )

    @cached_property
    def workspace(self) -> WorkspacePolicy:
        return workspace_policy(self.config)

    @cached_property
    def files(self) -> WorkspaceService:
        return WorkspaceService.of(self.config, self.workspace, self.clock)

    @cached_property
    def runs(self) -> RunService:
        return RunService(
            stores=self.stores,
            runtime=self.runtime,
            host=self.host,
            runner=self.runner or RunnerElsewhere(watch_of(self.config, self.stores), place_of(self.config)),
            check_start=self.deprecations.check_start,
            find_workflow=self.started.workflow,
            clamp=self.workspace.clamp,
        )

    @cached_property
    def on_request(self) -> OnRequest:
        """What is answered without a run."""
        knowledge = self.own_knowledge
        return OnRequest.of(
            self.config,
            stores=self.stores,
            tools=offered_tools(self.config, self.stores, self.tools),
            model=self.model,
            is_own_model=not isinstance(self.model, ModelsOfSettings),
            knowledge=lambda: knowledge.store.describe() if knowledge is not None else None,
            clock=self.clock,
            host=self.host,
            list_bundles=self.bundles.list,
            media=self.given.media,
            providers=self.providers,
        )

    @cached_property
    def runner(self) -> Runner | None:
        """What drives the runs; None where the settings leave that to another process."""
        config = self.config
        if not config.runner_enabled:
            return None
        has_locks = config.store_backend not in ("memory", "postgres")
        is_shared = config.store_backend == "postgres"
        return Runner(
            stores=self.stores,
            runtime=self.runtime,
            find_workflow=self.started.served,
            registry_of=self.started.registry,
            clock=self.clock,
            lock=runner_lock(config) if has_locks else None,
            standby=standby_lock(config) if has_locks else None,
            tenure=cast(SharedStores, self.stores).share(config.lease_s) if is_shared else None,
            advance_workers=config.advance_workers,
            effect_workers=config.effect_workers,
            step_batch=config.step_batch,
            auto_compact_pct=config.auto_compact_pct,
            on_rescheduled=self.schedules.redraw,
        )

    def _closed(self, part: Closable) -> Closable:
        """Return a part, which is closed with the gateway."""
        self.closing.callback(part.close)
        return part
