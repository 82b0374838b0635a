"""The smallest form of the measurements over HTTP: they all find figures."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.house.sources import ROOT

RESTART = ("20 waiting runs: serve to first command applied, s",)
EVERYTHING = (
    *RESTART,
    "append + fdatasync/s",
    "packages",
    "import abstractgateway, ms",
    "serve to first 200, s",
    "start to completed, p50 ms",
    "200 runs at once, completed/s",
    "answer to completed, p50 ms",
    "the same with the runner apart, p50 ms",
    "GET run/s",
    "tail page of 200 records, p50 ms",
    "5 streams: health p99, ms",
    "record to 5: last receipt p99, ms",
    "5 streams, a run each: idle CPU, %",
)
ALL_BUT_LOOPS = "weight,starting,latency,throughput,resume,requests,tail,streams,restart"


@pytest.mark.parametrize(
    ("backend", "chosen", "wanted"), [("file", ALL_BUT_LOOPS, EVERYTHING), ("sqlite", "restart", RESTART)]
)
def test_every_measurement_prints_its_figures(backend, chosen, wanted):
    command = [sys.executable, str(ROOT / "scripts" / "bench"), "--small", "--only", chosen, "--backends", backend]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=180)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in wanted:
        assert re.search(rf"^{re.escape(name)} +-?[\d,]+(\.\d+)?$", ran.stdout, re.MULTILINE), f"{name}\n{ran.stdout}"


def test_an_unknown_measurement_is_refused():
    command = [sys.executable, str(ROOT / "scripts" / "bench"), "--only", "latency,weather"]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 2
    assert "unknown: weather" in ran.stderr
