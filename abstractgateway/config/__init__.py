"""The settings: one table, and the only reader of the environment.

A row of `SETTINGS` is a setting: its field in `GatewayConfig`, its environment names (the first that is set and not
blank wins), its parser and what it does; the field has the default. The environment, `config status` and the settings
page of the documentation are made from the rows.
"""

from __future__ import annotations

from .gateway import GatewayConfig, default_of
from .mcp_servers import McpServers
from .rows import SETTINGS
from .setting import PREFIX, Setting

__all__ = ["PREFIX", "SETTINGS", "GatewayConfig", "McpServers", "Setting", "default_of"]
