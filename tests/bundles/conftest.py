from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _echo(flow_id: str) -> dict[str, Any]:
    return {
        "id": flow_id,
        "nodes": [{"id": "s", "type": "on_flow_start", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}}],
        "edges": [],
    }


@pytest.fixture
def manifest() -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        base = {
            "bundle_format_version": "1",
            "bundle_id": "ask",
            "bundle_version": "0.0.1",
            "created_at": "2026-01-08T00:00:00+00:00",
            "entrypoints": [{"flow_id": "root", "name": "root", "description": "desc root", "interfaces": ["i"]}],
            "flows": {"root": "flows/root.json"},
        }
        return {key: value for key, value in {**base, **changes}.items() if value is not ...}

    return make


@pytest.fixture
def pack(tmp_path: Path, manifest: Any) -> Callable[..., Path]:
    """Write a bundle; `members` adds or replaces files."""

    def write(name: str = "ask.flow", members: dict[str, Any] | None = None, **changes: Any) -> Path:
        files: dict[str, Any] = {"manifest.json": manifest(**changes)}
        files.update({path: _echo(flow_id) for flow_id, path in files["manifest.json"].get("flows", {}).items()})
        files.update(members or {})
        target = tmp_path / name
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in files.items():
                archive.writestr(path, content if isinstance(content, (bytes, str)) else json.dumps(content))
        return target

    return write
