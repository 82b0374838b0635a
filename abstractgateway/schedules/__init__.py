"""Schedules: when a workflow is to be run again, as a durable run that starts it each time."""

from __future__ import annotations

from .agenda import KIND, PREFIX, Agenda, definition_of, first_state
from .changes import find_schedule, go_on_after_pause, the_schedule, update_schedule
from .drawing import draw_schedule
from .timing import Timing, check_timing
from .workflow import SeedOf, is_schedule_id, schedule_workflow

__all__ = [
    "KIND",
    "PREFIX",
    "Agenda",
    "SeedOf",
    "Timing",
    "check_timing",
    "definition_of",
    "draw_schedule",
    "find_schedule",
    "first_state",
    "go_on_after_pause",
    "is_schedule_id",
    "schedule_workflow",
    "the_schedule",
    "update_schedule",
]
