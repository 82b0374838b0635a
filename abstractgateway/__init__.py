"""AbstractGateway: a durable run gateway.

from abstractgateway import GatewayConfig, GatewayService

with GatewayService.open(GatewayConfig(data_dir="runtime", flows_dir="flows")) as gateway:
    run_id = gateway.runs.start(bundle_id="echo", input_data={"prompt": "Hello"})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .config import GatewayConfig
from .errors import Conflict, Denied, GatewayError, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Load the service when it is asked for: whoever wants the kernel or the settings alone does not pay for it."""
    if name == "GatewayService":
        from .service.gateway import GatewayService

        return GatewayService
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
