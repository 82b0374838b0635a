"""The inputs of a run as options of a command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, loads


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
    """Return the inputs that a command line gives. Raises `Invalid`."""
    return {**object_of(_text_of(arguments.input), field="--input"), **dict(arguments.set)}


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
        raise Invalid("--input", f"{text[1:]!r} cannot be read: {error}") from error


def object_of(text: str, *, field: str) -> JsonObject:
    """Return a text as a JSON object. Raises `Invalid` for any other."""
    value = loads(text, field=field)
    if not isinstance(value, dict):
        raise Invalid(field, 'is no JSON object, such as {"prompt": "Hello"}')
    return value


def _value(text: str) -> Any:
    try:
        return loads(text)
    except Invalid:
        return text
