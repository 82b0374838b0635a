from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.house import sources
from tests.house.sources import LIBRARY, ROOT, Source

FLOORS = (
    "_version",
    "errors",
    "clock",
    "measures",
    "jsonvalue",
    "ids",
    "config",
    "runtime",
    "schedules",
    "stores",
    "knowledge",
    "visualflow",
    "bundles",
    "hosts",
    "security",
    "tools",
    "runner",
    "service",
    "compose",
    "testing",
    "client",
    "cli",
    "__main__",
)
DOORS_FOR_ADAPTERS = ("", "errors", "config", "security", "service", "jsonvalue", "clock", "ids", "measures")
THIRD_PARTY_OF_ADAPTERS = {
    "abstractgateway_http": ("werkzeug", "waitress"),
    "abstractgateway_llm": ("urllib3",),
    "abstractgateway_mcp": ("mcp", "anyio", "httpx2"),
    "abstractgateway_postgres": ("psycopg",),
}
MORE_DOORS = {"abstractgateway_postgres": ("stores", "runtime", "runner")}
"""A backend of the stores implements their ports, and how runners share it; what crosses those is the kernel's."""
OUTSIDE_THE_KERNEL = frozenset(
    {
        "asyncio",
        "concurrent",
        "fcntl",
        "glob",
        "http",
        "io",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "urllib",
        "wsgiref",
    }
)

KERNEL_THREADS = frozenset({"abstractgateway.runtime.driving", "abstractgateway.runtime.scheduler"})
"""The Scheduler of AbstractRuntime's examples is a polling thread by contract; that no run is advanced by it and by the
program's own threads at once is what `driving` sees to. Nothing else of the kernel knows of threads."""


def imported(source: Source, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Return line and absolute module name of every import, also of those inside functions."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = origin(source, node)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield node.lineno, submodule if submodule in modules else base


def origin(source: Source, node: ast.ImportFrom) -> str:
    """Return the absolute name of the module that a from-import takes names of."""
    if node.level == 0:
        return node.module or ""
    package = source.module.split(".") if source.is_package else source.module.split(".")[:-1]
    ancestors = package[: len(package) - node.level + 1]
    return ".".join([*ancestors, node.module] if node.module else ancestors)


def floor(module: str) -> str:
    """Return the part of the house that a library module belongs to; the package itself is ''."""
    return (module.split(".") + [""])[1]


def library_offence(source: Source, target: str) -> str | None:
    """Say why a library module may not import `target`, or return None."""
    top = target.partition(".")[0]
    if top != LIBRARY:
        if top not in sys.stdlib_module_names:
            return f"{target} is not in the standard library"
        if source.module in KERNEL_THREADS and top == "threading":
            return None
        if floor(source.module) == "runtime" and top in OUTSIDE_THE_KERNEL:
            return f"{target}: the kernel knows nothing of files, sockets, threads or HTTP"
        return None
    here, there = floor(source.module), floor(target)
    if here == "":
        return None
    if there == "":
        return f"{target}: only the parts of the package may be imported, not the package"
    if here not in FLOORS or there not in FLOORS:
        return f"{here if here not in FLOORS else there} is not a part of the house"
    return None if FLOORS.index(there) <= FLOORS.index(here) else f"{target} lies above {here}"


def adapter_offence(source: Source, target: str) -> str | None:
    """Say why an adapter module may not import `target`, or return None."""
    adapter, top = source.module.partition(".")[0], target.partition(".")[0]
    if top == LIBRARY:
        doors = (*DOORS_FOR_ADAPTERS, *MORE_DOORS.get(adapter, ()))
        return None if floor(target) in doors else f"{target} is not a door for adapters"
    if target == "_typeshed.wsgi":  # the types of WSGI, which exist for the type checker only
        return None
    if top == adapter or top in sys.stdlib_module_names or top in THIRD_PARTY_OF_ADAPTERS.get(adapter, ()):
        return None
    return f"{target} is not a dependency of {adapter}"


def offences(source: Source, modules: frozenset[str]) -> list[str]:
    rule = library_offence if source.module.partition(".")[0] == LIBRARY else adapter_offence
    found = ((line, rule(source, target)) for line, target in imported(source, modules))
    return [f"{source.name}:{line}: {why}" for line, why in found if why]


def all_modules() -> frozenset[str]:
    return frozenset(source.module for source in sources.product())


def test_every_import_points_down_the_house() -> None:
    modules = all_modules()

    found = [offence for source in sources.product() for offence in offences(source, modules)]

    assert not found, sources.report(found)


def test_every_module_of_the_library_is_a_part_of_the_house() -> None:
    floors = {floor(source.module) for source in sources.library()} - {""}

    assert floors <= set(FLOORS), f"not in the house: {sorted(floors - set(FLOORS))}"


def test_every_adapter_says_what_it_depends_on() -> None:
    tops = {source.module.partition(".")[0] for source in sources.adapters()}

    assert tops <= set(THIRD_PARTY_OF_ADAPTERS)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("abstractgateway/runtime/walk.py", "from ..stores import base"),
        ("abstractgateway/runtime/walk.py", "from .. import stores"),
        ("abstractgateway/runtime/walk.py", "import abstractgateway.stores.base"),
        ("abstractgateway/runtime/walk.py", "def late() -> None:\n    from ..runner import loop"),
        ("abstractgateway/runtime/walk.py", "import threading"),
        ("abstractgateway/runtime/__init__.py", "from ..config import x\nfrom os import path"),
        ("abstractgateway/errors.py", "from .clock import Clock"),
        ("abstractgateway/service/runs.py", "import abstractgateway"),
        ("abstractgateway/service/runs.py", "from abstractgateway import GatewayService"),
        ("abstractgateway/service/runs.py", "import werkzeug"),
        ("abstractgateway/service/runs.py", "from abstractgateway_http import server"),
        ("abstractgateway/cellar/wine.py", "from ..errors import Invalid"),
        ("adapters/abstractgateway_http/app.py", "from abstractgateway.stores import sqlite"),
        ("adapters/abstractgateway_http/app.py", "import yaml"),
        ("adapters/abstractgateway_http/app.py", "import abstractgateway_postgres"),
    ],
)
def test_an_arrow_that_the_house_does_not_have_is_found(path: str, code: str) -> None:
    base = ROOT / "adapters" if path.startswith("adapters/") else ROOT
    source = sources.parsed(ROOT / path, base, code)
    modules = all_modules() | {"abstractgateway.stores", "abstractgateway.runner"}

    found = offences(source, modules)

    assert len(found) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("abstractgateway/__init__.py", "from .service import GatewayService\nfrom .config import GatewayConfig"),
        ("abstractgateway/config.py", "import os\nfrom .errors import Invalid"),
        ("abstractgateway/service/runs.py", "from .. import errors\nfrom . import ledger\nfrom ..runner import loop"),
        ("abstractgateway/stores/sqlite.py", "import sqlite3\nfrom ..runtime.models import RunState"),
        ("adapters/abstractgateway_http/app.py", "from abstractgateway import GatewayService\nimport werkzeug.routing"),
        ("adapters/abstractgateway_http/app.py", "from abstractgateway.errors import NotFound\nfrom . import routes"),
    ],
)
def test_an_arrow_that_the_house_has_is_let_through(path: str, code: str) -> None:
    base = ROOT / "adapters" if path.startswith("adapters/") else ROOT
    source = sources.parsed(ROOT / path, base, code)

    found = offences(source, all_modules())

    assert found == []
