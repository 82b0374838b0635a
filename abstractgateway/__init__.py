"""AbstractGateway: a durable run gateway.

from abstractgateway import GatewayConfig, GatewayService

with GatewayService.open(GatewayConfig(data_dir="runtime", flows_dir="flows")) as gateway:
    run_id = gateway.runs.start(bundle_id="echo", input_data={"prompt": "Hello"})
"""

from __future__ import annotations

from ._version import __version__
from .config import GatewayConfig
from .errors import Conflict, Denied, GatewayError, Invalid, NotFound, Unavailable
from .service.gateway import GatewayService

__all__ = [
    "Conflict",
    "Denied",
    "GatewayConfig",
    "GatewayError",
    "GatewayService",
    "Invalid",
    "NotFound",
    "Unavailable",
    "__version__",
]
