"""The only place that picks concrete classes: settings in, a gateway out."""

from __future__ import annotations

from .gateway import open_gateway
from .kernel import build_runtime, knowledge_in
from .models import open_models
from .stores import LOCK_FILE, open_stores
from .tools import builtin_tools, workspace_policy

__all__ = [
    "LOCK_FILE",
    "build_runtime",
    "builtin_tools",
    "knowledge_in",
    "open_gateway",
    "open_models",
    "open_stores",
    "workspace_policy",
]
