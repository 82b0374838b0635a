"""The commands `abstractgateway token …`: named tokens with scopes, for whoever need not do everything."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..clock import SystemClock, parse_iso
from ..compose import opened_shelf
from ..config import GatewayConfig
from ..errors import Invalid
from ..security.scopes import SCOPES
from ..service.access import named_tokens
from ..service.tokens import NamedTokens
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DAYS = re.compile(r"(\d{1,5})d\Z")


def add_token_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `token` to a parser."""
    token = commands.add_parser("token", help="make, list and revoke named tokens with scopes")
    kinds = token.add_subparsers(required=True, metavar="what")
    create = kinds.add_parser("create", help="make a token and print it, once")
    create.add_argument("name", help="what it is for; the audit log shows it")
    create.add_argument("--scope", action="append", required=True, choices=SCOPES, help="what it may do; repeatable")
    create.add_argument("--session", help="the only session whose runs it may see and touch")
    create.add_argument("--expires", help="when it stops working: an ISO date or time, or days from now such as 90d")
    create.set_defaults(command=_create)
    listing = kinds.add_parser("list", help="list the tokens, without what they are")
    listing.set_defaults(command=_list)
    revoke = kinds.add_parser("revoke", help="take a token away, for every process of the data directory or database")
    revoke.add_argument("name", help="its name or id")
    revoke.set_defaults(command=_revoke)
    for parser in (create, listing, revoke):
        parser.add_argument("--json", action="store_true", help="print JSON")


@contextmanager
def opened_tokens(config: GatewayConfig) -> Iterator[NamedTokens]:
    """Give the named tokens of the data directory or of the database that the settings name.

    Raises `Unavailable` and `Conflict` for a database that cannot be used now.
    """
    with opened_shelf(config) as shelf:
        yield named_tokens(config, shelf)


def _create(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    expires_at = expiry(arguments.expires, SystemClock().now()) if arguments.expires else None
    with opened_tokens(config) as tokens:
        about, text = tokens.create(
            arguments.name, arguments.scope, session_id=arguments.session, expires_at=expires_at
        )
    if arguments.json:
        show({**about, "token": text})
        return
    print(text)
    print(
        f"This is the token {about['name']!r}; it is shown this once. It may: {', '.join(about['scopes'])}.",
        file=sys.stderr,
    )
    _tell_reach(config)


def _tell_reach(config: GatewayConfig) -> None:
    """Say whom a change concerns where that is not only the processes of this data directory."""
    if config.store_backend == "postgres":
        print("Every gateway of the database knows within two seconds.", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> None:
    with opened_tokens(GatewayConfig.from_env()) as named:
        tokens = named.listed()
    if arguments.json:
        show(tokens)
        return
    if not tokens:
        print("there is no named token; make one with: abstractgateway token create", file=sys.stderr)
    for token in tokens:
        until = f"until {token['expires_at']}" if token["expires_at"] else "for good"
        state = "expired" if token["expired"] else until
        session = f" session {token['session_id']}" if token["session_id"] else ""
        print(f"{token['id']}  {token['name']:<24} {','.join(token['scopes'])}{session}  {state}")


def _revoke(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    with opened_tokens(config) as tokens:
        about = tokens.revoke(arguments.name)
    if arguments.json:
        show(about)
    else:
        print(f"The token {about['name']!r} is revoked.")
        _tell_reach(config)


def expiry(text: str, now: datetime) -> datetime:
    """Return the time that `--expires` names; a bare date is its first moment in UTC. Raises `Invalid`."""
    days = _DAYS.match(text.strip())
    with suppress(OverflowError):
        return now + timedelta(days=int(days[1])) if days else parse_iso(text, field="expires")
    raise Invalid("expires", f"{text!r} is beyond the years that there are")
