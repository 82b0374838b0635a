"""The settings: one table, and the only reader of the environment.

A row of `SETTINGS` is a setting: its field in `GatewayConfig`, its environment names (the first that is set and not
blank wins), its parser, its default and what it does. The environment, `config status` and the settings page of the
documentation are made from the rows.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import Invalid

PREFIX = "ABSTRACTGATEWAY_"
_MOUNT_NAME = re.compile(r"\A[A-Za-z0-9_-]{1,32}\Z")
_LEAST_INLINE_BYTES = 1000  # so that what the gateway itself keeps in a run stays there
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class GatewayConfig:
    """Everything that can be set about a gateway; `SETTINGS` says what each field means.

    Raises `Invalid` for values that cannot work together.
    """

    url: str = "http://127.0.0.1:8080"
    data_dir: str | Path = "./runtime"
    flows_dir: str | Path = "./flows"
    workflow_source: str = "bundle"
    store_backend: str = "file"
    db_path: str | Path | None = None
    durability: str = "full"
    runner_enabled: bool = True
    advance_workers: int = 2
    effect_workers: int = 32
    effect_timeout_s: float = 7200.0
    in_doubt_tools: tuple[tuple[str, str], ...] = ()
    step_batch: int = 256
    max_inline_bytes: int = 262_144
    max_run_bytes: int = 67_108_864
    provider: str | None = None
    model: str | None = None
    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: str | None = field(default=None, repr=False)
    anthropic_base_url: str = "https://api.anthropic.com"
    anthropic_api_key: str | None = field(default=None, repr=False)
    openrouter_base_url: str = "https://openrouter.ai/api/v1"
    openrouter_api_key: str | None = field(default=None, repr=False)
    ollama_base_url: str = "http://127.0.0.1:11434"
    ollama_api_key: str | None = field(default=None, repr=False)
    lmstudio_base_url: str = "http://127.0.0.1:1234/v1"
    lmstudio_api_key: str | None = field(default=None, repr=False)
    vllm_base_url: str = "http://127.0.0.1:8000/v1"
    vllm_api_key: str | None = field(default=None, repr=False)
    openai_compatible_base_url: str | None = None
    openai_compatible_api_key: str | None = field(default=None, repr=False)
    llm_connect_timeout_s: float = 10.0
    llm_read_timeout_s: float = 600.0
    llm_retries: int = 2
    llm_max_response_bytes: int = 16_777_216
    security: bool = True
    auth_tokens: tuple[str, ...] = ()
    protect_read: bool = True
    protect_write: bool = True
    dev_read_no_auth: bool = False
    allowed_origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 256_000
    max_bundle_bytes: int = 78_643_200
    max_sse: int = 10_000
    http_threads: int = 8
    max_subflow_depth: int = 500
    workspace_dir: str | Path | None = None
    workspace_mounts: tuple[tuple[str, str], ...] = ()
    client_workspace_scope: bool = False
    code_timeout_s: float = 5.0
    code_memory_mb: int = 256
    code_workers: int = 2
    code_unsandboxed: bool = False

    def __post_init__(self) -> None:
        _check_choice("workflow_source", self.workflow_source, ("bundle", "visualflow"))
        _check_choice("store_backend", self.store_backend, ("file", "sqlite", "memory"))
        _check_choice("durability", self.durability, ("full", "relaxed"))
        if not 0 <= self.effect_timeout_s < math.inf:
            raise Invalid("effect_timeout_s", f"{self.effect_timeout_s!r} is neither 0 nor a number of seconds above 0")
        if self.store_backend == "sqlite":
            _check_inside(self.database_path, Path(self.data_dir))

    @property
    def database_path(self) -> Path:
        """The SQLite file: `db_path`, or `gateway.sqlite3` in the data directory."""
        return Path(self.db_path) if self.db_path else Path(self.data_dir) / "gateway.sqlite3"

    @staticmethod
    def from_env(environ: Mapping[str, str] | None = None, **overrides: Any) -> GatewayConfig:
        """Return the settings that the environment gives, with `overrides` winning over it.

        A blank variable counts as unset. Raises `Invalid` naming the variable that cannot be read.
        """
        source = os.environ if environ is None else environ
        values = {row.field: row.read(source) for row in SETTINGS}
        return GatewayConfig(**{**values, **overrides})


@dataclass(frozen=True)
class Setting:
    """One row: the field it fills, its environment names, how its text is read, and one sentence about it."""

    field: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    text: str

    @property
    def default(self) -> Any:
        return next(item.default for item in fields(GatewayConfig) if item.name == self.field)

    def set_by(self, environ: Mapping[str, str] | None = None) -> str | None:
        """Return the name of the variable that gives this setting its value; None where it has its default."""
        source = os.environ if environ is None else environ
        return next((name for name in self.names if source.get(name, "").strip()), None)

    def read(self, environ: Mapping[str, str]) -> Any:
        """Return the value the environment gives this setting, else its default."""
        if self.field == "auth_tokens":
            return _merged_tokens(environ, self.names)
        for name in self.names:
            text = environ.get(name, "").strip()
            if text:
                return _parsed(name, text, self.parse)
        return self.default


def parse_bool(text: str) -> bool:
    """Return what `1 true yes on` or `0 false no off` mean, in any case."""
    lowered = text.lower()
    if lowered in _TRUE or lowered in _FALSE:
        return lowered in _TRUE
    raise ValueError("use 1 or 0")


def parse_list(text: str) -> tuple[str, ...]:
    """Return the non-blank items of a comma-separated text, in order and without repetition."""
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def parse_rules(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and rules of items `name=rule`; a rule is `retry`, `ask` or `fail`."""
    return tuple(_rule(item) for item in parse_list(text))


def _rule(item: str) -> tuple[str, str]:
    name, _, rule = (part.strip() for part in item.rpartition("="))
    if not name or rule.lower() not in ("retry", "ask", "fail"):
        raise ValueError(f"{item!r} is not name=retry, name=ask or name=fail")
    return name, rule.lower()


def parse_mounts(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and absolute directories of lines `name=/directory`; blank lines and comments do not count."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(_mount(line) for line in lines if line and not line.startswith("#"))


def _mount(line: str) -> tuple[str, str]:
    name, equals, directory = (part.strip() for part in line.partition("="))
    if not equals or not _MOUNT_NAME.match(name) or not Path(directory).is_absolute():
        raise ValueError(f"{line!r} is not name=/directory, with a name of up to 32 letters, digits, '_' and '-'")
    return name, directory


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError(f"use a whole number from {least}")
        return number

    return parse


def _inline_bytes(text: str) -> int:
    number = int(text)
    if 0 < number < _LEAST_INLINE_BYTES:
        raise ValueError(f"use 0, or a whole number from {_LEAST_INLINE_BYTES}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise ValueError("use a number of seconds above 0, up to 3600")
    return number


def _time_limit(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError("use 0, or a number of seconds above 0")
    return number


def _lower(text: str) -> str:
    return text.lower()


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 0) < 0:
        raise ValueError("use a URL such as http://127.0.0.1:8000/v1")
    return text.rstrip("/")


def _ollama_url(text: str) -> str:
    """Ollama's own variable may be the bare address that its server listens on, such as `0.0.0.0`."""
    if "://" in text:
        return _base_url(text)
    parts = urlsplit(f"http://{text}")
    host = parts.hostname or "0.0.0.0"
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return _base_url(f"http://{reachable}:{parts.port or 11434}")


def _parsed(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise Invalid(name, f"{text!r} cannot be read: {error}") from error


def _merged_tokens(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    current, legacy = names[:2], names[2:]
    for group in (current, legacy):
        merged = parse_list(",".join(environ.get(name, "") for name in group))
        if merged:
            return merged
    return ()


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise Invalid(field, f"{value!r} is not one of {', '.join(repr(choice) for choice in choices)}")


def _check_inside(path: Path, directory: Path) -> None:
    if not path.resolve().is_relative_to(directory.resolve()):
        raise Invalid(
            "ABSTRACTGATEWAY_DB_PATH",
            "ABSTRACTGATEWAY_DB_PATH must point to a file under ABSTRACTGATEWAY_DATA_DIR "
            f"({str(path)!r} is outside {str(directory)!r})",
        )


def _env(suffix: str, *fallbacks: str) -> tuple[str, ...]:
    return (PREFIX + suffix, *fallbacks)


def _legacy(suffix: str) -> tuple[str, ...]:
    return _env(suffix, "ABSTRACTFLOW_GATEWAY_" + suffix)


SETTINGS: tuple[Setting, ...] = (
    Setting("url", _env("URL"), _base_url, "Where the commands `runs …` and `ledger …` find the gateway."),
    Setting(
        "data_dir",
        _env("DATA_DIR", "ABSTRACTFLOW_RUNTIME_DIR"),
        str,
        "Where runs, ledgers, commands and artifacts are kept.",
    ),
    Setting(
        "flows_dir",
        _env("FLOWS_DIR", "ABSTRACTFRAMEWORK_WORKFLOWS_DIR", "ABSTRACTFLOW_FLOWS_DIR"),
        str,
        "A directory of `*.flow` bundles, or one bundle file; with `visualflow`, a directory of `*.json` flows.",
    ),
    Setting(
        "workflow_source",
        _env("WORKFLOW_SOURCE"),
        _lower,
        "`bundle`, or `visualflow` to serve each flow that the visual editor saved under its own id.",
    ),
    Setting(
        "store_backend", _env("STORE_BACKEND"), _lower, "`file`, `sqlite`, or `memory` (nothing survives the process)."
    ),
    Setting("db_path", _env("DB_PATH"), str, "The SQLite file; it must lie in the data directory."),
    Setting(
        "durability",
        _env("DURABILITY"),
        _lower,
        "`full`: an answer is sent after its bytes are fsynced; `relaxed`: a power loss may cost the last moments.",
    ),
    Setting("runner_enabled", _legacy("RUNNER"), parse_bool, "Whether this process drives runs."),
    Setting("advance_workers", _legacy("TICK_WORKERS"), _at_least(1), "How many threads advance runs; a few do best."),
    Setting(
        "effect_workers",
        _env("EFFECT_WORKERS"),
        _at_least(1),
        "How many model calls and tools may be in flight at once.",
    ),
    Setting(
        "effect_timeout_s",
        _env("EFFECT_TIMEOUT_S"),
        _time_limit,
        "How many seconds one model call, tool call or other effect may take before it has failed; 0 for any number.",
    ),
    Setting(
        "in_doubt_tools",
        _env("IN_DOUBT_TOOLS"),
        parse_rules,
        "What becomes of a tool call that a crash interrupted: items `name=retry`, `name=ask` or `name=fail`; without "
        "an item it is asked about.",
    ),
    Setting(
        "step_batch", _legacy("TICK_MAX_STEPS"), _at_least(1), "After how many steps a busy run shows its progress."
    ),
    Setting(
        "max_inline_bytes",
        _env("MAX_INLINE_BYTES", "ABSTRACTRUNTIME_MAX_INLINE_BYTES"),
        _inline_bytes,
        "Values whose JSON has more bytes leave ledgers and ended runs for artifacts; 0 keeps all of them inline.",
    ),
    Setting(
        "max_run_bytes",
        _env("MAX_RUN_BYTES"),
        _at_least(0),
        "A run whose variables grow beyond so many bytes of JSON fails, before it takes all memory; 0 for no limit.",
    ),
    Setting(
        "provider", _env("PROVIDER", "ABSTRACTFLOW_PROVIDER"), str, "The model provider used where a flow names none."
    ),
    Setting("model", _env("MODEL", "ABSTRACTFLOW_MODEL"), str, "The model used where a flow names none."),
    Setting("openai_base_url", ("OPENAI_BASE_URL",), _base_url, "Where the provider `openai` is."),
    Setting("openai_api_key", ("OPENAI_API_KEY",), str, "The key for it."),
    Setting("anthropic_base_url", ("ANTHROPIC_BASE_URL",), _base_url, "Where the provider `anthropic` is."),
    Setting("anthropic_api_key", ("ANTHROPIC_API_KEY",), str, "The key for it."),
    Setting("openrouter_base_url", ("OPENROUTER_BASE_URL",), _base_url, "Where the provider `openrouter` is."),
    Setting("openrouter_api_key", ("OPENROUTER_API_KEY",), str, "The key for it."),
    Setting("ollama_base_url", ("OLLAMA_BASE_URL", "OLLAMA_HOST"), _ollama_url, "Where the provider `ollama` is."),
    Setting("ollama_api_key", ("OLLAMA_API_KEY",), str, "The key for it, where it wants one."),
    Setting("lmstudio_base_url", ("LMSTUDIO_BASE_URL",), _base_url, "Where the provider `lmstudio` is."),
    Setting("lmstudio_api_key", ("LMSTUDIO_API_KEY",), str, "The key for it, where it wants one."),
    Setting("vllm_base_url", ("VLLM_BASE_URL",), _base_url, "Where the provider `vllm` is."),
    Setting("vllm_api_key", ("VLLM_API_KEY",), str, "The key for it, where it wants one."),
    Setting(
        "openai_compatible_base_url",
        ("OPENAI_COMPATIBLE_BASE_URL",),
        _base_url,
        "Where the provider `openai-compatible` is: any other server with the chat completions of OpenAI.",
    ),
    Setting("openai_compatible_api_key", ("OPENAI_COMPATIBLE_API_KEY",), str, "The key for it, where it wants one."),
    Setting(
        "llm_connect_timeout_s",
        _env("LLM_CONNECT_TIMEOUT_S"),
        _seconds,
        "How many seconds connecting to a model provider may take.",
    ),
    Setting(
        "llm_read_timeout_s",
        _env("LLM_READ_TIMEOUT_S"),
        _seconds,
        "How many seconds a model provider may be silent; without streaming that is the time a whole answer takes.",
    ),
    Setting(
        "llm_retries",
        _env("LLM_RETRIES"),
        _at_least(0),
        "How often a model call is made again after 408, 429, 5xx or a lost connection.",
    ),
    Setting(
        "llm_max_response_bytes",
        _env("LLM_MAX_RESPONSE_BYTES"),
        _at_least(1000),
        "The largest answer of a model provider that is read.",
    ),
    Setting("security", _legacy("SECURITY"), parse_bool, "0 switches every check off; only for closed test systems."),
    Setting(
        "auth_tokens",
        (
            *_env("AUTH_TOKEN"),
            *_env("AUTH_TOKENS"),
            "ABSTRACTFLOW_GATEWAY_AUTH_TOKEN",
            "ABSTRACTFLOW_GATEWAY_AUTH_TOKENS",
        ),
        parse_list,
        "The bearer tokens that are accepted; both names are comma lists and are joined.",
    ),
    Setting("protect_read", _legacy("PROTECT_READ"), parse_bool, "Whether GET and HEAD need a token."),
    Setting("protect_write", _legacy("PROTECT_WRITE"), parse_bool, "Whether POST, PUT, PATCH and DELETE need a token."),
    Setting(
        "dev_read_no_auth",
        _legacy("DEV_READ_NO_AUTH"),
        parse_bool,
        "Whether loopback clients may read without a token.",
    ),
    Setting(
        "allowed_origins",
        _legacy("ALLOWED_ORIGINS"),
        parse_list,
        "Browser origins that may call: texts, or globs with `*`.",
    ),
    Setting(
        "allowed_hosts",
        _env("ALLOWED_HOSTS"),
        parse_list,
        "Names the `Host` header may have besides loopback and the bound address; `*` for any.",
    ),
    Setting("max_body_bytes", _legacy("MAX_BODY_BYTES"), _at_least(0), "The largest body of a write; 0 for no limit."),
    Setting("max_bundle_bytes", _legacy("MAX_BUNDLE_BYTES"), _at_least(1), "The largest bundle that may be uploaded."),
    Setting("max_sse", _legacy("MAX_SSE"), _at_least(1), "How many streams may be open at once."),
    Setting(
        "http_threads",
        _env("HTTP_THREADS"),
        _at_least(1),
        "How many requests are worked on at once; streams take no thread.",
    ),
    Setting(
        "max_subflow_depth",
        _env("MAX_SUBFLOW_DEPTH"),
        _at_least(1),
        "How deep runs may be nested; a run that would start a child below that fails and says so.",
    ),
    Setting(
        "workspace_dir",
        _env("WORKSPACE_DIR"),
        str,
        "A directory in which runs may be given a workspace; without it and mounts, only `workspaces` in the data "
        "directory is used.",
    ),
    Setting(
        "workspace_mounts",
        _env("WORKSPACE_MOUNTS"),
        parse_mounts,
        "More such directories, a line `name=/directory` each; lines that begin with `#` are comments.",
    ),
    Setting(
        "client_workspace_scope",
        _env("ALLOW_CLIENT_WORKSPACE_SCOPE", "ABSTRACTGATEWAY_TRUST_CLIENT_WORKSPACE_SCOPE"),
        parse_bool,
        "1 lets clients and flows choose any directory as a workspace; only where you trust all of them.",
    ),
    Setting("code_timeout_s", _env("CODE_TIMEOUT_S"), _seconds, "How many seconds one call of a code node may take."),
    Setting(
        "code_memory_mb",
        _env("CODE_MEMORY_MB"),
        _at_least(64),
        "How many megabytes one call of a code node may take, the interpreter's own 16 included.",
    ),
    Setting("code_workers", _env("CODE_WORKERS"), _at_least(1), "How many code nodes may be executed at once."),
    Setting(
        "code_unsandboxed",
        _env("CODE_UNSANDBOXED"),
        parse_bool,
        "1 runs code nodes also where the system cannot close their process in; only for flows that you trust.",
    ),
)
