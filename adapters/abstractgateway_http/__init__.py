"""The gateway over HTTP and server-sent events, on Werkzeug and waitress."""

from __future__ import annotations

from .app import create_app
from .server import GatewayServer, serve

__all__ = ["GatewayServer", "create_app", "serve"]
