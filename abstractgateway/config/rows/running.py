"""How runs are driven, and how far they may go."""

from __future__ import annotations

from ..parsing import at_least, inline_bytes, parse_bool, parse_rules, percent, seconds, time_limit
from ..setting import Setting, env, legacy

ROWS: tuple[Setting, ...] = (
    Setting("runner_enabled", legacy("RUNNER"), parse_bool, "Whether this process drives runs."),
    Setting("advance_workers", legacy("TICK_WORKERS"), at_least(1), "How many threads advance runs; a few do best."),
    Setting(
        "effect_workers",
        env("EFFECT_WORKERS"),
        at_least(1),
        "How many model calls and tools may be in flight at once.",
    ),
    Setting(
        "effect_timeout_s",
        env("EFFECT_TIMEOUT_S"),
        time_limit,
        "How many seconds one model call, tool call or other effect may take before it has failed; 0 for any number.",
    ),
    Setting(
        "in_doubt_tools",
        env("IN_DOUBT_TOOLS"),
        parse_rules,
        "What becomes of a tool call that a crash interrupted: items `name=retry`, `name=ask` or `name=fail`; without "
        "an item it is asked about.",
    ),
    Setting("step_batch", legacy("TICK_MAX_STEPS"), at_least(1), "After how many steps a busy run shows its progress."),
    Setting(
        "auto_compact_pct",
        env("AUTO_COMPACT_PCT"),
        percent,
        "From how many percent of its tokens on the conversation of a run in a recurrent schedule is shortened by "
        "itself; 0 for never.",
    ),
    Setting(
        "max_inline_bytes",
        env("MAX_INLINE_BYTES", "ABSTRACTRUNTIME_MAX_INLINE_BYTES"),
        inline_bytes,
        "Values whose JSON has more bytes leave ledgers and ended runs for artifacts; 0 keeps all of them inline.",
    ),
    Setting(
        "max_run_bytes",
        env("MAX_RUN_BYTES"),
        at_least(0),
        "A run whose variables grow beyond so many bytes of JSON fails, before it takes all memory; 0 for no limit.",
    ),
    Setting("max_run_tokens", env("MAX_RUN_TOKENS"), at_least(0), "A run asks after so many tokens; 0 for never."),
    Setting("max_run_model_calls", env("MAX_RUN_MODEL_CALLS"), at_least(0), "The same after so many model calls."),
    Setting("max_run_tool_calls", env("MAX_RUN_TOOL_CALLS"), at_least(0), "The same after so many tool calls."),
    Setting("max_run_wall_s", env("MAX_RUN_WALL_S"), time_limit, "The same after so many seconds of work."),
    Setting(
        "max_subflow_depth",
        env("MAX_SUBFLOW_DEPTH"),
        at_least(1),
        "How deep runs may be nested; a run that would start a child below that fails and says so.",
    ),
    Setting("code_timeout_s", env("CODE_TIMEOUT_S"), seconds, "How many seconds one call of a code node may take."),
    Setting(
        "code_memory_mb",
        env("CODE_MEMORY_MB"),
        at_least(64),
        "How many megabytes one call of a code node may take, the interpreter's own 16 included.",
    ),
    Setting("code_workers", env("CODE_WORKERS"), at_least(1), "How many code nodes may be executed at once."),
    Setting(
        "code_unsandboxed",
        env("CODE_UNSANDBOXED"),
        parse_bool,
        "1 runs code nodes also where the system cannot close their process in; only for flows that you trust.",
    ),
)
