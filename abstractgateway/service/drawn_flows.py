"""Where flows that are being drawn are kept: a JSON file each."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..config import GatewayConfig
from ..errors import Invalid, Unavailable
from ..jsonvalue import JsonObject, check_json, loads
from ..stores.disk import Disk

SUFFIX = ".json"
_SAFE_ID = re.compile(r"[a-zA-Z0-9._-]{1,200}")
_DIRECTORIES = (".", "..")

Edit = Callable[[JsonObject], JsonObject]


class DrawnFlows(Protocol):
    """Flows by id, each written durably and as a whole.

    Raises `Invalid` for an id that could not be a file name and for a flow with a value that JSON lacks or that is
    nested too deeply, `Unavailable` for what cannot be read or written.
    """

    def all(self) -> list[JsonObject]:
        """Return every flow that can be read, by file name; one without an id has that of its file."""

    def get(self, flow_id: str) -> JsonObject | None:
        """Return a flow, or None for an unknown id."""

    def add(self, flow: JsonObject) -> bool:
        """Keep a new flow under its own id; False when the id is taken."""

    def change(self, flow_id: str, edit: Edit) -> JsonObject | None:
        """Keep what `edit` makes of a flow, and return it; None for an unknown id. It may be called several times."""

    def remove(self, flow_id: str) -> bool:
        """Take a flow away, readable or not; False for an unknown id."""

    def close(self) -> None:
        """Let go of them."""


class DrawnFlowFiles:
    """The flows of a directory, `<id>.json` each."""

    def __init__(self, directory: Directory, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._writing = threading.Lock()

    def close(self) -> None:
        self._directory.close()

    def all(self) -> list[JsonObject]:
        return readable(self.contents())

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of every file that can be read, by the id that its name stands for, in order."""
        found: dict[str, bytes] = {}
        for path in sorted(self._directory().glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError):
                found[path.name.removesuffix(SUFFIX)] = path.read_bytes()
        return found

    def get(self, flow_id: str) -> JsonObject | None:
        path = self._path(flow_id)
        try:
            return flow_in(path.read_bytes(), flow_id)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _damaged(flow_id, error.strerror) from error

    def keep(self, flow_id: str, content: bytes) -> None:
        """Write the bytes of a flow, in place of what there is."""
        with self._writing:
            self._write(self._path(flow_id), content)

    def add(self, flow: JsonObject) -> bool:
        with self._writing:
            path = self._path(flow["id"])
            if path.exists():
                return False
            self._write(path, content_of(flow))
            return True

    def change(self, flow_id: str, edit: Edit) -> JsonObject | None:
        with self._writing:
            flow = self.get(flow_id)
            if flow is None:
                return None
            changed = edit(flow)
            self._write(self._path(flow_id), content_of(changed))
            return changed

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk.replace(path, content, is_durable=True)
            self._disk.sync_path(path.parent)
        except OSError as error:
            raise Unavailable(f"the flow cannot be written: {error.strerror}", code="store_failed") from error

    def remove(self, flow_id: str) -> bool:
        path = self._path(flow_id)
        with self._writing:
            if not path.exists():
                return False
            try:
                self._disk.remove(path)
                self._disk.sync_path(path.parent)
            except OSError as error:
                raise Unavailable(f"the flow cannot be removed: {error.strerror}", code="store_failed") from error
        return True

    def _path(self, flow_id: str) -> Path:
        return self._directory() / f"{check_flow_id(flow_id)}{SUFFIX}"


class Directory(Protocol):
    """Where flows are drawn; asked for whenever it is needed."""

    def __call__(self) -> Path: ...
    def close(self) -> None: ...


class KeptDirectory:
    """A directory that stays."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Path:
        return self._path

    def close(self) -> None:
        """Leave everything as it is."""


class ScratchDirectory:
    """A directory that is made when it is first asked for, and is gone with the gateway."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def __call__(self) -> Path:
        with self._lock:
            self._made = self._made or tempfile.TemporaryDirectory(prefix="abstractgateway_")
        return Path(self._made.name)

    def close(self) -> None:
        """Remove the directory with everything in it."""
        with self._lock:
            if self._made is not None:
                self._made.cleanup()
                self._made = None


def drawn_flow_files(config: GatewayConfig, data_dir: Path | None) -> DrawnFlowFiles:
    """Return the flows of the directory of the settings; without a data directory, of one that goes with them."""
    named = Path(config.visualflows_dir) if config.visualflows_dir else data_dir and data_dir / "visualflows"
    return DrawnFlowFiles(ScratchDirectory() if named is None else KeptDirectory(named))


def is_flow_id(text: str) -> bool:
    """Say whether a text may be the id of a flow, and so the name of a file."""
    return _SAFE_ID.fullmatch(text) is not None and text not in _DIRECTORIES


def check_flow_id(flow_id: str) -> str:
    """Return the id of a flow. Raises `Invalid` for what could not be a file name."""
    if not is_flow_id(flow_id):
        raise Invalid("flow_id", f"{flow_id!r} may contain only letters, digits and '._-', and at most 200 of them")
    return flow_id


def content_of(flow: JsonObject) -> bytes:
    """Return the bytes of a flow's file. Raises `Invalid` for a value that JSON lacks or nests too deeply."""
    check_json(flow, field="flow")
    return json.dumps(flow, indent=2, ensure_ascii=False).encode()


def flow_in(content: bytes, own_id: str) -> JsonObject:
    """Return the flow of a file. Raises `Unavailable` when it is not a JSON object."""
    try:
        flow = loads(content, field="flow")
    except Invalid as error:
        raise _damaged(own_id, error.why) from error
    if not isinstance(flow, dict):
        raise _damaged(own_id, "is not a JSON object")
    return flow if flow.get("id") else {**flow, "id": own_id}


def readable(contents: Mapping[str, bytes]) -> list[JsonObject]:
    """Return the flows that can be read of those files."""
    flows: list[JsonObject] = []
    for flow_id, content in contents.items():
        with contextlib.suppress(Unavailable):
            flows.append(flow_in(content, flow_id))
    return flows


def _damaged(flow_id: str, why: str | None) -> Unavailable:
    return Unavailable(f"Flow {flow_id!r} cannot be read: {why}", code="flow_damaged")
