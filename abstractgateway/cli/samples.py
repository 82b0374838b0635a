"""The command `abstractgateway bundle sample`: two small bundles to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GatewayConfig
from ..errors import Conflict, Invalid
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_sample_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sample` to the commands of `bundle`."""
    sample = commands.add_parser("sample", help="write two small bundles to begin with: 'hello' greets, 'ask' asks")
    sample.add_argument("directory", type=Path, nargs="?", help="default: the directory of the settings")
    sample.add_argument("--json", action="store_true", help="print what was written as JSON")
    sample.set_defaults(command=_sample)


def samples() -> Iterator[tuple[str, bytes]]:
    """Return the names and the bytes of the sample bundles, by name."""
    directory = resources.files("abstractgateway.bundles") / "samples"
    for file in sorted(directory.iterdir(), key=lambda file: file.name):
        yield file.name, file.read_bytes()


def _sample(arguments: argparse.Namespace) -> None:
    directory = arguments.directory or Path(GatewayConfig.from_env().flows_dir)
    written = [str(_written(directory / name, content)) for name, content in samples()]
    if arguments.json:
        show({"files": written})
        return
    for path in written:
        print(f"wrote {path}")
    print("With a gateway that serves them:  abstractgateway runs start hello --set prompt=World --watch")


def _written(path: Path, content: bytes) -> Path:
    """Write a sample, unless it is there; something else under its name stays."""
    if path.parent.exists() and not path.parent.is_dir():
        raise Invalid("directory", f"{str(path.parent)!r} is not a directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        if not path.is_file() or path.read_bytes() != content:
            raise Conflict(f"{str(path)!r} is there already, and is something else", code="file_exists") from error
    except OSError as error:
        raise Invalid("directory", f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    return path
