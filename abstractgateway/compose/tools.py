"""The tools that agents and flows may call, and the files that these may use."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Protocol

from ..config import GatewayConfig
from ..errors import Unavailable
from ..runtime.effects.tools import NEEDS_APPROVAL, CombinedTools, ToolBox, ToolSource
from ..security.addresses import FetchRules
from ..security.workspace import WorkspacePolicy
from ..stores.base import Stores
from ..tools.attachments import AttachmentTools
from ..tools.commands import CommandTools
from ..tools.fetching import Fetcher, FetchTools
from ..tools.files import FileTools
from ..tools.table import BuiltinTools
from ..tools.workspace_files import WorkspaceFiles

_MCP_TOOLS = "abstractgateway_mcp:open_tools"


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


def joined_tools(tools: ToolBox, mcp_tools: McpToolBox | None) -> ToolBox:
    """Return a program's tools and those of MCP servers as one box.

    What a server says about its tools is its own word, so all of them are guarded.
    """
    if mcp_tools is None:
        return tools
    return CombinedTools([ToolSource("the program", tools), ToolSource("an MCP server", mcp_tools, is_guarded=True)])


def offered_tools(config: GatewayConfig, stores: Stores, own: ToolBox) -> CombinedTools:
    """Return all that agents and flows may call: the gateway's own tools and those of the program."""
    return offered(builtin_tools(config, workspace_files(config, stores), stores, own), own)


def offered(builtin: BuiltinTools, own: ToolBox) -> CombinedTools:
    """Return the gateway's own tools and those of the program as one box."""
    return CombinedTools([ToolSource("the gateway", builtin), ToolSource("the program", own)])


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


def workspace_files(config: GatewayConfig, stores: Stores) -> WorkspaceFiles:
    """Return the files of runs, each in its workspace."""
    return WorkspaceFiles(policy=workspace_policy(config), workspaces_dir=str(workspaces_dir(config)), runs=stores.runs)


def workspace_policy(config: GatewayConfig) -> WorkspacePolicy:
    """Return which directories runs may be given, as the settings say."""
    base = Path(config.workspace_dir).absolute() if config.workspace_dir else None
    named = [*([base] if base else []), *(Path(directory) for _, directory in config.workspace_mounts)]
    workspaces = workspaces_dir(config)
    return WorkspacePolicy(
        roots=tuple(str(directory) for directory in (*named, workspaces)),
        base=str(base or workspaces),
        may_clients_choose=config.client_workspace_scope or config.tool_mode == "local",
    )


def workspaces_dir(config: GatewayConfig) -> Path:
    """Return where runs have workspaces of their own."""
    return Path(config.data_dir).absolute() / "workspaces"
