"""Flows that are being drawn: a JSON file each, and publishing them as bundles."""

from __future__ import annotations

import io
import json
import re
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

from ..bundles.naming import check_bundle_name, clean_bundle_id
from ..bundles.packer import BundleWishes, PackedBundle, pack_flows
from ..clock import Clock, to_iso
from ..config import GatewayConfig
from ..errors import Conflict, Invalid, NotFound, Unavailable
from ..ids import new_id
from ..jsonvalue import JsonObject, check_json, loads
from ..stores.disk import Disk
from .bundles import BundleService
from .bundles_of_flows import FlowFileService

FIELDS = ("name", "description", "interfaces", "nodes", "edges", "entryNode")
SUFFIX = ".json"
_SAFE_ID = re.compile(r"[a-zA-Z0-9._-]{1,200}")
_DIRECTORIES = (".", "..")


class VisualflowFiles:
    """The flows of a directory, `<id>.json` each, written durably and as a whole.

    Raises `Invalid` for an id that could not be a file name, and `Unavailable` for what cannot be read or written.
    """

    def __init__(self, directory: Directory, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()

    def close(self) -> None:
        """Let go of the directory."""
        self._directory.close()

    def all(self) -> list[JsonObject]:
        """Return every flow that can be read, by file name; one without an id has that of its file."""
        found = (self._readable(path) for path in sorted(self._directory().glob(f"*{SUFFIX}")))
        return [flow for flow in found if flow is not None]

    def get(self, flow_id: str) -> JsonObject | None:
        """Return a flow, or None for an unknown id."""
        path = self._path(flow_id)
        try:
            return _flow_in(path.read_bytes(), flow_id)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unavailable(f"Flow {flow_id!r} cannot be read: {error.strerror}", code="flow_damaged") from error
        except Invalid as error:
            raise Unavailable(f"Flow {flow_id!r} cannot be read: {error.why}", code="flow_damaged") from error

    def exists(self, flow_id: str) -> bool:
        """Say whether there is a flow with this id, readable or not."""
        return self._path(flow_id).exists()

    def put(self, flow: JsonObject) -> None:
        """Write a flow under its own id. Raises `Invalid` for a value that JSON lacks or nests too deeply."""
        path = self._path(flow["id"])
        check_json(flow, field="flow")
        content = json.dumps(flow, indent=2, ensure_ascii=False).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk.replace(path, content, is_durable=True)
            self._disk.sync_path(path.parent)
        except OSError as error:
            raise Unavailable(f"the flow cannot be written: {error.strerror}", code="store_failed") from error

    def remove(self, flow_id: str) -> bool:
        """Take a flow away; False for an unknown id."""
        path = self._path(flow_id)
        if not path.exists():
            return False
        try:
            self._disk.remove(path)
            self._disk.sync_path(path.parent)
        except OSError as error:
            raise Unavailable(f"the flow cannot be removed: {error.strerror}", code="store_failed") from error
        return True

    def _path(self, flow_id: str) -> Path:
        if not _SAFE_ID.fullmatch(flow_id) or flow_id in _DIRECTORIES:
            raise Invalid("flow_id", f"{flow_id!r} may contain only letters, digits and '._-', and at most 200 of them")
        return self._directory() / f"{flow_id}{SUFFIX}"

    @staticmethod
    def _readable(path: Path) -> JsonObject | None:
        try:
            return _flow_in(path.read_bytes(), path.name.removesuffix(SUFFIX))
        except (OSError, Invalid):
            return None


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


class VisualflowService:
    """The use cases around flows that are being drawn."""

    @staticmethod
    def of(
        config: GatewayConfig, data_dir: Path | None, bundles: BundleService | FlowFileService, clock: Clock
    ) -> VisualflowService:
        """Return the service on the directory of the settings; without a data directory, on one that goes with it."""
        named = Path(config.visualflows_dir) if config.visualflows_dir else data_dir and data_dir / "visualflows"
        directory = ScratchDirectory() if named is None else KeptDirectory(named)
        return VisualflowService(files=VisualflowFiles(directory), bundles=bundles, clock=clock)

    def __init__(self, *, files: VisualflowFiles, bundles: BundleService | FlowFileService, clock: Clock) -> None:
        self._files = files
        self._bundles = bundles
        self._clock = clock
        self._writing = threading.Lock()

    def list(self) -> list[JsonObject]:
        """Return every flow, by file name; files that cannot be read are left out."""
        return self._files.all()

    def create(self, **fields: Any) -> JsonObject:
        """Store a new flow durably and return it: the fields with `id`, `created_at` and `updated_at`.

        `fields` are `name, description, interfaces, nodes, edges, entryNode`. A flow need not compile yet.
        """
        now = to_iso(self._clock.now())
        given = {name: fields[name] for name in FIELDS if name in fields}
        with self._writing:
            flow = {"id": self._new_id(), **given, "created_at": now, "updated_at": now}
            self._files.put(flow)
        return flow

    def get(self, flow_id: str) -> JsonObject:
        """Return a flow. Raises `NotFound` for an unknown one."""
        flow = self._files.get(flow_id)
        if flow is None:
            raise _unknown(flow_id)
        return flow

    def update(self, flow_id: str, **fields: Any) -> JsonObject:
        """Change the fields of a flow that are given and not None, durably, and return it. Raises as `get`."""
        given = {name: value for name in FIELDS if (value := fields.get(name)) is not None}
        with self._writing:
            flow = {**self.get(flow_id), **given, "id": flow_id, "updated_at": to_iso(self._clock.now())}
            self._files.put(flow)
        return flow

    def delete(self, flow_id: str) -> JsonObject:
        """Remove a flow durably, readable or not. Raises `NotFound` for an unknown one."""
        with self._writing:
            if not self._files.remove(flow_id):
                raise _unknown(flow_id)
        return {"status": "deleted", "id": flow_id}

    def publish(
        self,
        flow_id: str,
        *,
        bundle_id: str | None = None,
        bundle_version: str | None = None,
        overwrite: bool = False,
        reload_gateway: bool = True,
    ) -> JsonObject:
        """Install a flow, with all flows that its subflow nodes run, as a bundle that can be started.

        Returns `{ok, bundle_id, bundle_version, bundle_ref, bundle_path, gateway_reloaded, gateway_reload_error,
        warnings}`; `bundle_path` is relative to the directory of bundles. Without a version the next one is taken.
        Raises `Invalid` for flows that do not compile or are missing, names that cannot be used, and a version that is
        there already; nothing is written then. Raises `NotFound` for an unknown flow, `Conflict` where the gateway
        has no bundles.
        """
        root = self.get(flow_id)
        if isinstance(self._bundles, FlowFileService):
            raise _no_bundles()
        name = clean_bundle_id(bundle_id or "") or clean_bundle_id(_text(root, "name")) or clean_bundle_id(flow_id)
        versions = self._bundles.versions(name)
        version = (bundle_version or "").strip() or versions.following()
        check_bundle_name(name, version)
        if version in versions.taken and not overwrite:
            text = f"bundle_version '{version}' already exists for bundle '{name}'"
            raise Invalid("", f"{text}; send overwrite=true to replace it", code="bundle_installed")
        now = to_iso(self._clock.now())
        metadata = {
            "publisher": {"host": "abstractgateway", "published_at": now},
            "source": {
                "root_flow_id": flow_id,
                "root_flow_name": _text(root, "name"),
                "root_flow_updated_at": _text(root, "updated_at"),
            },
            "lineage": {"bundle_id": name, "bundle_version": version, **versions.lineage(version)},
        }
        packed = self._packed(root, BundleWishes(name, version, created_at=now, metadata=metadata))
        installed = self._bundles.upload(io.BytesIO(packed.content), overwrite=overwrite, reload=reload_gateway)
        shown = ("ok", "bundle_id", "bundle_version", "bundle_ref", "gateway_reloaded", "gateway_reload_error")
        return {
            **{key: installed[key] for key in shown},
            "bundle_path": f"{installed['bundle_ref']}.flow",
            "warnings": list(packed.warnings),
        }

    def close(self) -> None:
        """Let go of the directory of the flows."""
        self._files.close()

    def _packed(self, root: JsonObject, wishes: BundleWishes) -> PackedBundle:
        try:
            return pack_flows(root, self._needed, wishes=wishes)
        except Invalid as error:
            raise Invalid("", f"Failed to publish bundle: {error.why}", code=error.code) from error

    def _needed(self, flow_id: str) -> JsonObject | None:
        """Return a flow that another one runs, which may name it with blanks, or by something that is no id."""
        try:
            return self._files.get(flow_id.strip())
        except Invalid:
            return None

    def _new_id(self) -> str:
        while self._files.exists(flow_id := new_id()[:8]):
            continue
        return flow_id


def _flow_in(content: bytes, own_id: str) -> JsonObject:
    """Return the flow of a file. Raises `Invalid` when it is not a JSON object."""
    flow = loads(content, field="flow")
    if not isinstance(flow, dict):
        raise Invalid("flow", "is not a JSON object")
    return flow if flow.get("id") else {**flow, "id": own_id}


def _text(flow: JsonObject, name: str) -> str:
    value = flow.get(name)
    return value if isinstance(value, str) else ""


def _unknown(flow_id: str) -> NotFound:
    return NotFound(f"Flow '{flow_id}' not found", code="flow_not_found")


def _no_bundles() -> Conflict:
    return Conflict(
        "the gateway serves a directory of flows and manages no bundles; "
        "to publish some, set ABSTRACTGATEWAY_WORKFLOW_SOURCE to 'bundle'",
        code="no_bundles",
    )
