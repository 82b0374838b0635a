"""A tool that runs a command in the workspace."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.tools import ToolContext
from .process import Limits, ToolFailed, run_command
from .table import BuiltinTool
from .workspace_files import WorkspaceFiles

KEEP_BYTES = 60_000
MOST_OUTPUT_BYTES = 20_000_000
LONGEST_S = 3600
DEFAULT_S = 120
MEMORY_MB, FILE_MB = 4096, 1024
_SHELL_WORDS = frozenset("();<>|&")


class CommandTools:
    """The tool on commands; `path` is where programs are looked for."""

    def __init__(self, files: WorkspaceFiles, path: str) -> None:
        self._files = files
        self._path = path

    def rows(self) -> tuple[BuiltinTool, ...]:
        return (
            BuiltinTool(
                "execute_command",
                "commands",
                "Runs a program in the workspace and returns its exit code and output. Without `shell` the command is "
                "words only: no pipes, redirections or variables.",
                "For what other tools cannot do: building, testing, version control.",
                {
                    "command": {"type": "string", "minLength": 1, "description": "The program and its arguments."},
                    "working_directory": {"type": "string", "description": "Relative to the workspace; default: it."},
                    "timeout": {
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "maximum": LONGEST_S,
                        "description": f"Seconds after which it is killed; default {DEFAULT_S}.",
                    },
                    "shell": {"type": "boolean", "description": "Have /bin/sh interpret the command."},
                },
                self.execute_command,
                optional=("working_directory", "timeout", "shell"),
                examples=({"command": "python -m pytest -q"}, {"command": "ls | wc -l", "shell": True}),
                is_guarded=True,
                is_repeatable=False,
            ),
        )

    def execute_command(
        self,
        context: ToolContext,
        command: str,
        working_directory: str = ".",
        timeout: float = DEFAULT_S,
        shell: bool = False,
    ) -> JsonObject:
        """Run a command: `{exit_code, success, stdout, stderr, truncated}`. Raises `ToolFailed` when it is killed."""
        words = ["/bin/sh", "-c", command] if shell else words_of(command)
        limit_s = timeout if context.timeout_s is None else min(timeout, context.timeout_s)
        limits = Limits(limit_s, memory_mb=MEMORY_MB, file_mb=FILE_MB)
        workspace = self._files.workspace(context.run)
        is_root = working_directory.strip() in ("", ".")
        with workspace.open_directory(working_directory or ".", is_made=is_root) as (directory, _):
            ended = run_command(
                words,
                directory=directory,
                environment=self._environment(workspace.scope.root),
                limits=limits,
                keep_bytes=KEEP_BYTES,
                most_bytes=MOST_OUTPUT_BYTES,
                stop=context.stop,
            )
        if ended.exit_code < 0:
            raise ToolFailed(f"the command was killed by signal {-ended.exit_code}; {_text(ended.stderr)[-500:]}")
        return {
            "exit_code": ended.exit_code,
            "success": ended.exit_code == 0,
            "stdout": _text(ended.stdout),
            "stderr": _text(ended.stderr),
            "truncated": ended.is_cut,
        }

    def _environment(self, home: str) -> Mapping[str, str]:
        """Everything a command is told of the machine; what the gateway knows besides stays with it."""
        return {"PATH": self._path, "HOME": home, "LANG": "C.UTF-8", "TERM": "dumb"}


def words_of(command: str) -> list[str]:
    """Return the words of a command line. Raises `Invalid` where it needs a shell to mean what it says."""
    if "\0" in command:
        raise Invalid("command", "holds a null character")
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise Invalid("command", f"cannot be split into words: {error}") from None
    if not words:
        raise Invalid("command", "is empty")
    odd = next((word for word in words if set(word) <= _SHELL_WORDS), None)
    if odd is None and "\n" in command.strip():
        odd = "a line break"
    if odd is not None:
        raise Invalid("command", f"has {odd!r}, which only a shell understands; quote it, or ask for shell: true")
    return words


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")
