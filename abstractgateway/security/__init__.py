"""Pure decisions about requests and settings: who may call, from where, and what must not start."""

from __future__ import annotations

from .clients import Proxies, client_key
from .cors import cors_headers, preflight_headers
from .decision import Allow, Deny, Headers, too_many
from .guard import Guard
from .policy import OPEN_PATHS, READS, WRITES, RequestFacts, SecurityPolicy, scope_denial
from .redaction import RedactingFormatter, Redactor
from .scopes import ANYONE, SCOPES, Caller, Scope
from .shares import Shares, Tally
from .startup import StartupProblems, startup_problems
from .tokens import NamedToken, TokenSet, fingerprint

__all__ = [
    "ANYONE",
    "OPEN_PATHS",
    "READS",
    "SCOPES",
    "WRITES",
    "Allow",
    "Caller",
    "Deny",
    "Guard",
    "Headers",
    "NamedToken",
    "Proxies",
    "RedactingFormatter",
    "Redactor",
    "RequestFacts",
    "Scope",
    "SecurityPolicy",
    "Shares",
    "StartupProblems",
    "Tally",
    "TokenSet",
    "client_key",
    "cors_headers",
    "fingerprint",
    "preflight_headers",
    "scope_denial",
    "startup_problems",
    "too_many",
]
