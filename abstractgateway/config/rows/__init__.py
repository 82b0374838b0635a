"""The rows of the settings table, by what they are about."""

from __future__ import annotations

from ..setting import Setting
from . import access, audit, models, on_request, operations, running, storage, tools

SETTINGS: tuple[Setting, ...] = (
    *storage.ROWS,
    *running.ROWS,
    *models.ROWS,
    *on_request.ROWS,
    *tools.ROWS,
    *access.ROWS,
    *audit.ROWS,
    *operations.ROWS,
)
