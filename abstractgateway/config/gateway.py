"""The settings of a gateway as one value, and the only reader of the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import Invalid
from .mcp_servers import McpServers
from .parsing import TOOL_MODES
from .rows import SETTINGS
from .setting import UNSET


@dataclass(frozen=True)
class GatewayConfig:
    """Everything that can be set about a gateway; `SETTINGS` says what each field means.

    Raises `Invalid` for values that cannot work together.
    """

    url: str = "http://127.0.0.1:8080"
    data_dir: str | Path = "./runtime"
    flows_dir: str | Path = "./flows"
    visualflows_dir: str | Path | None = None
    workflow_source: str = "bundle"
    store_backend: str = "file"
    db_path: str | Path | None = None
    database_url: str | None = field(default=None, repr=False)
    database_connections: int = 8
    database_artifacts_dir: str | Path | None = None
    lease_s: float = 10.0
    global_memory_run_id: str = "global_memory"
    memory_store_backend: str | None = None
    memory_store_path: str | Path | None = None
    durability: str = "full"
    runner_enabled: bool = True
    advance_workers: int = 2
    effect_workers: int = 32
    effect_timeout_s: float = 7200.0
    in_doubt_tools: tuple[tuple[str, str], ...] = ()
    tool_mode: str = "approval"
    tools: tuple[str, ...] = ("all",)
    fetch_allow: tuple[str, ...] = ()
    command_path: str = "/usr/local/bin:/usr/bin:/bin"
    step_batch: int = 256
    auto_compact_pct: int = 90
    max_inline_bytes: int = 262_144
    max_run_bytes: int = 67_108_864
    max_run_tokens: int = 0
    max_run_model_calls: int = 0
    max_run_tool_calls: int = 0
    max_run_wall_s: float = 0.0
    provider: str | None = None
    model: str | None = None
    prompt_cache: bool | None = None
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
    llm_stream: bool = True
    llm_max_response_bytes: int = 16_777_216
    direct_calls: int = 4
    direct_timeout_s: float = 120.0
    speech_provider: str | None = None
    speech_model: str | None = None
    speech_voices: tuple[str, ...] = ()
    transcription_provider: str | None = None
    transcription_model: str | None = None
    image_provider: str | None = None
    image_model: str | None = None
    image_max_bytes: int = 20_000_000
    max_chat_thread_bytes: int = 750_000
    mcp_servers: McpServers | None = field(default=None, repr=False)
    mcp_connect_timeout_s: float = 30.0
    mcp_timeout_s: float = 300.0
    mcp_max_output_bytes: int = 262_144
    security: bool = True
    auth_tokens: tuple[str, ...] = field(default=(), repr=False)
    protect_read: bool = True
    protect_write: bool = True
    dev_read_no_auth: bool = False
    open_metrics: bool = False
    allowed_origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 256_000
    max_bundle_bytes: int = 78_643_200
    max_attachment_bytes: int = 26_214_400
    max_upload_body_bytes: int = 0
    max_header_bytes: int = 65_536
    max_url_bytes: int = 16_384
    request_timeout_s: float = 300.0
    max_concurrency: int = 64
    max_client_concurrency: int = 0
    max_client_connections: int = 1_000
    max_client_sse: int = 2_000
    lockout_after: int = 5
    lockout_base_s: float = 1.0
    lockout_max_s: float = 60.0
    trust_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    audit_log: bool | None = None
    audit_log_max_bytes: int = 52_428_800
    audit_log_rotations: int = 10
    audit_log_headers: tuple[str, ...] = ("x-client-id", "x-client-version", "x-forwarded-for")
    audit_log_required: bool = False
    max_sse: int = 10_000
    http_threads: int = 8
    max_subflow_depth: int = 500
    workspace_dir: str | Path | None = None
    workspace_mounts: tuple[tuple[str, str], ...] = ()
    client_workspace_scope: bool = False
    file_index_ttl_s: int = 30
    file_index_max_files: int = 50_000
    semantics_file: str | Path | None = None
    embedding_provider: str | None = None
    embedding_model: str | None = None
    code_timeout_s: float = 5.0
    code_memory_mb: int = 256
    code_workers: int = 2
    code_unsandboxed: bool = False
    log_level: str = "warning"
    log_format: str = "text"
    shutdown_grace_s: float = 5.0

    def __post_init__(self) -> None:
        _check_choice("workflow_source", self.workflow_source, ("bundle", "visualflow"))
        _check_choice("store_backend", self.store_backend, ("file", "sqlite", "postgres", "memory"))
        _check_choice("memory_store_backend", self.memory_store_backend or "sqlite", ("sqlite", "memory"))
        _check_choice("durability", self.durability, ("full", "relaxed"))
        _check_choice("log_level", self.log_level, ("debug", "info", "warning", "error"))
        _check_choice("log_format", self.log_format, ("text", "json"))
        if not 0 <= self.shutdown_grace_s < math.inf:
            raise Invalid("shutdown_grace_s", f"{self.shutdown_grace_s!r} is no number of seconds")
        _check_choice("tool_mode", self.tool_mode, tuple(TOOL_MODES))
        if not 0 <= self.effect_timeout_s < math.inf:
            raise Invalid("effect_timeout_s", f"{self.effect_timeout_s!r} is neither 0 nor a number of seconds above 0")
        if self.store_backend == "sqlite":
            _check_inside(self.database_path, Path(self.data_dir))
        if self.store_backend == "postgres":
            _check_database_url(self.database_url)

    @property
    def database_path(self) -> Path:
        """The SQLite file: `db_path`, or `gateway.sqlite3` in the data directory."""
        return Path(self.db_path) if self.db_path else Path(self.data_dir) / "gateway.sqlite3"

    @property
    def knowledge_path(self) -> Path | None:
        """The SQLite file of the knowledge graph; None where it is kept in memory."""
        if (self.memory_store_backend or self.store_backend) == "memory":
            return None
        return Path(self.memory_store_path or Path(self.data_dir) / "abstractmemory" / "kg.sqlite3")

    @staticmethod
    def from_env(environ: Mapping[str, str] | None = None, **overrides: Any) -> GatewayConfig:
        """Return the settings that the environment gives, with `overrides` winning over it.

        A blank variable counts as unset. Raises `Invalid` naming the variable that cannot be read.
        """
        source = os.environ if environ is None else environ
        read = {row.field: row.read(source) for row in SETTINGS}
        given = {name: value for name, value in read.items() if value is not UNSET}
        return GatewayConfig(**{**given, **overrides})

    @staticmethod
    def sources(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
        """Return for each field the variable that gives it its value; None where it has its default."""
        source = os.environ if environ is None else environ
        return {row.field: row.set_by(source) for row in SETTINGS}


def default_of(name: str) -> Any:
    """Return what a field is when nobody sets it."""
    return next(item.default for item in fields(GatewayConfig) if item.name == name)


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


def _check_database_url(url: str | None) -> None:
    """The message does not show the URL, which may hold a password."""
    if not url or urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise Invalid(
            "ABSTRACTGATEWAY_DATABASE_URL",
            f"is {'no URL of a PostgreSQL database' if url else 'not set'}; the store backend 'postgres' needs one "
            "such as postgresql://user:password@host:5432/database",
        )
