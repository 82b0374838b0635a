"""Nodes that read and write files of the run's workspace, as effects that somebody else performs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from ...errors import GatewayError, Invalid
from ...jsonvalue import JsonObject, loads
from ...runtime.models import Effect, EffectOutcome, EffectType, RunState
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import as_object, first_text

PayloadOf = Callable[[Inputs, Step], JsonObject]
Perform = Callable[[RunState, Effect, str | None], EffectOutcome]


class FileAccess(Protocol):
    """The files that runs may reach."""

    def read(self, run: RunState, path: object) -> str:
        """Return the text of a file. Raises a `GatewayError` that says why not."""

    def write(self, run: RunState, path: object, text: str) -> str:
        """Put a text in the place of a file and return the path as the run knows it. Raises a `GatewayError`."""


def read_file(files: FileAccess) -> Perform:
    """Return the handler of the effect `read_file`: payload `file_path`, result `{content}`."""

    def perform(run: RunState, effect: Effect, _next_node: str | None) -> EffectOutcome:
        path = effect.payload.get("file_path")
        try:
            return EffectOutcome.completed({"content": _content(str(path), files.read(run, path))})
        except GatewayError as error:
            return EffectOutcome.failed(f"read_file: {error}")

    return perform


def write_file(files: FileAccess) -> Perform:
    """Return the handler of the effect `write_file`: payload `file_path` and `text`, result `{bytes, file_path}`."""

    def perform(run: RunState, effect: Effect, _next_node: str | None) -> EffectOutcome:
        text = str(effect.payload.get("text", ""))
        try:
            shown = files.write(run, effect.payload.get("file_path"), text)
        except (GatewayError, UnicodeEncodeError) as error:
            return EffectOutcome.failed(f"write_file: {error}")
        return EffectOutcome.completed({"bytes": len(text.encode("utf-8")), "file_path": shown})

    return perform


def _content(path: str, text: str) -> Any:
    """A `.json` file is its value, and so is any other text that is an object or a list."""
    if _is_json(path):
        return loads(text, field=path)
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return loads(text, field=path)
    except Invalid:
        return text


def _is_json(path: str) -> bool:
    return path.strip().lower().endswith(".json")


def _path(node: Node, inputs: Inputs) -> str:
    path = first_text(inputs.get("file_path"), node.data.get("filePath"))
    if path is None:
        raise Invalid("file_path", "is missing: name the file")
    return path


def _read(site: Site) -> PayloadOf:
    return lambda inputs, _step: {"file_path": _path(site.node, inputs)}


def _write(site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        path = _path(site.node, inputs)
        return {"file_path": path, "text": _text(path, inputs.get("content"))}

    return payload


def _text(path: str, content: Any) -> str:
    if _is_json(path):
        value = loads(content, field="content") if isinstance(content, str) else content
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if content is None:
        return ""
    is_container = isinstance(content, (dict, list))
    return json.dumps(content, indent=2, ensure_ascii=False) if is_container else str(content)


def _present(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    return lambda raw, _step: as_object(raw)


TYPES = (
    NodeType(
        "read_file",
        "files",
        Ask(EffectType.READ_FILE, _read, _present, "content"),
        ("file_path",),
        ("content",),
        "Reads a text file of the run's workspace; a `.json` file, or a text that is an object or list, as its value.",
    ),
    NodeType(
        "write_file",
        "files",
        Ask(EffectType.WRITE_FILE, _write, _present, "file_path"),
        ("file_path", "content"),
        ("bytes", "file_path"),
        "Writes a file of the run's workspace as a whole; objects, lists and `.json` files as indented JSON.",
    ),
)
