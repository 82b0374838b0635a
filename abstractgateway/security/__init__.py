"""Pure decisions about requests and settings: who may call, from where, and what must not start."""

from __future__ import annotations

from .cors import cors_headers, preflight_headers
from .policy import OPEN_PATHS, Allow, Deny, Headers, RequestFacts, SecurityPolicy
from .startup import StartupProblems, startup_problems

__all__ = [
    "OPEN_PATHS",
    "Allow",
    "Deny",
    "Headers",
    "RequestFacts",
    "SecurityPolicy",
    "StartupProblems",
    "cors_headers",
    "preflight_headers",
    "startup_problems",
]
