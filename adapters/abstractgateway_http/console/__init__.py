"""The page that shows every route and tries them: three files that are installed with the adapter."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


def page() -> bytes:
    """Return the HTML."""
    return _asset("page.html")


def script() -> bytes:
    """Return the JavaScript."""
    return _asset("page.js")


def style() -> bytes:
    """Return the CSS."""
    return _asset("page.css")


@cache
def _asset(name: str) -> bytes:
    return (files(__package__) / name).read_bytes()
