"""The command `abstractgateway completion`: a script that completes command lines, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_BASH = """\
_abstractgateway() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} path="" at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$path ${{COMP_WORDS[at]}}" in
            {paths}) path="$path ${{COMP_WORDS[at]}}" ;;
        esac
    done
    case "$path" in
{cases}
    esac
    [ ${{#COMPREPLY[@]}} -gt 0 ] || compopt -o default
}}
complete -F _abstractgateway abstractgateway
"""
_BASH_CASE = """        "{path}") COMPREPLY=($(compgen -W "{words}" -- "$word")) ;;"""

_ZSH = """\
#compdef abstractgateway
_abstractgateway() {{
    local path="" at
    for ((at = 2; at < CURRENT; at++)); do
        case "$path $words[at]" in
            {paths}) path="$path $words[at]" ;;
        esac
    done
    case "$path" in
{cases}
    esac
    _files
}}
compdef _abstractgateway abstractgateway
"""
_ZSH_CASE = """        "{path}") compadd -- {words} ;;"""

SHELLS = {"bash": (_BASH, _BASH_CASE), "zsh": (_ZSH, _ZSH_CASE)}


def add_completion_command(
    commands: _SubParsersAction[argparse.ArgumentParser], parser: argparse.ArgumentParser
) -> None:
    """Add `completion`, which knows every command of `parser`."""
    completion = commands.add_parser("completion", help="print a script that completes command lines in a shell")
    completion.add_argument("shell", choices=sorted(SHELLS), help='bash: eval "$(abstractgateway completion bash)"')
    completion.set_defaults(command=lambda arguments: print(script(parser, arguments.shell), end=""))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell."""
    whole, case = SHELLS[shell]
    words = dict(_words(parser, ""))
    paths = "|".join(f'"{path}"' for path in words if path)
    cases = "\n".join(case.format(path=path, words=" ".join(known)) for path, known in words.items())
    return whole.format(paths=paths, cases=cases)


def _words(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of each command, and the words that may follow it."""
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    commands: dict[str, argparse.ArgumentParser] = {}
    values: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands.update(action.choices)
        elif not action.option_strings and action.choices is not None:
            values += map(str, action.choices)
    yield path, [*commands, *values, *options]
    for name, command in commands.items():
        yield from _words(command, f"{path} {name}")
