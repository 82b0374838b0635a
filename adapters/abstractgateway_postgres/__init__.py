"""Stores in a PostgreSQL database, which several gateways on several machines may share."""

from __future__ import annotations

from .stores import PostgresStores, open_postgres_stores

__all__ = ["PostgresStores", "open_postgres_stores"]
