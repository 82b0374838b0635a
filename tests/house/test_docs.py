from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import pages
from tests.house.pages import FENCE, PAGES, SAMPLES, Block
from tests.house.sources import ROOT

LINK = re.compile(r"\]\((?P<target>[^)\s#]+)(?:#[^)\s]*)?\)")


def python_blocks() -> list[Block]:
    return [block for page in PAGES for block in pages.runnable_of(page, "python")]


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.where)
def test_an_example_runs_where_the_sample_bundles_are_in_flows(block: Block, tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    for bundle in SAMPLES.glob("*.flow"):
        shutil.copy(bundle, flows)
    search = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])

    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert finished.returncode == 0, f"{block.where}\n{finished.stdout}{finished.stderr}"


def test_the_readme_has_examples_that_are_run() -> None:
    where = [block.where for block in python_blocks()]

    assert any(place.startswith("README.md:") for place in where)


def test_a_block_marked_no_run_is_left_alone_and_the_others_are_found() -> None:
    page = "text\n```python\nx = 1\n```\n```python no-run\ny = 2\n```\n```bash\nls\n```\n"

    found = pages.runnable(pages.blocks("page.md", page), "python")

    assert [(block.where, block.code) for block in found] == [("page.md:2", "x = 1\n")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [match["target"] for match in LINK.finditer(text)]
    files = [target for target in targets if "://" not in target and not target.startswith("mailto:")]

    missing = [target for target in files if not (page.parent / target).exists()]

    assert not missing


def test_the_generated_pages_say_what_the_code_says() -> None:
    finished = run_script("generate-docs", "--check")

    assert finished.returncode == 0, finished.stderr


def test_the_packed_samples_are_their_directories() -> None:
    finished = run_script("pack-samples", "--check")

    assert finished.returncode == 0, finished.stderr
