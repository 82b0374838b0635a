"""The only place that picks concrete classes: settings in, a gateway out."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from .clock import Clock, SystemClock
from .config import GatewayConfig
from .errors import Unavailable
from .hosts import BundleHost, HostedWorkflows, StartedFlows, VisualflowHost
from .jsonvalue import JsonObject
from .runner import Runner, RunnerElsewhere, RunnerLock
from .runtime.effects import ExternalEffect
from .runtime.effects.model import LanguageModel, ReadArtifact, call_model, no_model
from .runtime.effects.tools import FunctionTools, ToolBox, call_tools
from .runtime.limits import RuntimeConfig
from .runtime.models import EffectType
from .runtime.policy import InDoubt, NoRetryPolicy, Reconciler
from .runtime.runtime import Runtime
from .security.workspace import WorkspacePolicy
from .service.artifacts import ArtifactService
from .service.bundles import BundleService
from .service.bundles_of_flows import FlowFileService
from .service.commands import CommandService
from .service.deprecations import FILE_NAME as DEPRECATIONS_FILE
from .service.deprecations import Deprecations
from .service.gateway import GatewayService
from .service.ledger import LedgerService
from .service.readiness import Readiness
from .service.run_inputs import RunInputs
from .service.runs import RunService
from .service.workspace_files import WorkspaceFiles
from .stores import open_file_stores, open_memory_stores, open_sqlite_stores
from .stores.base import Stores
from .visualflow.nodes.code import run_code
from .visualflow.nodes.files import read_file, write_file
from .visualflow.nodes.knowledge import KnowledgeGraph, knowledge_effects
from .visualflow.sandbox import CodeLimits, CodePool, CodeRunner, shared_pool

CODE_PATIENCE_S = 0.2
"""How long a code node may hold a worker that other runs wait for; with more it becomes an effect of its own."""

LOCK_FILE = "gateway_runner.lock"

_MODEL = "abstractgateway_llm:open_model"


class _ProviderModels(Protocol):
    def generate(self, call: JsonObject, *, timeout_s: float | None = None) -> JsonObject: ...
    def problem(self) -> str | None: ...
    def close(self) -> None: ...


class ModelsOfSettings:
    """The language model on the providers of the settings; its adapter is loaded by the first who needs it."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._opened: _ProviderModels | None = None

    def generate(self, call: JsonObject, *, timeout_s: float | None = None) -> JsonObject:
        """Answer one call. Raises `Unavailable` when the extra that it needs is not installed."""
        return self._open(call.get("provider")).generate(call, timeout_s=timeout_s)

    def problem(self) -> str | None:
        """Return why calls to the provider of the settings cannot be answered, as far as is known beforehand."""
        if not self._config.provider:
            return None
        try:
            return self._open(None).problem()
        except Unavailable as error:
            return error.message

    def close(self) -> None:
        """Let go of the connections that no call uses."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def _open(self, provider: Any) -> _ProviderModels:
        with self._lock:
            if self._opened is None:
                self._opened = self._loaded(provider or self._config.provider)
            return self._opened

    def _loaded(self, provider: Any) -> _ProviderModels:
        try:
            loaded: _ProviderModels = pkgutil.resolve_name(_MODEL)(self._config)
        except ImportError as error:
            who = f"provider {provider!r} needs" if provider else "model calls need"
            raise Unavailable(
                f"{who} the extra llm: pip install 'abstractgateway[llm]' ({error})", code="llm_extra_missing"
            ) from error
        return loaded


def open_gateway(
    config: GatewayConfig,
    *,
    model: LanguageModel | None = None,
    tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None,
    knowledge: KnowledgeGraph | None = None,
    reconcilers: Mapping[EffectType, Reconciler] | None = None,
) -> GatewayService:
    """Open a gateway and start its runner, unless the settings leave that to another process.

    Without a model, the providers of the settings answer.
    """
    clock = SystemClock()
    own_model = ModelsOfSettings(config) if model is None else None
    stores = open_stores(config)
    code = open_code_pool(config)
    host = open_host(config, code)
    hosted = HostedWorkflows(host)
    runtime = build_runtime(
        config,
        stores=stores,
        hosted=hosted,
        clock=clock,
        model=own_model if model is None else model,
        tools=as_tool_box(tools),
        code_runner=code,
        knowledge=knowledge,
        reconcilers=reconcilers,
    )
    started = StartedFlows(hosted=hosted, stores=stores, code_runner=code, max_depth=config.max_subflow_depth)
    runner = _build_runner(config, stores, runtime, started) if config.runner_enabled else None
    deprecations = open_deprecations(config, clock)
    service = GatewayService(
        config=config,
        stores=stores,
        runner=runner,
        runs=RunService(
            stores=stores,
            runtime=runtime,
            host=host,
            runner=runner or RunnerElsewhere(_runner_lock(config)),
            check_start=deprecations.check_start,
            find_workflow=started.workflow,
            clamp=workspace_policy(config).clamp,
        ),
        ledger=LedgerService(stores=stores),
        commands=CommandService(stores=stores, clock=clock),
        bundles=_bundle_service(config, host, deprecations),
        artifacts=ArtifactService(stores=stores),
        inputs=RunInputs(runs=stores.runs, artifacts=stores.artifacts, host=host),
        readiness=Readiness(stores=stores, data_dir=_durable_dir(config)),
        on_close=lambda: _close(code, own_model),
    )
    if runner is not None:
        runner.start()
    return service


def _close(code: CodePool, model: ModelsOfSettings | None) -> None:
    code.close()
    if model is not None:
        model.close()


def open_host(config: GatewayConfig, code_runner: CodeRunner | None = None) -> BundleHost | VisualflowHost:
    """Return the workflows of the flows directory: its bundles, or its single flows, as the settings say."""
    kind = VisualflowHost if config.workflow_source == "visualflow" else BundleHost
    return kind(config.flows_dir, code_runner=code_runner)


def _bundle_service(
    config: GatewayConfig, host: BundleHost | VisualflowHost, deprecations: Deprecations
) -> BundleService | FlowFileService:
    if isinstance(host, VisualflowHost):
        return FlowFileService(host=host)
    return BundleService(host=host, deprecations=deprecations, max_bytes=config.max_bundle_bytes)


def open_stores(config: GatewayConfig) -> Stores:
    """Return the stores that the settings name. Raises `Unavailable` when the data directory cannot be used."""
    is_durable = config.durability == "full"
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
        may_clients_choose=config.client_workspace_scope,
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
    code_runner: CodeRunner | None = None,
    knowledge: KnowledgeGraph | None = None,
    reconcilers: Mapping[EffectType, Reconciler] | None = None,
) -> Runtime:
    """Return the kernel with the handlers of the effects that reach outside.

    `code_runner` executes what code nodes do not finish while their run's step is being taken; `reconcilers` find out
    what became of effects that a crash interrupted.
    """
    files = WorkspaceFiles(
        policy=workspace_policy(config), workspaces_dir=str(_workspaces_dir(config)), runs=stores.runs
    )
    handlers: dict[EffectType, ExternalEffect] = {
        EffectType.LLM_CALL: call_model(model, tools, _reader(stores)) if model is not None else no_model,
        EffectType.TOOL_CALLS: call_tools(tools),
        EffectType.RUN_CODE: run_code(code_runner or shared_pool()),
        EffectType.READ_FILE: read_file(files),
        EffectType.WRITE_FILE: write_file(files),
        **knowledge_effects(knowledge),
    }
    return Runtime(
        stores=stores,
        effect_handlers=handlers,
        workflow_registry=hosted,
        config=RuntimeConfig(provider=config.provider, model=config.model),
        effect_policy=NoRetryPolicy(timeout=config.effect_timeout_s or None),
        in_doubt={EffectType.READ_FILE: "retry", EffectType.WRITE_FILE: "retry"},  # a second time changes nothing
        in_doubt_tools=cast("dict[str, InDoubt]", dict(config.in_doubt_tools)),
        reconcilers=reconcilers,
        clock=clock,
        max_inline_bytes=config.max_inline_bytes,
        max_run_bytes=config.max_run_bytes,
    )


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


def _elsewhere(config: GatewayConfig) -> RunnerElsewhere:
    return RunnerElsewhere(_runner_lock(config))


def _runner_lock(config: GatewayConfig) -> RunnerLock:
    return RunnerLock(Path(config.data_dir) / LOCK_FILE)


def _build_runner(config: GatewayConfig, stores: Stores, runtime: Runtime, started: StartedFlows) -> Runner:
    lock = None if config.store_backend == "memory" else _runner_lock(config)
    return Runner(
        stores=stores,
        runtime=runtime,
        find_workflow=started.served,
        registry_of=started.registry,
        clock=runtime.clock,
        lock=lock,
        advance_workers=config.advance_workers,
        effect_workers=config.effect_workers,
        step_batch=config.step_batch,
    )
