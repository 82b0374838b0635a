"""Finding the route of a request quickly; what is not found here is left to Werkzeug, which says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .route import Route


class RouteTree:
    """Routes by the parts of their paths. A part that is written out goes before one in braces."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._named: dict[str, RouteTree] = {}
        self._any: RouteTree | None = None
        self._here: dict[str, tuple[Route, tuple[str, ...]]] = {}
        for route in routes:
            self._add(route, route.path.split("/"), ())

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the route and the values in its path, or None; HEAD goes with GET."""
        found = self._walk("GET" if method == "HEAD" else method, path.split("/"), 0, ())
        return (found[0], dict(zip(found[1], found[2], strict=True))) if found is not None else None

    def _add(self, route: Route, parts: list[str], names: tuple[str, ...]) -> None:
        if not parts:
            self._here[route.method] = (route, names)
        elif parts[0].startswith("{"):
            self._any = self._any or RouteTree()
            self._any._add(route, parts[1:], (*names, parts[0][1:-1]))
        else:
            self._named.setdefault(parts[0], RouteTree())._add(route, parts[1:], names)

    def _walk(
        self, method: str, parts: list[str], at: int, values: tuple[str, ...]
    ) -> tuple[Route, tuple[str, ...], tuple[str, ...]] | None:
        if at == len(parts):
            here = self._here.get(method)
            return (*here, values) if here is not None else None
        part = parts[at]
        named = self._named.get(part)
        found = named._walk(method, parts, at + 1, values) if named is not None else None
        if found is None and self._any is not None and part:
            return self._any._walk(method, parts, at + 1, (*values, part))
        return found
