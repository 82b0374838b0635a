"""Tools that read and write files of the workspace. What they return is text, made to be read by a model."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ..errors import GatewayError, Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.tools import ToolContext
from .process import run_task
from .table import BuiltinTool
from .workspace_files import Workspace, WorkspaceFiles

MOST_SHOWN_CHARS = 100_000
"""How much text one call returns; what is longer says how to go on."""
MOST_SCANNED_BYTES = 64_000_000
"""How far into a file a range of lines is looked for."""
MOST_LISTED = 500
MOST_HITS = 200
MOST_SEARCHED_BYTES = 100_000_000
MOST_PATHS = 20
_MOST_PARSED_BYTES = 1_000_000
_SAMPLE_BYTES = 8_000

_PATH: JsonObject = {"type": "string", "description": "Path of a file, relative to the workspace."}
_FOLDER: JsonObject = {"type": "string", "description": "Path of a directory, relative to the workspace; default: all."}
_LINE: JsonObject = {"type": "integer", "minimum": 1, "description": "Number of a line, from 1."}
_PATHS: JsonObject = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": MOST_PATHS,
    "description": "Paths relative to the workspace.",
}


class FileTools:
    """The tools on the workspaces of runs."""

    def __init__(self, files: WorkspaceFiles) -> None:
        self._files = files

    def rows(self) -> tuple[BuiltinTool, ...]:
        return (*_listing(self), *_showing(self), *_writing(self))

    def list_files(
        self, context: ToolContext, directory_path: str = ".", pattern: str = "*", recursive: bool = False
    ) -> str:
        """List what lies in a directory, with sizes; `pattern` is a glob for names."""
        levels = 30 if recursive else 1
        found = [
            f"{entry.path}/" if entry.is_directory else f"{entry.path}  ({_size(entry.size)})"
            for entry in self._workspace(context).walk(directory_path, levels=levels)
            if fnmatch.fnmatchcase(entry.name, pattern)
        ]
        return _printable(_listed(found, MOST_LISTED, "entries", "narrow it with directory_path or pattern"))

    def skim_folders(self, context: ToolContext, paths: list[str], depth: int = 2) -> str:
        """Show the directories below some, as a tree with counts of files."""
        workspace = self._workspace(context)
        shown: list[str] = []
        for path in paths:
            shown.append(f"{path}:")
            for entry in workspace.walk(path, levels=depth):
                name = f"{entry.name}/" if entry.is_directory else f"{entry.name}  ({_size(entry.size)})"
                shown.append("  " * entry.level + name)
        return _printable(_listed(shown, MOST_LISTED, "lines", "ask for fewer paths or less depth"))

    def read_file(self, context: ToolContext, file_path: str, start_line: int = 1, end_line: int | None = None) -> str:
        """Show the lines of a text file, numbered."""
        with self._workspace(context).open_file(file_path) as (file, shown):
            return numbered_lines(shown, file, start_line, end_line)

    def skim_files(
        self,
        context: ToolContext,
        paths: list[str],
        target_percent: float = 8.0,
        head_lines: int = 25,
        tail_lines: int = 25,
    ) -> str:
        """Show the first and last lines of files, and some of those between."""
        workspace = self._workspace(context)
        return "\n\n".join(_skimmed(workspace, path, target_percent, head_lines, tail_lines) for path in paths)

    def search_files(
        self,
        context: ToolContext,
        pattern: str,
        path: str = ".",
        file_pattern: str = "*",
        case_sensitive: bool = False,
    ) -> str:
        """Show the lines that a regular expression matches; it is given up when it takes too long."""
        request = {"pattern": pattern, "is_case_sensitive": case_sensitive, "most": MOST_HITS}
        content = _contents(self._workspace(context), path, file_pattern)
        answer = run_task("search", request, content, context.stop)
        lines = [f"{hit[0]}:{hit[1]}: {hit[2]}" for hit in answer["hits"]]
        if answer["is_cut"]:
            lines.append(f"… more than {MOST_HITS} lines match; use a narrower pattern or path")
        return "\n".join(lines) or f"no line of {answer['files']} files matches"

    def analyze_code(self, context: ToolContext, file_path: str) -> str:
        """Show the classes and functions of a Python file with their lines; of others, the lines that begin at 0."""
        content, shown = self._workspace(context).read_bytes(file_path, _MOST_PARSED_BYTES)
        if shown.endswith((".py", ".pyi")):
            lines = run_task("outline", {}, (content,), context.stop)["lines"]
        else:
            numbered = enumerate(content.decode("utf-8", "replace").splitlines(), start=1)
            lines = [f"{number}: {line[:200]}" for number, line in numbered if line[:1].isalpha() or line[:1] == "#"]
        return _listed([f"{shown}:", *lines], MOST_LISTED, "lines", "read the file by ranges of lines")

    def write_file(self, context: ToolContext, file_path: str, content: str) -> str:
        """Write a file as a whole; directories that are missing are made."""
        shown = self._workspace(context).write_text(file_path, content)
        return f"wrote {len(content.encode())} bytes to {shown}"

    def edit_file(
        self,
        context: ToolContext,
        file_path: str,
        new_text: str,
        old_text: str | None = None,
        replace_all: bool = False,
        start_line: int | None = None,
        end_line: int | None = None,
    ) -> str:
        """Replace a text that a file has once, or a range of its lines."""
        workspace = self._workspace(context)
        text, shown = workspace.read_text(file_path)
        if old_text is not None and start_line is None and end_line is None:
            edited, count = _replaced(text, shown, old_text, new_text, replace_all)
        elif old_text is None and start_line is not None:
            edited, count = _with_lines(text, shown, start_line, end_line or start_line, new_text), 1
        else:
            raise Invalid("old_text", "give either old_text, or start_line and end_line")
        if edited == text:
            raise Invalid("new_text", f"would leave {shown!r} as it is")
        workspace.write_text(file_path, edited)
        return f"replaced {count} {'place' if count == 1 else 'places'} in {shown}"

    def _workspace(self, context: ToolContext) -> Workspace:
        return self._files.workspace(context.run)


def _size(size: int) -> str:
    return f"{size:,} bytes"


def _printable(text: str) -> str:
    """A file name need not be text; what is not is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _listed(lines: list[str], most: int, what: str, advice: str) -> str:
    if len(lines) > most:
        lines = [*lines[:most], f"… {len(lines) - most} more {what}; {advice}"]
    return _short("\n".join(lines), advice) or "nothing there"


def _short(text: str, advice: str) -> str:
    return text if len(text) <= MOST_SHOWN_CHARS else f"{text[:MOST_SHOWN_CHARS]}\n… cut off; {advice}"


def numbered_lines(shown: str, file: IO[bytes], start: int, end: int | None) -> str:
    """Return lines `start` to `end` of a text with their numbers, as far as one call returns them.

    Of a line that is longer than that only the beginning is shown.
    """
    if end is not None and end < start:
        raise Invalid("end_line", f"{end} is less than start_line, {start}")
    lines: list[str] = []
    number = size = scanned = 0
    is_whole = True
    while scanned < MOST_SCANNED_BYTES and (line := file.readline(MOST_SHOWN_CHARS)):
        is_rest, is_whole = not is_whole, line.endswith(b"\n")
        number, scanned = number + (not is_rest), scanned + len(line)
        if b"\0" in line:
            raise Invalid("file_path", f"{shown!r} is no text")
        if number < start or is_rest:
            continue
        if end is not None and number > end:
            break
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        size += len(text)
        if size > MOST_SHOWN_CHARS and lines:
            return f"{_head(shown, lines, start)}\n… cut off; go on with start_line={number}"
        lines.append(f"{number}: {text}")
    if scanned >= MOST_SCANNED_BYTES:
        raise Invalid("file_path", f"{shown!r} has more than {MOST_SCANNED_BYTES} bytes; only its beginning is shown")
    if not lines and start > 1:
        raise Invalid("start_line", f"{start} is beyond the end of {shown!r}, which has {number} lines")
    return _head(shown, lines, start if start > 1 or end is not None else None)


def _head(shown: str, lines: list[str], start: int | None) -> str:
    what = f"{len(lines)} lines" if start is None else f"lines {start} to {start + len(lines) - 1}"
    return "\n".join([f"File: {shown} ({what})", "", *lines])


def _skimmed(workspace: Workspace, path: str, percent: float, head: int, tail: int) -> str:
    """A file that cannot be shown says why, in the place of its lines."""
    try:
        content, shown = workspace.read_bytes(path)
    except GatewayError as error:
        return f"File: {path}\n\nError: {error}"
    return sampled_lines(shown, content, percent, head, tail)


def sampled_lines(shown: str, content: bytes, percent: float, head: int, tail: int) -> str:
    """Return the first and last lines of a text with their numbers, and about `percent` of those between."""
    if b"\0" in content[:_SAMPLE_BYTES]:
        return f"File: {shown} ({len(content)} bytes, no text)"
    lines = content.decode("utf-8", "replace").splitlines()
    middle = range(head, max(head, len(lines) - tail))
    step = max(1, round(100 / percent))
    chosen = [*range(min(head, len(lines))), *middle[::step], *range(max(head, len(lines) - tail), len(lines))]
    picked = [f"{number + 1}: {lines[number][:400]}" for number in chosen]
    return _short("\n".join([f"File: {shown} ({len(lines)} lines)", "", *picked]), "ask for fewer lines")


def _contents(workspace: Workspace, path: str, file_pattern: str) -> Iterator[bytes]:
    """Return the text files below a path, or the one at it, in the form that the search reads."""
    left = MOST_SEARCHED_BYTES
    for name in _searched(workspace, path, file_pattern):
        try:
            content, shown = workspace.read_bytes(name)
        except GatewayError:
            continue  # it is too large, or went, since it was listed
        left -= len(content)
        if left < 0:
            return
        if b"\0" not in content[:_SAMPLE_BYTES]:
            yield json.dumps({"path": _printable(shown), "size": len(content)}).encode() + b"\n"
            yield from (content,) if content else ()


def _searched(workspace: Workspace, path: str, file_pattern: str) -> Iterable[str]:
    try:
        with workspace.open_file(path):
            return [path]
    except Invalid:  # a directory
        pass
    entries = workspace.walk(path)
    return (item.path for item in entries if not item.is_directory and fnmatch.fnmatchcase(item.name, file_pattern))


def _replaced(text: str, shown: str, old: str, new: str, replace_all: bool) -> tuple[str, int]:
    count = text.count(old) if old else 0
    if count == 0:
        raise Invalid("old_text", f"does not occur in {shown!r}" if old else "is empty")
    if count > 1 and not replace_all:
        raise Invalid("old_text", f"occurs {count} times in {shown!r}; give more of its surroundings, or replace_all")
    return text.replace(old, new), count


def _with_lines(text: str, shown: str, start: int, end: int, new: str) -> str:
    lines = text.splitlines(keepends=True)
    if end < start or end > len(lines):
        raise Invalid("end_line", f"{end} is not between start_line, {start}, and {len(lines)}, the end of {shown!r}")
    ending = "" if not new or new.endswith("\n") or end == len(lines) else "\n"
    return "".join([*lines[: start - 1], new + ending, *lines[end:]])


def _listing(tools: FileTools) -> tuple[BuiltinTool, ...]:
    return (
        BuiltinTool(
            "list_files",
            "files",
            "Lists the files and directories of the workspace, with sizes.",
            "To find out what there is, before reading.",
            {
                "directory_path": _FOLDER,
                "pattern": {"type": "string", "description": "Glob for names, such as *.py; default: all."},
                "recursive": {"type": "boolean", "description": "Whether directories below are listed too."},
            },
            tools.list_files,
            optional=("directory_path", "pattern", "recursive"),
            examples=({"directory_path": "src", "pattern": "*.py", "recursive": True},),
        ),
        BuiltinTool(
            "skim_folders",
            "files",
            "Shows directories as a tree.",
            "For an overview of a project.",
            {
                "paths": _PATHS,
                "depth": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How many levels; default 2."},
            },
            tools.skim_folders,
            optional=("depth",),
            examples=({"paths": ["."]},),
        ),
    )


def _showing(tools: FileTools) -> tuple[BuiltinTool, ...]:
    return (
        BuiltinTool(
            "analyze_code",
            "files",
            "Shows the classes and functions of a source file with their lines.",
            "Before reading or editing a long source file, to find the right lines.",
            {"file_path": _PATH},
            tools.analyze_code,
            examples=({"file_path": "src/main.py"},),
        ),
        BuiltinTool(
            "read_file",
            "files",
            "Shows a text file, or some of its lines, with line numbers.",
            "When you need exactly what a file says.",
            {"file_path": _PATH, "start_line": _LINE, "end_line": _LINE},
            tools.read_file,
            optional=("start_line", "end_line"),
            examples=({"file_path": "notes.txt", "start_line": 1, "end_line": 40},),
        ),
        BuiltinTool(
            "skim_files",
            "files",
            "Shows the beginning, the end and some lines between of text files.",
            "To judge whether files matter, without reading them as a whole.",
            {
                "paths": _PATHS,
                "target_percent": {
                    "type": "number",
                    "minimum": 1,
                    "maximum": 25,
                    "description": "How much of the middle is shown, in percent; default 8.",
                },
                "head_lines": {"type": "integer", "minimum": 0, "maximum": 500, "description": "Default 25."},
                "tail_lines": {"type": "integer", "minimum": 0, "maximum": 500, "description": "Default 25."},
            },
            tools.skim_files,
            optional=("target_percent", "head_lines", "tail_lines"),
            examples=({"paths": ["README.md"]},),
        ),
        BuiltinTool(
            "search_files",
            "files",
            "Shows the lines of files that a regular expression matches.",
            "To find where something is said or used.",
            {
                "pattern": {"type": "string", "minLength": 1, "description": "A Python regular expression, per line."},
                "path": {"type": "string", "description": "A file or directory of the workspace; default: all."},
                "file_pattern": {"type": "string", "description": "Glob for file names; default: all."},
                "case_sensitive": {"type": "boolean", "description": "Default false."},
            },
            tools.search_files,
            optional=("path", "file_pattern", "case_sensitive"),
            examples=({"pattern": "def \\w+", "file_pattern": "*.py"},),
        ),
    )


def _writing(tools: FileTools) -> tuple[BuiltinTool, ...]:
    text: dict[str, Any] = {"type": "string"}
    return (
        BuiltinTool(
            "write_file",
            "files",
            "Writes a file as a whole; an old one is replaced.",
            "For a new file, or when most of an old one changes.",
            {"file_path": _PATH, "content": {**text, "description": "The whole text of the file."}},
            tools.write_file,
            examples=({"file_path": "notes.txt", "content": "hello\n"},),
            is_guarded=True,
            is_repeatable=False,
        ),
        BuiltinTool(
            "edit_file",
            "files",
            "Replaces a text that occurs once in a file, or a range of its lines.",
            "To change part of a file.",
            {
                "file_path": _PATH,
                "new_text": {**text, "description": "What takes the place."},
                "old_text": {**text, "description": "The exact text to replace; it has to occur once."},
                "replace_all": {"type": "boolean", "description": "Replace every occurrence of old_text."},
                "start_line": {**_LINE, "description": "First line to replace, in place of old_text."},
                "end_line": {**_LINE, "description": "Last line to replace; default: start_line."},
            },
            tools.edit_file,
            optional=("old_text", "replace_all", "start_line", "end_line"),
            examples=({"file_path": "notes.txt", "old_text": "hello", "new_text": "good morning"},),
            is_guarded=True,
            is_repeatable=False,
        ),
    )
