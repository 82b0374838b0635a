from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.house import pages
from tests.house.pages import SAMPLES
from tests.house.sources import ROOT

TOKEN = "walk-through-token-of-the-test-suite"
ADDRESS_IN_THE_PAGES = "http://127.0.0.1:8080"
SEARCH = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("curl") is None, reason="the pages use bash and curl"
)


@contextmanager
def served(backend: str, data_dir: Path) -> Iterator[str]:
    """Serve the sample bundles on a free port of loopback, and give the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "PYTHONPATH": SEARCH,
        "ABSTRACTGATEWAY_AUTH_TOKEN": TOKEN,
        "ABSTRACTGATEWAY_FLOWS_DIR": str(SAMPLES),
        "ABSTRACTGATEWAY_DATA_DIR": str(data_dir),
        "ABSTRACTGATEWAY_STORE_BACKEND": backend,
    }
    command = [sys.executable, "-m", "abstractgateway", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, **settings}) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def walk(page: Path, address: str) -> str:
    """Run the bash blocks of a page, in order and in one shell, and return what they print."""
    until_it_serves = f"curl -sS -o /dev/null --retry 8 --retry-delay 1 --retry-connrefused {address}/api/health\n"
    steps = "\n".join(block.code for block in pages.runnable_of(page, "bash"))
    script = "set -euo pipefail\n" + until_it_serves + steps.replace(ADDRESS_IN_THE_PAGES, address)
    finished = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "ABSTRACTGATEWAY_AUTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_the_walk_through_of_getting_started_works_as_written(backend: str, tmp_path: Path) -> None:
    with served(backend, tmp_path) as address:
        printed = walk(ROOT / "docs" / "getting-started.md", address)

    expected = (
        '{"status":"healthy","service":"abstractgateway"}',
        '"bundle_ref":"ask@0.1.0"',
        "Hello, World",
        "user:",
        '{"accepted":true,"duplicate":false,"seq":1}',
        '{"accepted":false,"duplicate":true,"seq":1}',
        "You answered: Bob",
        "event: done",
        '"status":"cancelled"',
    )
    assert [text for text in expected if text not in printed] == [], printed
    assert printed.count("id: 1\n") == 1
    assert printed.count("id: 4\n") == 3


def test_the_walk_through_of_the_readme_works_as_written(tmp_path: Path) -> None:
    with served("file", tmp_path) as address:
        printed = walk(ROOT / "README.md", address)

    assert "Who is there?" in printed
    assert "You answered: Bob" in printed
    assert '"next_after":5' in printed
