"""The route table as docs/http.md shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .route import Route

_PLACE = re.compile(r"(<!-- routes: [^\n]*-->\n).*?(<!-- end of routes -->)", re.DOTALL)


def with_route_table(page: str, routes: Sequence[Route]) -> str:
    """Return a page of Markdown with the table between its two `routes` comments renewed."""
    table = "\n".join(["| route | what it does | takes |", "|---|---|---|", *map(_row, routes)])
    return _PLACE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


def _row(route: Route) -> str:
    fields = (*route.query, *(route.body or ()), *route.headers)
    taken = " ".join(f"**`{field.name}`**" if field.required else f"`{field.name}`" for field in fields)
    about = route.summary if route.needs_token else f"{route.summary} Open."
    return f"| `{route.method} {route.path}` | {about} | {taken} |"
