"""The files of the pages that show every route and try them: ours, and those of Swagger UI where it is installed."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

UI_SCRIPT = "swagger-ui-bundle.js"
UI_STYLE = "swagger-ui.css"
FAVICON = "favicon-32x32.png"


@cache
def asset(name: str) -> bytes:
    """Return one of our own files, which are installed with the adapter."""
    return (files(__package__) / name).read_bytes()


def find_swagger() -> Path | None:
    """Return the directory that has the files of Swagger UI, or None where the extra `docs` is not installed.

    The package is looked for and not imported: nothing but its files is of use here.
    """
    spec = find_spec("swagger_ui_bundle")
    places = (spec and spec.submodule_search_locations) or ()
    candidates = (directory for place in places for directory in sorted(Path(place).glob("vendor/swagger-ui-*")))
    return next(filter(_is_complete, candidates), None)


def _is_complete(directory: Path) -> bool:
    return all((directory / name).is_file() for name in (UI_SCRIPT, UI_STYLE, FAVICON))
