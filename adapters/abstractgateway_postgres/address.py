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
    """A database's URL; `str` shows user, host, port and database only. Raises `Invalid` without showing the URL.

    Of several hosts the one that takes writes is used, whichever that is at the time.
    """

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
        several = {"target_session_attrs": "read-write"} if "," in str(given.get("host") or "") else {}
        self.parameters: dict[str, Any] = {**DEFAULTS, **several, **given, "client_encoding": "utf8"}
        self._password = str(given.get("password") or "")

    def __str__(self) -> str:
        known = self.parameters
        hosts = str(known.get("host") or "the local socket").split(",")
        ports = str(known.get("port") or "5432").split(",")
        places = (f"{host}:{ports[min(number, len(ports) - 1)] or 5432}" for number, host in enumerate(hosts))
        return f"{known.get('user') or 'the default user'}@{','.join(places)}/{known.get('dbname') or ''}"

    def without_password(self, text: str) -> str:
        """Return a text in which the password, should somebody have put it there, is masked."""
        return text.replace(self._password, "***") if self._password else text
