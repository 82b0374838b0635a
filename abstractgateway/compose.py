"""The only place that picks concrete classes: settings in, a gateway out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .clock import Clock, SystemClock
from .config import GatewayConfig
from .errors import Unavailable
from .hosts import BundleHost, WorkflowHost
from .runner import Runner, RunnerElsewhere, RunnerLock
from .runtime.effects import ExternalEffect
from .runtime.effects.model import LanguageModel, call_model, no_model
from .runtime.effects.tools import FunctionTools, ToolBox, call_tools
from .runtime.limits import RuntimeConfig
from .runtime.models import EffectType, WorkflowSpec
from .runtime.registry import WorkflowRegistry
from .runtime.runtime import Runtime
from .service.artifacts import ArtifactService
from .service.bundles import BundleService
from .service.commands import CommandService
from .service.deprecations import FILE_NAME as DEPRECATIONS_FILE
from .service.deprecations import Deprecations
from .service.gateway import GatewayService
from .service.ledger import LedgerService
from .service.readiness import Readiness
from .service.run_inputs import RunInputs
from .service.runs import RunService
from .stores import open_file_stores, open_memory_stores, open_sqlite_stores
from .stores.base import Stores
from .visualflow.nodes.code import run_code
from .visualflow.sandbox import CodeLimits, CodePool, CodeRunner, shared_pool

CODE_PATIENCE_S = 0.2
"""How long a code node may hold a worker that other runs wait for; with more it becomes an effect of its own."""

LOCK_FILE = "gateway_runner.lock"


def open_gateway(
    config: GatewayConfig,
    *,
    model: LanguageModel | None = None,
    tools: ToolBox | Mapping[str, Callable[..., Any]] | None = None,
) -> GatewayService:
    """Open a gateway and start its runner, unless the settings leave that to another process."""
    clock = SystemClock()
    stores = open_stores(config)
    code = open_code_pool(config)
    host = BundleHost(config.flows_dir, code_runner=code)
    runtime = build_runtime(
        config, stores=stores, host=host, clock=clock, model=model, tools=as_tool_box(tools), code_runner=code
    )
    runner = _build_runner(config, stores, runtime, host, clock) if config.runner_enabled else None
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
        ),
        ledger=LedgerService(stores=stores),
        commands=CommandService(stores=stores, clock=clock),
        bundles=BundleService(host=host, deprecations=deprecations, max_bytes=config.max_bundle_bytes),
        artifacts=ArtifactService(stores=stores),
        inputs=RunInputs(runs=stores.runs, host=host),
        readiness=Readiness(stores=stores, data_dir=_durable_dir(config)),
        on_close=code.close,
    )
    if runner is not None:
        runner.start()
    return service


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
    host: WorkflowHost,
    clock: Clock,
    model: LanguageModel | None,
    tools: ToolBox,
    code_runner: CodeRunner | None = None,
) -> Runtime:
    """Return the kernel with the handlers of the effects that reach outside.

    `code_runner` executes what code nodes do not finish while their run's step is being taken.
    """
    handlers: dict[EffectType, ExternalEffect] = {
        EffectType.LLM_CALL: call_model(model, tools) if model is not None else no_model,
        EffectType.TOOL_CALLS: call_tools(tools),
        EffectType.RUN_CODE: run_code(code_runner or shared_pool()),
    }
    return Runtime(
        stores=stores,
        effect_handlers=handlers,
        workflow_registry=HostedWorkflows(host),
        config=RuntimeConfig(provider=config.provider, model=config.model),
        clock=clock,
    )


def as_tool_box(tools: ToolBox | Mapping[str, Callable[..., Any]] | None) -> ToolBox:
    """Return tools as a tool box: functions by name become one, none an empty one."""
    if tools is None or isinstance(tools, Mapping):
        return FunctionTools(tools or {})
    return tools


class HostedWorkflows(WorkflowRegistry):
    """The workflows of a host, as the kernel looks for them when it starts a child run."""

    def __init__(self, host: WorkflowHost) -> None:
        super().__init__()
        self._host = host

    def get(self, workflow_id: str) -> WorkflowSpec | None:
        try:
            return self._host.workflow(workflow_id)
        except KeyError:
            return None


def _elsewhere(config: GatewayConfig) -> RunnerElsewhere:
    return RunnerElsewhere(_runner_lock(config))


def _runner_lock(config: GatewayConfig) -> RunnerLock:
    return RunnerLock(Path(config.data_dir) / LOCK_FILE)


def _build_runner(config: GatewayConfig, stores: Stores, runtime: Runtime, host: WorkflowHost, clock: Clock) -> Runner:
    lock = None if config.store_backend == "memory" else _runner_lock(config)
    return Runner(
        stores=stores,
        runtime=runtime,
        find_workflow=host.workflow,
        clock=clock,
        lock=lock,
        advance_workers=config.advance_workers,
        effect_workers=config.effect_workers,
        step_batch=config.step_batch,
    )
