"""The only place that picks concrete classes: settings in, a gateway out."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from .clock import Clock, SystemClock
from .config import GatewayConfig
from .errors import Unavailable
from .hosts import BundleHost, HostedWorkflows, StartedFlows, VisualflowHost, WorkflowHost
from .hosts.drawn_schedules import DIRECTORY as DRAWINGS_DIR
from .hosts.drawn_schedules import DrawnSchedules
from .knowledge import MemoryTripleStore, Owners, SqliteTripleStore, StoredKnowledge, TripleStore
from .runner import Runner, RunnerElsewhere, RunnerLock, Tenure, Watch
from .runtime import budgets
from .runtime.effects import ExternalEffect
from .runtime.effects.model import LanguageModel, call_model, no_model
from .runtime.effects.model_input import ReadArtifact
from .runtime.effects.tools import (
    NEEDS_APPROVAL,
    CombinedTools,
    FunctionTools,
    ToolBox,
    ToolMode,
    ToolSource,
    call_tools,
)
from .runtime.limits import RuntimeConfig
from .runtime.models import EffectType, RunState
from .runtime.policy import InDoubt, NoRetryPolicy, Reconciler
from .runtime.runtime import Runtime
from .security.addresses import FetchRules
from .security.workspace import WorkspacePolicy
from .service.access import Access
from .service.artifacts import ArtifactService
from .service.attachments import AttachmentService
from .service.bundles import BundleService
from .service.bundles_of_flows import FlowFileService
from .service.commands import CommandService
from .service.deprecations import FILE_NAME as DEPRECATIONS_FILE
from .service.deprecations import Deprecations
from .service.embeddings import FILE_NAME as EMBEDDINGS_FILE
from .service.embeddings import Embedder, EmbedderOfSettings, EmbeddingChoice, EmbeddingService, OwnEmbedder
from .service.gateway import GatewayService
from .service.knowledge import KnowledgeService
from .service.ledger import LedgerService
from .service.media import Media
from .service.models_of_settings import ModelsOfSettings, ProviderModels
from .service.on_request import OnRequest
from .service.providers_of_settings import ProvidersOfSettings
from .service.readiness import Readiness
from .service.run_inputs import RunInputs
from .service.runner_status import RunnerStatus
from .service.runs import RunService
from .service.schedules import Drawings, NoDrawings, ScheduledStarts, ScheduleService
from .service.semantics import SemanticsService
from .service.visualflows import VisualflowService
from .service.workflow_snapshots import WorkflowSnapshots
from .service.workspace import WorkspaceService
from .stores import open_file_stores, open_memory_stores, open_sqlite_stores
from .stores.base import Stores
from .tools.attachments import AttachmentTools
from .tools.commands import CommandTools
from .tools.fetching import Fetcher, FetchTools
from .tools.files import FileTools
from .tools.table import BuiltinTools
from .tools.workspace_files import WorkspaceFiles
from .visualflow.nodes.code import run_code
from .visualflow.nodes.files import read_file, write_file
from .visualflow.nodes.knowledge import KnowledgeGraph, knowledge_effects, knowledge_in_doubt
from .visualflow.sandbox import CodeLimits, CodePool, CodeRunner, shared_pool

CODE_PATIENCE_S = 0.2
"""How long a code node may hold a worker that other runs wait for; with more it becomes an effect of its own."""

RETRY: InDoubt = "retry"

LOCK_FILE = "gateway_runner.lock"
STANDBY_FILE = "gateway_runner.standby.lock"

_MODEL = "abstractgateway_llm:open_model"
_EMBEDDER = "abstractgateway_llm.embeddings:open_embedder"
_CATALOGUE = "abstractgateway_llm.catalogue:open_catalogue"
_MEDIA = "abstractgateway_llm.media_services:open_media"
_POSTGRES = "abstractgateway_postgres:open_postgres_stores"
_MCP_TOOLS = "abstractgateway_mcp:open_tools"


class SharedStores(Stores, Protocol):
    """Stores whose runs several runners share."""

    @property
    def watch(self) -> Watch: ...

    def share(self, lease_s: float) -> Tenure:
        """Return what the runner of this process needs to have its share."""


class McpToolBox(ToolBox, Protocol):
    """The tools of the servers of the settings, of which there are none until they are connected."""

    def connect(self) -> None:
        """Begin to connect, without waiting."""

    def close(self) -> None:
        """End all servers, within seconds."""


def open_mcp_tools(config: GatewayConfig) -> McpToolBox | None:
    """Return the tools of the servers that the settings name, None where they name none.

    Raises `Invalid` for a wrong entry, `Unavailable` when the extra that they need is not installed.
    """
    if config.mcp_servers is None:
        return None
    try:
        opened: McpToolBox = pkgutil.resolve_name(_MCP_TOOLS)(config)
    except ImportError as error:
        raise Unavailable(
            f"ABSTRACTGATEWAY_MCP_SERVERS needs the extra mcp: pip install 'abstractgateway[mcp]' ({error})",
            code="mcp_extra_missing",
        ) from error
    return opened


def open_gateway(
    config: GatewayConfig,
    *,
    model: LanguageModel | None = None,
    tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None,
    knowledge: KnowledgeGraph | None = None,
    embedder: Embedder | None = None,
    media: Media | None = None,
    reconcilers: Mapping[EffectType, Reconciler] | None = None,
) -> GatewayService:
    """Open a gateway and start its runner, unless the settings leave that to another process.

    Without a model, the providers of the settings answer; without a knowledge graph, statements are kept where the
    settings say.
    """
    clock = SystemClock()
    own_model = open_models(config) if model is None else None
    providers = open_providers(config)
    mcp_tools = open_mcp_tools(config)
    own_tools = _joined(as_tool_box(tools), mcp_tools)
    stores = open_stores(config)
    own_knowledge = open_knowledge(config, stores, clock) if knowledge is None else None
    own_embedder = open_embedder(config) if embedder is None else None
    code = open_code_pool(config)
    host = open_host(config, code)
    deprecations = open_deprecations(config, clock)
    starts = scheduled_starts(stores, host, deprecations)
    hosted = HostedWorkflows(host, seed_of=starts.seed)
    runtime = build_runtime(
        config,
        stores=stores,
        hosted=hosted,
        clock=clock,
        model=own_model if model is None else model,
        tools=own_tools,
        code_runner=code,
        knowledge=knowledge or cast(StoredKnowledge, own_knowledge),
        reconcilers=reconcilers,
    )
    started = StartedFlows(
        hosted=hosted, stores=stores, code_runner=code, max_depth=config.max_subflow_depth, look=host.look
    )
    schedules = _schedule_service(config, stores, runtime, host, starts, deprecations)
    runner = _build_runner(config, stores, runtime, started, schedules) if config.runner_enabled else None
    bundles = _bundle_service(config, host, deprecations, schedules)
    service = GatewayService(
        config=config,
        stores=stores,
        runner=runner,
        runs=_run_service(config, stores, runtime, host, runner, started, deprecations),
        ledger=LedgerService(stores=stores),
        commands=CommandService(stores=stores, clock=clock),
        bundles=bundles,
        artifacts=ArtifactService(stores=stores),
        inputs=_run_inputs(config, stores, host),
        schedules=schedules,
        knowledge=KnowledgeService(own_knowledge),
        readiness=Readiness(stores=stores, data_dir=_durable_dir(config)),
        runner_status=_runner_status(config, stores, runner),
        visualflows=VisualflowService.of(config, _durable_dir(config), bundles, clock),
        embeddings=EmbeddingService(embedder or cast(EmbedderOfSettings, own_embedder)),
        **_file_services(config, stores, clock),
        on_request=OnRequest.of(
            config,
            **_answering(config, stores, own_tools, model or own_model, own_knowledge),
            clock=clock,
            host=host,
            list_bundles=bundles.list,
            media=media,
            providers=providers,
        ),
        access=Access.of(config, clock),
        on_close=lambda: _close(code, own_model, mcp_tools, own_knowledge, own_embedder, providers),
    )
    if runner is not None:
        _start(runner, mcp_tools)
    return service


def _answering(
    config: GatewayConfig,
    stores: Stores,
    tools: ToolBox,
    model: LanguageModel | None,
    knowledge: StoredKnowledge | None,
) -> dict[str, Any]:
    """Return with what requests are answered that no run is needed for, by the names of `OnRequest.of`."""
    return {
        "stores": stores,
        "tools": offered_tools(config, stores, tools),
        "model": model,
        "is_own_model": not isinstance(model, ModelsOfSettings),
        "knowledge": lambda: knowledge.store.describe() if knowledge is not None else None,
    }


def _start(runner: Runner, mcp_tools: McpToolBox | None) -> None:
    runner.start()
    if mcp_tools is not None:
        mcp_tools.connect()


def _close(
    code: CodePool,
    model: ModelsOfSettings | None,
    mcp_tools: McpToolBox | None,
    knowledge: StoredKnowledge | None,
    embedder: EmbedderOfSettings | None,
    providers: ProvidersOfSettings,
) -> None:
    code.close()
    providers.close()
    if model is not None:
        model.close()
    if mcp_tools is not None:
        mcp_tools.close()
    if knowledge is not None:
        knowledge.store.close()
    if embedder is not None:
        embedder.close()


def open_models(config: GatewayConfig) -> ModelsOfSettings:
    """Return the language model on the providers of the settings."""

    def load(provider: object) -> ProviderModels:
        who = f"provider {provider!r} needs" if provider else "model calls need"
        loaded: ProviderModels = _of_llm(_MODEL, who)(config)
        return loaded

    return ModelsOfSettings(config, load)


def open_providers(config: GatewayConfig) -> ProvidersOfSettings:
    """Return what lists models and makes media as the settings say."""

    def load(part: str) -> Any:
        return _of_llm(part, "lists of models, speech and images need")(config)

    return ProvidersOfSettings(catalogue=partial(load, _CATALOGUE), media=partial(load, _MEDIA))


def _of_llm(name: str, who: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except ImportError as error:
        raise Unavailable(
            f"{who} the extra llm: pip install 'abstractgateway[llm]' ({error})", code="llm_extra_missing"
        ) from error


def open_embedder(config: GatewayConfig) -> EmbedderOfSettings:
    """Return what makes vectors as the settings say; its adapter is loaded by the first who needs it."""
    directory = _durable_dir(config)
    path = directory / EMBEDDINGS_FILE if directory else None
    choice = EmbeddingChoice(path, provider=config.embedding_provider, model=config.embedding_model)

    def opened(provider: str, model: str) -> OwnEmbedder:
        embedder: OwnEmbedder = _of_llm(_EMBEDDER, "embeddings need")(config, provider, model)
        return embedder

    return EmbedderOfSettings(choice, opened)


def _file_services(config: GatewayConfig, stores: Stores, clock: Clock) -> dict[str, Any]:
    """Return the services around files of the operator and of sessions, by their names in `GatewayService`."""
    workspace = WorkspaceService.of(config, workspace_policy(config), clock)
    attachments = AttachmentService.of(config, stores, clock, workspace)
    semantics = SemanticsService(Path(config.semantics_file) if config.semantics_file else None)
    return {"workspace": workspace, "attachments": attachments, "semantics": semantics}


def _run_service(
    config: GatewayConfig,
    stores: Stores,
    runtime: Runtime,
    host: WorkflowHost,
    runner: Runner | None,
    started: StartedFlows,
    deprecations: Deprecations,
) -> RunService:
    return RunService(
        stores=stores,
        runtime=runtime,
        host=host,
        runner=runner or RunnerElsewhere(_watch(config, stores)),
        check_start=deprecations.check_start,
        find_workflow=started.workflow,
        clamp=workspace_policy(config).clamp,
    )


def _run_inputs(config: GatewayConfig, stores: Stores, host: WorkflowHost) -> RunInputs:
    base = workspace_policy(config).base
    return RunInputs(runs=stores.runs, artifacts=stores.artifacts, host=host, workspace_base=base)


def _schedule_service(
    config: GatewayConfig,
    stores: Stores,
    runtime: Runtime,
    host: BundleHost | VisualflowHost,
    starts: ScheduledStarts,
    deprecations: Deprecations,
) -> ScheduleService:
    return ScheduleService(
        stores=stores,
        runtime=runtime,
        host=host,
        starts=starts,
        get_bundle=host.get_bundle if isinstance(host, BundleHost) else None,
        check_start=deprecations.check_start,
        clamp=workspace_policy(config).clamp,
        drawings=open_drawings(config),
    )


def open_host(config: GatewayConfig, code_runner: CodeRunner | None = None) -> BundleHost | VisualflowHost:
    """Return the workflows of the flows directory: its bundles, or its single flows, as the settings say."""
    kind = VisualflowHost if config.workflow_source == "visualflow" else BundleHost
    return kind(config.flows_dir, code_runner=code_runner)


def _bundle_service(
    config: GatewayConfig, host: BundleHost | VisualflowHost, deprecations: Deprecations, schedules: ScheduleService
) -> BundleService | FlowFileService:
    if isinstance(host, VisualflowHost):
        return FlowFileService(host=host)
    return BundleService(
        host=host, deprecations=deprecations, max_bytes=config.max_bundle_bytes, made_flow=schedules.flow
    )


def scheduled_starts(stores: Stores, host: WorkflowHost, deprecations: Deprecations) -> ScheduledStarts:
    """Return what an execution that a schedule starts is given."""
    snapshots = WorkflowSnapshots(artifacts=stores.artifacts, host=host)
    return ScheduledStarts(host=host, snapshots=snapshots, check_start=deprecations.check_start)


def open_drawings(config: GatewayConfig) -> Drawings:
    """Return where the drawings of schedules are kept."""
    directory = _durable_dir(config)
    return DrawnSchedules(directory / DRAWINGS_DIR) if directory else NoDrawings()


def open_stores(config: GatewayConfig) -> Stores:
    """Return the stores that the settings name. Raises `Unavailable` when the data directory cannot be used."""
    is_durable = config.durability == "full"
    if config.store_backend == "postgres":
        return _open_postgres_stores(config, is_durable)
    try:
        if config.store_backend == "sqlite":
            return open_sqlite_stores(config.data_dir, database=config.database_path, is_durable=is_durable)
        if config.store_backend == "file":
            return open_file_stores(config.data_dir, is_durable=is_durable)
        return open_memory_stores()
    except OSError as error:
        raise Unavailable(
            f"the data directory {str(config.data_dir)!r} cannot be used: {error}; "
            "set ABSTRACTGATEWAY_DATA_DIR to one that can be written",
            code="data_dir_unusable",
        ) from error


def _open_postgres_stores(config: GatewayConfig, is_durable: bool) -> Stores:
    try:
        open_stores = pkgutil.resolve_name(_POSTGRES)
    except ImportError as error:
        raise Unavailable(
            f"the store backend 'postgres' needs the extra postgres: pip install 'abstractgateway[postgres]' ({error})",
            code="postgres_extra_missing",
        ) from error
    stores: Stores = open_stores(
        config.database_url,
        artifacts_dir=config.database_artifacts_dir,
        is_durable=is_durable,
        connections=config.database_connections,
    )
    return stores


def open_knowledge(config: GatewayConfig, stores: Stores, clock: Clock) -> StoredKnowledge:
    """Return the knowledge graph of the settings; its file is opened when it is first needed."""
    path = config.knowledge_path
    is_durable = config.durability == "full"
    store: TripleStore = SqliteTripleStore(path, is_durable=is_durable) if path is not None else MemoryTripleStore()
    return knowledge_in(store, stores, clock, config.global_memory_run_id)


def knowledge_in(store: TripleStore, stores: Stores, clock: Clock, global_id: str) -> StoredKnowledge:
    """Return the knowledge graph that keeps its statements in a store, for the runs of these stores.

    `global_id` is whose the statements of everybody are.
    """

    def peek(run_id: str) -> RunState | None:
        found = stores.runs.open(run_id)
        return found.state if found is not None else None

    return StoredKnowledge(store, Owners(peek, global_id), clock)


def open_deprecations(config: GatewayConfig, clock: Clock) -> Deprecations:
    """Return the deprecated workflows of a data directory; with stores in memory they are in memory too."""
    directory = _durable_dir(config)
    return Deprecations(directory / DEPRECATIONS_FILE if directory else None, clock=clock)


def _durable_dir(config: GatewayConfig) -> Path | None:
    return None if config.store_backend == "memory" else Path(config.data_dir)


def workspace_policy(config: GatewayConfig) -> WorkspacePolicy:
    """Return which directories runs may be given, as the settings say."""
    base = Path(config.workspace_dir).absolute() if config.workspace_dir else None
    named = [*([base] if base else []), *(Path(directory) for _, directory in config.workspace_mounts)]
    workspaces = _workspaces_dir(config)
    return WorkspacePolicy(
        roots=tuple(str(directory) for directory in (*named, workspaces)),
        base=str(base or workspaces),
        may_clients_choose=config.client_workspace_scope or config.tool_mode == "local",
    )


def _workspaces_dir(config: GatewayConfig) -> Path:
    return Path(config.data_dir).absolute() / "workspaces"


def open_code_pool(config: GatewayConfig) -> CodePool:
    """Return what executes code nodes; its processes are started when the first of them is reached."""
    return CodePool(
        CodeLimits(timeout_s=config.code_timeout_s, memory_mb=config.code_memory_mb),
        workers=config.code_workers,
        may_be_open=config.code_unsandboxed,
        patience_s=CODE_PATIENCE_S,
    )


def build_runtime(
    config: GatewayConfig,
    *,
    stores: Stores,
    hosted: HostedWorkflows,
    clock: Clock,
    model: LanguageModel | None,
    tools: ToolBox,
    knowledge: KnowledgeGraph,
    code_runner: CodeRunner | None = None,
    reconcilers: Mapping[EffectType, Reconciler] | None = None,
) -> Runtime:
    """Return the kernel with the handlers of the effects that reach outside.

    `code_runner` executes what code nodes do not finish while their run's step is being taken; `reconcilers` find out
    what became of effects that a crash interrupted.
    """
    files = _workspace_files(config, stores)
    builtin = builtin_tools(config, files, stores, tools)
    tools = _offered(builtin, tools)
    handlers: dict[EffectType, ExternalEffect] = {
        EffectType.LLM_CALL: call_model(model, tools, _reader(stores)) if model is not None else no_model,
        EffectType.TOOL_CALLS: call_tools(tools, cast(ToolMode, config.tool_mode)),
        EffectType.RUN_CODE: run_code(code_runner or shared_pool()),
        EffectType.READ_FILE: read_file(files),
        EffectType.WRITE_FILE: write_file(files),
        **knowledge_effects(knowledge),
    }
    return Runtime(
        stores=stores,
        effect_handlers=handlers,
        workflow_registry=hosted,
        config=RuntimeConfig(
            provider=config.provider, model=config.model, budget=_budget(config), prompt_cache=config.prompt_cache
        ),
        effect_policy=NoRetryPolicy(timeout=config.effect_timeout_s or None),
        in_doubt={  # what a second time changes nothing of
            EffectType.READ_FILE: "retry",
            EffectType.WRITE_FILE: "retry",
            **knowledge_in_doubt(knowledge),
        },
        in_doubt_tools={**dict.fromkeys(builtin.repeatable(), RETRY), **in_doubt_rules(config)},
        reconcilers=reconcilers,
        clock=clock,
        max_inline_bytes=config.max_inline_bytes,
        max_run_bytes=config.max_run_bytes,
        global_memory_run_id=config.global_memory_run_id,
    )


def offered_tools(config: GatewayConfig, stores: Stores, own: ToolBox) -> CombinedTools:
    """Return all that agents and flows may call: the gateway's own tools and those of the program."""
    return _offered(builtin_tools(config, _workspace_files(config, stores), stores, own), own)


def _offered(builtin: BuiltinTools, own: ToolBox) -> CombinedTools:
    return CombinedTools([ToolSource("the gateway", builtin), ToolSource("the program", own)])


def _workspace_files(config: GatewayConfig, stores: Stores) -> WorkspaceFiles:
    return WorkspaceFiles(
        policy=workspace_policy(config), workspaces_dir=str(_workspaces_dir(config)), runs=stores.runs
    )


def _budget(config: GatewayConfig) -> dict[str, float]:
    """Return what every run may use at most; what the settings leave at 0 has no limit."""
    limits: dict[str, float] = {name: getattr(config, f"max_run_{name}") for name in budgets.NAMES}
    return budgets.checked("max_run", {name: limit for name, limit in limits.items() if limit}, {})


def _reader(stores: Stores) -> ReadArtifact:
    def read(artifact_id: str) -> tuple[str, bytes] | None:
        metadata = stores.artifacts.get_metadata(artifact_id)
        content = stores.artifacts.load(artifact_id) if metadata is not None else None
        return (metadata.content_type, content) if metadata is not None and content is not None else None

    return read


def as_tool_box(tools: ToolBox | Mapping[str, Callable[..., Any]] | None) -> ToolBox:
    """Return tools as a tool box: functions by name become one, none an empty one."""
    if tools is None or isinstance(tools, Mapping):
        return FunctionTools(tools or {})
    return tools


def builtin_tools(config: GatewayConfig, files: WorkspaceFiles, stores: Stores, own: ToolBox) -> BuiltinTools:
    """Return the gateway's own tools that the settings switch on; a tool of the program takes one's place.

    Raises `Invalid` for a name in the settings that none of them has.
    """
    rows = (
        *FileTools(files).rows(),
        *CommandTools(files, config.command_path).rows(),
        *FetchTools(Fetcher(FetchRules.of(config.fetch_allow))).rows(),
        *AttachmentTools(stores.artifacts).rows(),
    )
    taken = [str(spec["name"]) for spec in own.specs() if spec.get(NEEDS_APPROVAL) is not True]
    return BuiltinTools.of(rows, config.tools, without=taken)


def in_doubt_rules(config: GatewayConfig) -> dict[str, InDoubt]:
    """Return what the settings say becomes of tool calls in doubt, by the name of the tool."""
    return cast("dict[str, InDoubt]", dict(config.in_doubt_tools))


def _joined(tools: ToolBox, mcp_tools: McpToolBox | None) -> ToolBox:
    """What a server says about its tools is its own word, so all of them are guarded."""
    if mcp_tools is None:
        return tools
    return CombinedTools([ToolSource("the program", tools), ToolSource("an MCP server", mcp_tools, is_guarded=True)])


def _runner_lock(config: GatewayConfig) -> RunnerLock:
    return RunnerLock(Path(config.data_dir) / LOCK_FILE)


def _standby_lock(config: GatewayConfig) -> RunnerLock:
    return RunnerLock(Path(config.data_dir) / STANDBY_FILE)


def _watch(config: GatewayConfig, stores: Stores) -> Watch:
    return cast(SharedStores, stores).watch if config.store_backend == "postgres" else _runner_lock(config)


def _runner_status(config: GatewayConfig, stores: Stores, runner: Runner | None) -> RunnerStatus:
    if config.store_backend == "memory":
        return RunnerStatus(runner=runner)
    if config.store_backend == "postgres":
        return RunnerStatus(runner=runner, lock=_watch(config, stores))
    return RunnerStatus(runner=runner, lock=_runner_lock(config), standby=_standby_lock(config))


def _build_runner(
    config: GatewayConfig, stores: Stores, runtime: Runtime, started: StartedFlows, schedules: ScheduleService
) -> Runner:
    has_locks = config.store_backend not in ("memory", "postgres")
    is_shared = config.store_backend == "postgres"
    return Runner(
        stores=stores,
        runtime=runtime,
        find_workflow=started.served,
        registry_of=started.registry,
        clock=runtime.clock,
        lock=_runner_lock(config) if has_locks else None,
        standby=_standby_lock(config) if has_locks else None,
        tenure=cast(SharedStores, stores).share(config.lease_s) if is_shared else None,
        advance_workers=config.advance_workers,
        effect_workers=config.effect_workers,
        step_batch=config.step_batch,
        auto_compact_pct=config.auto_compact_pct,
        on_rescheduled=schedules.redraw,
    )
