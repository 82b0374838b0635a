"""Where a database is: a URL that may hold a password, and what may be shown of it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from abstractgateway.errors import Invalid

DEFAULTS = {
    "connect_timeout": 5,
    "application_name": "abstractgateway",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""What libpq is asked for where the URL says nothing: a server that has fallen silent is given up within seconds."""


class Address:
    """A database's URL; `str` shows user, host, port and database only. Raises `Invalid` without showing the URL."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except (psycopg.Error, ValueError):
            given = {}
        ports = str(given.get("port") or "5432").split(",")
        if not given or not all(port.isdecimal() or not port for port in ports):
            raise Invalid(
                "ABSTRACTGATEWAY_DATABASE_URL", "cannot be read; use postgresql://user:password@host:port/database"
            )
        self.parameters: dict[str, Any] = {**DEFAULTS, **given, "client_encoding": "utf8"}
        self._password = str(given.get("password") or "")

    def __str__(self) -> str:
        known = self.parameters
        host, port = known.get("host") or "the local socket", known.get("port") or 5432
        return f"{known.get('user') or 'the default user'}@{host}:{port}/{known.get('dbname') or ''}"

    def without_password(self, text: str) -> str:
        """Return a text in which the password, should somebody have put it there, is masked."""
        return text.replace(self._password, "***") if self._password else text
