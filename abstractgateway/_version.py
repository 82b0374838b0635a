"""The version, in the one place that the package, the wheel and the HTTP schema read it from."""

from __future__ import annotations

__version__ = "0.3.0"
