"""The inputs of a run as options of a command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, loads_foreign
from .usage import WrongUsage, checking_options

_MOST_DIGITS = 19  # of numbers that fit into 63 bits


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add `--input` and `--set` to a parser."""
    parser.add_argument("--input", default="{}", help="the inputs as a JSON object, or @file with one")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="one input; JSON where it can be read as such",
    )


def inputs_of(arguments: argparse.Namespace) -> JsonObject:
    """Return the inputs that a command line gives. Raises `WrongUsage`."""
    return {**object_of(_text_of(arguments.input), field="--input"), **dict(arguments.set)}


def run_name(text: str) -> str:
    """Return an argument that names a run."""
    if not text.strip():
        raise argparse.ArgumentTypeError("use the id of a run, or latest")
    return text


def count(text: str) -> int:
    """Return an option as a whole number from 1."""
    return _whole(text, 1)


def cursor(text: str) -> int:
    """Return an option as a cursor, a whole number from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    number = int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else -1
    if number < least:
        raise argparse.ArgumentTypeError(f"use a whole number from {least}")
    return number


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, _value(value)


def _text_of(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage("--input", f"{text[1:]!r} cannot be read: {reason}") from error


def object_of(text: str, *, field: str) -> JsonObject:
    """Return a text as a JSON object. Raises `WrongUsage` for any other."""
    with checking_options():
        value = loads_foreign(text, field=field)
    if not isinstance(value, dict):
        raise WrongUsage(field, 'is no JSON object, such as {"prompt": "Hello"}')
    found: JsonObject = value
    return found


def _value(text: str) -> Any:
    try:
        return loads_foreign(text)
    except Invalid:
        return text
