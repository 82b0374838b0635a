"""Tools of servers that speak the Model Context Protocol, over standard input and output or HTTP, as one tool box.

from abstractgateway_mcp import open_tools

servers = McpServers.of({"clock": {"command": "clock-server"}}, os.environ)
tools = open_tools(GatewayConfig(mcp_servers=servers))
tools.connect()
"""

from __future__ import annotations

from .errors import ToolError
from .toolbox import McpTools, open_tools

__all__ = ["McpTools", "ToolError", "open_tools"]
