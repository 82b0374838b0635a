from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.house.sources import LIBRARY, ROOT

NOT_AT_IMPORT = frozenset({"werkzeug", "waitress", "sqlite3", "asyncio"})
PROGRAM = """\
import json, sys
sys.path[:0] = {paths!r}
before = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(statement: str) -> frozenset[str]:
    """Return the top-level names of the modules that a statement loads in a fresh interpreter."""
    program = PROGRAM.format(paths=[str(ROOT), str(ROOT / "adapters")], statement=statement)
    finished = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return frozenset(name.partition(".")[0] for name in json.loads(finished.stdout))


def foreign(tops: frozenset[str]) -> frozenset[str]:
    """Return the names that are neither the library nor of the standard library."""
    return tops - {LIBRARY} - sys.stdlib_module_names


@pytest.mark.parametrize(
    "statement",
    [
        "import abstractgateway",
        "from abstractgateway import GatewayConfig, GatewayService",
        "import abstractgateway.cli",
        "from abstractgateway.testing import GatewayHarness, ScriptedModel",
        "from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores",
    ],
)
def test_the_library_loads_nothing_outside_the_standard_library(statement: str) -> None:
    tops = loaded_by(statement)

    assert LIBRARY in tops
    assert not foreign(tops)


def test_importing_the_package_loads_no_server_no_database_and_no_event_loop() -> None:
    tops = loaded_by("import abstractgateway")

    assert not tops & NOT_AT_IMPORT


def test_a_module_from_elsewhere_is_seen() -> None:
    tops = loaded_by("import pytest")

    assert "pytest" in foreign(tops)
