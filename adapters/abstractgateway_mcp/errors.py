"""What can go wrong with a tool of a server, said without any secret."""

from __future__ import annotations

from abstractgateway.errors import GatewayError


class ToolError(GatewayError):
    """A call brought no result: the message says which server and why, for the model that asked for it."""

    code = "mcp_tool_failed"
