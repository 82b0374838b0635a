"""The only place that picks concrete classes: settings in, a gateway out."""

from __future__ import annotations

from .ends import migration_ends, share_artifacts
from .gateway import open_gateway
from .kernel import build_runtime, knowledge_in
from .models import open_models
from .shelf import take_along
from .stores import (
    LOCK_FILE,
    look_at_database,
    open_directory_stores,
    open_stores,
    opened_shelf,
    retention_lock,
    shelf_of,
    shelf_to_read,
    unfinished_mark,
)
from .tools import builtin_tools, workspace_policy

__all__ = [
    "LOCK_FILE",
    "build_runtime",
    "builtin_tools",
    "knowledge_in",
    "look_at_database",
    "migration_ends",
    "open_directory_stores",
    "open_gateway",
    "open_models",
    "open_stores",
    "opened_shelf",
    "retention_lock",
    "share_artifacts",
    "shelf_of",
    "shelf_to_read",
    "take_along",
    "unfinished_mark",
    "workspace_policy",
]
