"""Every error an HTTP client can get: its code, its status, what it means and what cures it.

`docs/errors.md` is this table; clients may rely on the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from abstractgateway.errors import Conflict, Denied, GatewayError, Invalid, NotFound, Unavailable

# The first class that fits decides; an error of no class here is ours, not the client's, and is answered with 500.
STATUS_OF: tuple[tuple[type[GatewayError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Invalid, 400),
    (Denied, 403),
    (Unavailable, 503),
)

# Codes whose status is narrower than that of their class.
STATUS_OF_CODE = {
    "attachment_too_large": 413,
    "bundle_too_large": 413,
    "chat_thread_too_large": 413,
    "media_failed": 500,
    "semantics_not_configured": 501,
}


@dataclass(frozen=True)
class ErrorCode:
    """One row of the table."""

    code: str
    status: int
    meaning: str
    cure: str


ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode(
        "bad_request", 400, "The request is not HTTP.", "Send a well-formed request; the detail says what is wrong."
    ),
    ErrorCode("invalid", 400, "A value is understood and not acceptable.", "Correct what the detail names."),
    ErrorCode(
        "unauthorized",
        401,
        "The token is missing or wrong.",
        "Send `Authorization: Bearer <token>` with one of the configured tokens.",
    ),
    ErrorCode("denied", 403, "The caller may not do this.", "Use what the detail names as allowed."),
    ErrorCode(
        "host_not_allowed",
        403,
        "The `Host` header is not a name of this gateway.",
        "Call it by its address, or add the name to `ABSTRACTGATEWAY_ALLOWED_HOSTS`.",
    ),
    ErrorCode(
        "origin_not_allowed",
        403,
        "The page that makes the request is not allowed to.",
        "Add its origin to `ABSTRACTGATEWAY_ALLOWED_ORIGINS`.",
    ),
    ErrorCode(
        "scope_missing",
        403,
        "The token lacks the scope that the route needs.",
        "Use a token with the scope that `WWW-Authenticate` names.",
    ),
    ErrorCode(
        "session_not_allowed",
        403,
        "The token is for one session, and the request for something else.",
        "Use a token without a session.",
    ),
    ErrorCode("not_found", 404, "The thing named does not exist.", "Check the name; list what there is."),
    ErrorCode("route_not_found", 404, "There is no such path.", "Check the path against `docs/http.md`."),
    ErrorCode(
        "method_not_allowed",
        405,
        "The path does not know this method.",
        "Use a method of the `Allow` header.",
    ),
    ErrorCode(
        "conflict",
        409,
        "The thing is not in the state that the request needs.",
        "Read it again and decide anew.",
    ),
    ErrorCode("stale_write", 409, "Somebody else changed the run meanwhile.", "Read it again and repeat the request."),
    ErrorCode(
        "attachment_too_large", 413, "The file is over the limit.", "Raise `ABSTRACTGATEWAY_MAX_ATTACHMENT_BYTES`."
    ),
    ErrorCode(
        "too_many_records",
        400,
        "The answer needs more ledger records than one request may read.",
        "Ask for fewer runs or records, or read the ledgers in pages.",
    ),
    ErrorCode(
        "chat_thread_too_large",
        413,
        "The conversation is over the limit.",
        "Keep less of it, or raise `ABSTRACTGATEWAY_MAX_CHAT_THREAD_BYTES`.",
    ),
    ErrorCode("bundle_too_large", 413, "The bundle is over the limit.", "Raise `ABSTRACTGATEWAY_MAX_BUNDLE_BYTES`."),
    ErrorCode("precondition_failed", 412, "It is not what `If-Match` names.", "Look at what it is now."),
    ErrorCode(
        "payload_too_large",
        413,
        "The body is over the limit.",
        "Send less, or raise `ABSTRACTGATEWAY_MAX_BODY_BYTES`.",
    ),
    ErrorCode(
        "url_too_long",
        414,
        "Path and query are over the limit.",
        "Send less in the query, or raise `ABSTRACTGATEWAY_MAX_URL_BYTES`.",
    ),
    ErrorCode(
        "unsupported_media_type",
        415,
        "A body that should be JSON does not say so.",
        "Send `Content-Type: application/json`.",
    ),
    ErrorCode("range_not_satisfiable", 416, "The range lies outside the content.", "Ask for bytes that are there."),
    ErrorCode(
        "json_invalid",
        422,
        "The body is not strict JSON, or is nested too deeply.",
        "Correct it where `loc` points; NaN and Infinity are not JSON.",
    ),
    ErrorCode(
        "validation_failed",
        422,
        "Fields are missing or have the wrong type or range.",
        "Correct every field that `detail` lists.",
    ),
    ErrorCode(
        "locked_out",
        429,
        "Too many wrong tokens came from this address.",
        "Wait for `Retry-After` seconds; a valid token is served at once.",
    ),
    ErrorCode(
        "concurrency_limit",
        429,
        "As many requests are worked on as may be.",
        "Try again after `Retry-After` seconds, or raise `ABSTRACTGATEWAY_MAX_CONCURRENCY`.",
    ),
    ErrorCode(
        "client_busy",
        429,
        "This client has as many requests, connections or streams open as one may.",
        "Try again after `Retry-After` seconds, or raise the `ABSTRACTGATEWAY_MAX_CLIENT_…` setting.",
    ),
    ErrorCode("headers_too_large", 431, "The head of the request is over the limit.", "Send fewer or shorter headers."),
    ErrorCode(
        "internal_error",
        500,
        "The gateway failed; nothing about the reason is told to the client.",
        "Look for the `request_id` in the server's log.",
    ),
    ErrorCode(
        "media_failed",
        500,
        "Speech or a transcript could not be made; the detail says what the provider said.",
        "Correct what it names, or try again.",
    ),
    ErrorCode("not_implemented", 501, "The transfer encoding is unknown.", "Send the body plain or chunked."),
    ErrorCode(
        "semantics_not_configured",
        501,
        "The gateway has no semantics registry.",
        "Set `ABSTRACTGATEWAY_SEMANTICS_FILE` to a JSON file.",
    ),
    ErrorCode(
        "audit_unavailable",
        503,
        "The audit log cannot be written, and must be.",
        "Make room on the disk; `Retry-After` says when to try again.",
    ),
    ErrorCode(
        "no_token_configured",
        503,
        "Tokens are required and the gateway has none.",
        "Set `ABSTRACTGATEWAY_AUTH_TOKEN` and restart it.",
    ),
    ErrorCode("stopping", 503, "The gateway is stopping.", "Reconnect after `Retry-After` seconds."),
    ErrorCode(
        "streams_full",
        503,
        "As many streams are open as may be.",
        "Try again after `Retry-After` seconds, or raise `ABSTRACTGATEWAY_MAX_SSE`.",
    ),
    ErrorCode("unavailable", 503, "The gateway cannot do this now.", "Try again after `Retry-After` seconds."),
)

# Narrower codes of the library: they say more than the class they belong to, whose status they have over HTTP.
NARROWER_CODES: tuple[tuple[str, str, str], ...] = (
    ("address_denied", "denied", "A tool was to fetch from an address that is not public; its result says so."),
    ("artifact_damaged", "unavailable", "The bytes of an artifact are not those that were stored."),
    ("artifact_not_found", "not_found", "The run has no artifact with this id."),
    ("bundle_broken", "invalid", "The bundle is not a sound zip file."),
    ("bundle_deployed", "conflict", "The bundle is in a directory that the processes of a fleet only read."),
    ("bundle_installed", "invalid", "This version of the bundle is installed already."),
    ("bundle_invalid", "invalid", "Files cannot be packed into a bundle; the detail says why."),
    ("bundle_not_found", "not_found", "No bundle has this id and version."),
    ("busy", "conflict", "A run is changed so often by others that a change of ours never fitted in."),
    ("calls_full", "unavailable", "As many model calls are made for waiting requests as may be."),
    ("code_failed", "internal_error", "Code of a flow raised or took too much; the run is `failed` and says so."),
    ("code_invalid", "invalid", "Code of a flow uses what code nodes may not."),
    ("code_unavailable", "unavailable", "Code nodes cannot be run here; the detail says why."),
    ("tokens_unusable", "unavailable", "The file of the named tokens cannot be used; the message says why."),
    ("token_not_found", "not_found", "There is no named token with this name or id."),
    ("audit_damaged", "conflict", "`audit verify` found lines that are not as they were written."),
    ("command_not_found", "not_found", "No command has this id."),
    ("data_dir_unusable", "unavailable", "The data directory cannot be used; the detail says why."),
    ("database_unreachable", "unavailable", "The database server does not answer."),
    ("database_unusable", "unavailable", "The database cannot be used; the detail says why."),
    ("embedding_failed", "unavailable", "No vectors could be made; the detail says what the provider said."),
    ("direct_call_failed", "invalid", "The model did not answer; the detail says why."),
    ("entrypoint_not_found", "not_found", "The bundle has no such entrypoint."),
    ("error", "internal_error", "An error without a class of its own."),
    ("fetch_failed", "unavailable", "The name of a host that a tool was to fetch from has no address."),
    ("file_not_found", "not_found", "A run's workspace has no such file; the run is `failed` and says so."),
    ("file_unusable", "unavailable", "A file of a workspace cannot be opened; the run is `failed` and says so."),
    ("files_unavailable", "unavailable", "This system cannot open files of a workspace safely."),
    ("flow_damaged", "unavailable", "What is stored of a drawn flow cannot be read; write or delete it."),
    ("flow_id_required", "invalid", "A start names neither a bundle nor a flow."),
    ("flow_invalid", "invalid", "A flow does not compile; the detail lists what is wrong with it."),
    ("flow_not_found", "not_found", "There is no such flow."),
    ("flows_dir_is_bundle", "conflict", "`ABSTRACTGATEWAY_FLOWS_DIR` is one bundle, so that none can come or go."),
    ("http_extra_missing", "unavailable", "`serve` needs `pip install 'abstractgateway[http]'`."),
    ("invalid_status", "invalid", "A run status that does not exist."),
    ("idempotency_key_reused", "conflict", "The key was used for a start with another body."),
    ("kernel_fault", "internal_error", "A run broke after it had ended."),
    ("lease_lost", "conflict", "Another runner drives these runs now."),
    ("knowledge_elsewhere", "unavailable", "The embedding program keeps the knowledge graph; it answers no HTTP."),
    ("ledger_damaged", "unavailable", "A record of a ledger is not what was stored."),
    ("llm_extra_missing", "unavailable", "A model call needs the extra `llm`; the run is `failed` and says so."),
    ("manifest_invalid", "invalid", "The manifest of a bundle is not acceptable."),
    ("mcp_extra_missing", "unavailable", "`ABSTRACTGATEWAY_MCP_SERVERS` needs `pip install 'abstractgateway[mcp]'`."),
    ("mcp_server_unavailable", "unavailable", "The server of a tool is not connected now; the message says why."),
    ("mcp_tool_failed", "internal_error", "A call of a tool brought no result; its result says why."),
    ("media_unavailable", "invalid", "Nothing here makes speech or transcripts; the detail names the settings."),
    ("model_failed", "internal_error", "A model call failed; the run is `failed` and says what the provider said."),
    ("nested_too_deeply", "invalid", "Runs are nested deeper than `ABSTRACTGATEWAY_MAX_SUBFLOW_DEPTH`."),
    ("no_time_zones", "invalid", "The machine knows no time zones but UTC; install the system's tzdata."),
    ("no_bundles", "conflict", "`ABSTRACTGATEWAY_WORKFLOW_SOURCE` is `visualflow`: bundles do not come and go."),
    ("no_model", "invalid", "The request names no provider or no model, and there is no default."),
    ("node_failed", "internal_error", "A node could not compute its value; the run is `failed` and says so."),
    ("not_a_file", "invalid", "What a path names is a directory or a device."),
    ("not_a_choice", "invalid", "An answer is not one of the choices of its question."),
    ("not_possible_now", "conflict", "The status of the run does not allow this."),
    ("not_ready", "unavailable", "The store or the data directory cannot be used now; the detail says why."),
    ("not_recurrent", "conflict", "The schedule has one time only, which cannot be changed."),
    ("not_scheduled", "conflict", "The run is not part of a schedule."),
    ("nothing_to_compact", "conflict", "No run of the schedule has a conversation."),
    ("not_waiting", "conflict", "The run waits for no answer."),
    ("outcome_unknown", "unavailable", "The database was lost during a commit; look whether it is there."),
    ("path_denied", "denied", "A path leads out of the workspace of a run; the run is `failed` and says so."),
    ("port_in_use", "unavailable", "Another program listens on the port."),
    ("postgres_extra_missing", "unavailable", "The store backend needs `pip install 'abstractgateway[postgres]'`."),
    ("process_unavailable", "unavailable", "The system could start no process for a tool."),
    ("run_damaged", "unavailable", "What is stored of a run cannot be read."),
    ("run_id_required", "invalid", "A command names no run."),
    ("run_not_found", "not_found", "No run has this id."),
    ("run_paused", "conflict", "The run is paused; resume it first."),
    ("run_removed", "conflict", "The run that the key started has ended and was removed since; use a new key."),
    ("schedule_invalid", "invalid", "The times of a schedule make no sense; the detail says why."),
    ("schema_too_new", "conflict", "The database was written by a later version."),
    ("semantics_unusable", "unavailable", "The semantics registry cannot be read; the detail says why."),
    ("stale_answer", "conflict", "The question was answered already, or the run asks another one now."),
    ("startup_refused", "unavailable", "`serve` refuses these settings; the message says how to correct them."),
    ("store_busy", "unavailable", "All connections to the database are in use, or it is overloaded."),
    ("store_closed", "unavailable", "The store is closed."),
    ("store_failed", "unavailable", "The store could not write; look at the disk."),
    ("tool_failed", "internal_error", "A tool took too much, or ended as it should not; its result says why."),
    ("unknown_command_type", "invalid", "A command type that does not exist."),
    ("unknown_run", "not_found", "No run has this id."),
    ("unknown_workflow", "not_found", "No workflow has this id."),
    ("workflow_deprecated", "conflict", "The workflow must not be started any more."),
    ("archive_damaged", "unavailable", "A run cannot be archived before it is removed; the message says why."),
    ("archive_unusable", "conflict", "The archive of removed runs cannot be written."),
    ("backup_damaged", "invalid", "The backup is not what was written."),
    ("backup_too_new", "invalid", "The backup was made by a later version."),
    ("chain_broken", "conflict", "`ledger verify` found records that are not what was written."),
    ("command_rejected", "conflict", "A command of `runs` was rejected; the message says why."),
    ("data_dir_missing", "not_found", "There is no data directory at `ABSTRACTGATEWAY_DATA_DIR`."),
    ("file_exists", "conflict", "`config init` found a file in its place; `--force` writes over it."),
    ("line_too_long", "internal_error", "The client was sent a line of a stream that is too long to be one."),
    ("migration_active", "conflict", "A migration has the database for itself; wait for its end."),
    ("migration_unfinished", "conflict", "A migration was interrupted before its end; run it again."),
    ("not_a_backup", "not_found", "The directory holds no backup."),
    ("not_a_gateway", "internal_error", "The client was answered by something that is no gateway; check the URL."),
    ("not_empty", "conflict", "A backup, or what is restored of one, needs a new directory."),
    ("not_supported", "conflict", "The backend has nothing that this command could work on; the message says why."),
    ("not_well", "conflict", "`doctor` found something that keeps a gateway from working."),
    ("retention_active", "conflict", "Another process removes runs of the same stores."),
    ("run_not_completed", "conflict", "The run that was watched has ended, and not as `completed`."),
    ("runner_active", "conflict", "A runner drives the runs, or a gateway uses the database; stop it first."),
    ("same_backend", "conflict", "`migrate` from a backend to itself."),
    ("source_changes", "conflict", "The store changes while it is copied; stop its runner first."),
    ("source_missing", "not_found", "There is nothing of the backend to migrate from."),
    ("store_damaged", "unavailable", "A copy of a store reads otherwise than the store, or the store cannot be read."),
    ("target_differs", "conflict", "The store to migrate to has other runs under the same ids."),
    ("target_exists", "conflict", "The store to migrate to has data already; `--overwrite` removes it."),
    ("unreachable", "unavailable", "The client cannot reach the gateway; the message says why."),
)

# What waitress refuses by itself, before any code of ours sees the request.
CODE_OF_STATUS = {
    400: "bad_request",
    413: "payload_too_large",
    431: "headers_too_large",
    500: "internal_error",
    501: "not_implemented",
}


def errors_page() -> str:
    """Return the text of `docs/errors.md`."""
    rows = [f"| {row.status} | `{row.code}` | {row.meaning} | {row.cure} |" for row in ERROR_CODES]
    narrower = [f"| `{code}` | `{wider}` | {meaning} |" for code, wider, meaning in NARROWER_CODES]
    return "\n".join([_PAGE_HEAD, *rows, "", _NARROWER_HEAD, *narrower, ""])


_PAGE_HEAD = """# Errors over HTTP

Every error has the same body, and every answer the header `x-request-id`:

```json
{"detail": "Run 'nope' not found", "code": "not_found", "request_id": "5f0c…"}
```

- `detail` is a sentence for people. For `validation_failed` and `json_invalid` it is a list of
  `{"type", "loc", "msg", "input"[, "ctx"]}`, one entry per wrong field.
- `code` is for programs and does not change.
- `request_id` is the `X-Request-Id` you sent (up to 128 visible ASCII characters), else a new one; the
  server's log has it.
- 503 comes with `Retry-After` in seconds, except for `no_token_configured`.
- In Python, 404 is a `NotFound`, 409 a `Conflict`, 400 an `Invalid`, 403 a `Denied` and 503 an `Unavailable` of
  `abstractgateway.errors`, with the same `code`.

| status | code | meaning | cure |
|---|---|---|---|"""

_NARROWER_HEAD = """## Narrower codes

Some errors have a code of their own. Over HTTP they have the status of the code they belong to; in Python, its class.

| code | belongs to | meaning |
|---|---|---|"""
