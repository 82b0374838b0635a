"""The built-in tools on a workspace of their own, called as a run would call them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from abstractgateway import GatewayConfig
from abstractgateway.compose import builtin_tools, workspace_policy
from abstractgateway.runtime.effects.tools import FunctionTools, ToolContext
from abstractgateway.runtime.models import RunState
from abstractgateway.runtime.signals import Stop
from abstractgateway.stores import open_memory_stores
from abstractgateway.tools.table import BuiltinTools
from abstractgateway.tools.workspace_files import WorkspaceFiles


class StopNow(threading.Event):
    """A `Stop` that tests set."""

    def on_set(self, callback: Any) -> Any:
        raise NotImplementedError


class Desk:
    """A workspace in `top`, and the tools; `call` executes one and returns what it returns or raises what it raises."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.top = directory / "work"
        self.top.mkdir(exist_ok=True)
        self.config = GatewayConfig(
            store_backend="memory",
            data_dir=directory / "data",
            workspace_dir=self.top,
            command_path=os.defpath,
            **settings,
        )
        self.stores = open_memory_stores()
        files = WorkspaceFiles(
            policy=workspace_policy(self.config),
            workspaces_dir=str(directory / "data" / "workspaces"),
            runs=self.stores.runs,
        )
        self.tools: BuiltinTools = builtin_tools(self.config, files, self.stores, FunctionTools({}))
        self.run = RunState.new(workflow_id="w", entry_node="n", session_id="s1", vars={"workspace_root": "."})

    def call(self, name: str, /, *, stop: Stop | None = None, timeout_s: float | None = None, **arguments: Any) -> Any:
        context = ToolContext(self.run, "c1", "k1", timeout_s, stop)
        return self.tools.execute(name, arguments, tool_context=context)

    def put(self, path: str, content: str | bytes = "") -> Path:
        """Make a file, and the directories that lead to it."""
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file
