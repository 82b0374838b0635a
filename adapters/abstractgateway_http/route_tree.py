"""Finding the route of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .route import Route

_Here = dict[str, tuple[Route, tuple[str, ...]]]
"""By method: a route that ends at a place, and the names in its path."""


class RouteTree:
    """Routes by the parts of their paths. A part that is written out goes before one in braces."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._named: dict[str, RouteTree] = {}
        self._any: RouteTree | None = None
        self._here: _Here = {}
        for route in routes:
            self._add(route, route.path.split("/"), ())

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the route and the values in its path, or None; HEAD goes with GET."""
        wanted = "GET" if method == "HEAD" else method
        for here, values in self._matching(path.split("/"), 0, ()):
            if wanted in here:
                route, names = here[wanted]
                return route, dict(zip(names, values, strict=True))
        return None

    def methods(self, path: str) -> frozenset[str]:
        """Return the methods that are known at a path; none where nothing is."""
        known = {method for here, _ in self._matching(path.split("/"), 0, ()) for method in here}
        return frozenset(known | {"HEAD"} if "GET" in known else known)

    def _add(self, route: Route, parts: list[str], names: tuple[str, ...]) -> None:
        if not parts:
            self._here[route.method] = (route, names)
        elif parts[0].startswith("{"):
            self._any = self._any or RouteTree()
            self._any._add(route, parts[1:], (*names, parts[0][1:-1]))
        else:
            self._named.setdefault(parts[0], RouteTree())._add(route, parts[1:], names)

    def _matching(self, parts: list[str], at: int, values: tuple[str, ...]) -> Iterator[tuple[_Here, tuple[str, ...]]]:
        """Yield the routes of each place that the parts lead to, with the values of the parts in braces."""
        if at == len(parts):
            yield self._here, values
            return
        part = parts[at]
        if part in self._named:
            yield from self._named[part]._matching(parts, at + 1, values)
        if self._any is not None and part:
            yield from self._any._matching(parts, at + 1, (*values, part))
