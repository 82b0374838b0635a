"""The kernel with the handlers of the effects that reach outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..clock import Clock
from ..config import GatewayConfig
from ..hosts import HostedWorkflows
from ..knowledge import MemoryTripleStore, Owners, SqliteTripleStore, StoredKnowledge, TripleStore
from ..runtime import budgets
from ..runtime.effects import ExternalEffect
from ..runtime.effects.model import LanguageModel, call_model, no_model
from ..runtime.effects.model_input import ReadArtifact
from ..runtime.effects.tools import ToolBox, ToolMode, call_tools
from ..runtime.limits import RuntimeConfig
from ..runtime.models import EffectType, RunState
from ..runtime.policy import InDoubt, NoRetryPolicy, Reconciler
from ..runtime.runtime import Runtime
from ..security import Redactor
from ..stores.base import Stores
from ..visualflow.nodes.code import run_code
from ..visualflow.nodes.files import read_file, write_file
from ..visualflow.nodes.knowledge import KnowledgeGraph, knowledge_effects, knowledge_in_doubt
from ..visualflow.sandbox import CodeLimits, CodePool, CodeRunner, shared_pool
from .tools import builtin_tools, offered, workspace_files

CODE_PATIENCE_S = 0.2
"""How long a code node may hold a worker that other runs wait for; with more it becomes an effect of its own."""

RETRY: InDoubt = "retry"


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
    files = workspace_files(config, stores)
    builtin = builtin_tools(config, files, stores, tools)
    tools = offered(builtin, tools)
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
        secrets=Redactor.of(config),
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


def in_doubt_rules(config: GatewayConfig) -> dict[str, InDoubt]:
    """Return what the settings say becomes of tool calls in doubt, by the name of the tool."""
    return cast("dict[str, InDoubt]", dict(config.in_doubt_tools))


def open_code_pool(config: GatewayConfig) -> CodePool:
    """Return what executes code nodes; its processes are started when the first of them is reached."""
    return CodePool(
        CodeLimits(timeout_s=config.code_timeout_s, memory_mb=config.code_memory_mb),
        workers=config.code_workers,
        may_be_open=config.code_unsandboxed,
        patience_s=CODE_PATIENCE_S,
    )


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
