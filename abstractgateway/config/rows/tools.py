"""Tools, their servers, and the files that they may use."""

from __future__ import annotations

from ..parsing import at_least, parse_bool, parse_list, parse_mounts, seconds, tool_mode
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting(
        "tool_mode",
        env("TOOL_MODE"),
        tool_mode,
        "Who executes tool calls: `approval` (the gateway, guarded tools once a person agrees), `passthrough` (the "
        "gateway, every tool once a person agrees), `delegated` (another program), `local` (the gateway, unasked; "
        "clients may then choose any workspace).",
    ),
    Setting(
        "tools",
        env("TOOLS"),
        parse_list,
        "Which of the built-in tools agents and flows may call: names, `all` or `none`.",
    ),
    Setting(
        "fetch_allow",
        env("FETCH_ALLOW"),
        parse_list,
        "Networks such as `10.0.0.0/8` that tools may fetch from although they are not public.",
    ),
    Setting(
        "command_path",
        env("COMMAND_PATH", "PATH"),
        str,
        "Where the tool `execute_command` looks for programs; nothing else of the environment is given to them.",
    ),
    Setting(
        "mcp_servers",
        env("MCP_SERVERS"),
        str,
        "Servers whose tools agents and flows may call: a JSON file with `mcpServers`, or that JSON itself.",
    ),
    Setting(
        "mcp_connect_timeout_s",
        env("MCP_CONNECT_TIMEOUT_S"),
        seconds,
        "How many seconds such a server may take until it has said which tools it has.",
    ),
    Setting(
        "mcp_timeout_s",
        env("MCP_TIMEOUT_S"),
        seconds,
        "How many seconds a call of such a tool may take, where the server's entry has no `timeout_s`.",
    ),
    Setting(
        "mcp_max_output_bytes",
        env("MCP_MAX_OUTPUT_BYTES"),
        at_least(1000),
        "How much of a tool's output is kept; what is longer is cut off, and says so.",
    ),
    Setting(
        "workspace_dir",
        env("WORKSPACE_DIR"),
        str,
        "A directory in which runs may be given a workspace; without it and mounts, only `workspaces` in the data "
        "directory is used.",
    ),
    Setting(
        "workspace_mounts",
        env("WORKSPACE_MOUNTS"),
        parse_mounts,
        "More such directories, a line `name=/directory` each; lines that begin with `#` are comments.",
    ),
    Setting(
        "client_workspace_scope",
        env("ALLOW_CLIENT_WORKSPACE_SCOPE", "ABSTRACTGATEWAY_TRUST_CLIENT_WORKSPACE_SCOPE"),
        parse_bool,
        "1 lets clients and flows choose any directory as a workspace; only where you trust all of them.",
    ),
    Setting(
        "file_index_ttl_s",
        env("FILE_INDEX_TTL_S"),
        at_least(1),
        "For how many seconds the search for files remembers which there are.",
    ),
    Setting(
        "file_index_max_files",
        env("FILE_INDEX_MAX_FILES"),
        at_least(1000),
        "How many files and directories of a workspace that search looks at.",
    ),
)
