"""Packing flows into a bundle: the same files always give the same bytes.

Members are sorted by name, carry the zip format's first date and fixed modes, and are not compressed, because
compressed bytes differ between zlib versions. Flow documents keep the bytes that their files have.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject, loads_foreign
from ..visualflow.compiler import CompiledFlow
from ..visualflow.reach import referenced_flows
from .archive import open_archive
from .catalogue import Bundle, open_bundle
from .compiled import compile_bundle
from .manifest import FORMAT_VERSION, parse_manifest
from .naming import check_bundle_name

_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE_MODE = 0o100644 << 16
_MADE_ON_UNIX = 3
_ID_KEYS = ("id", "flow_id", "workflow_id")


@dataclass(frozen=True)
class PackedBundle:
    """A bundle in memory: its bytes, its manifest, and what its author may want to know."""

    content: bytes
    manifest: JsonObject
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A flow: its bytes, and what they say."""

    content: bytes
    document: JsonObject


@dataclass(frozen=True)
class BundleWishes:
    """What is to be said of a bundle; what is left out follows from its flows.

    Without `created_at` it is the latest `updated_at` or `created_at` of the flows, so that packing again gives the
    same bytes.
    """

    bundle_id: str = ""
    bundle_version: str = "0.0.0"
    entrypoints: Sequence[str] = ()
    default_entrypoint: str | None = None
    created_at: str | None = None
    metadata: JsonObject = field(default_factory=dict)


def pack_bundle(
    root: str | Path, *, flows_dir: str | Path | None = None, wishes: BundleWishes | None = None
) -> PackedBundle:
    """Return a bundle of a flow and of all flows that its subflow nodes run.

    These are found by their id in `flows_dir`, or beside the root file, whatever their files are called. Raises
    `Invalid` naming everything that is missing, and whatever keeps one of the flows from being compiled.
    """
    directory = Path(flows_dir) if flows_dir is not None else Path(root).parent
    if not directory.is_dir():
        raise Invalid("flows_dir", f"{str(directory)!r} is no directory")
    known = _by_id(directory)
    return _packed(
        _read(Path(root)),
        lambda flow_id: _read(known[flow_id]) if flow_id in known else None,
        wishes or BundleWishes(),
        where=f"in {str(directory)!r}",
    )


def pack_flows(
    root: JsonObject, find: Callable[[str], JsonObject | None], *, wishes: BundleWishes | None = None
) -> PackedBundle:
    """Return a bundle of a flow and of all flows that its subflow nodes run, which `find` returns by id.

    Raises `Invalid` as `pack_bundle` does.
    """

    def source_of(flow_id: str) -> _Source | None:
        found = find(flow_id)
        return _source(found) if found is not None else None

    return _packed(_source(root), source_of, wishes or BundleWishes(), where="there")


def _source(document: JsonObject) -> _Source:
    return _Source(json.dumps(document, indent=2, ensure_ascii=False).encode(), document)


def _packed(first: _Source, find: Callable[[str], _Source | None], wanted: BundleWishes, *, where: str) -> PackedBundle:
    flows = _collect(first, find, wanted.entrypoints, where)
    manifest = _manifest(flow_id_of(first.document), flows, wanted)
    parsed = parse_manifest(manifest)
    documents = {flow_id: source.document for flow_id, source in flows.items()}
    compiled = compile_bundle(Bundle("", parsed, documents))
    members = {parsed.flows[flow_id]: source.content for flow_id, source in flows.items()}
    members["manifest.json"] = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    return PackedBundle(zip_bytes(members), manifest, _warnings(compiled))


def pack_directory(directory: str | Path) -> PackedBundle:
    """Return the bundle of a directory that has the tree of one.

    Raises `Invalid` for a manifest that is wrong, a link that leads out of the directory, a flow that is missing, and
    whatever keeps one of the flows from being compiled.
    """
    base = Path(directory)
    archive = open_archive(base)
    if "manifest.json" not in archive.names():
        raise Invalid("bundle", f"{str(directory)!r} has no manifest.json")
    members = {name: archive.read(name) for name in archive.names()}
    compiled = compile_bundle(open_bundle(base))
    return PackedBundle(zip_bytes(members), loads_foreign(members["manifest.json"]), _warnings(compiled))


def _warnings(compiled: Mapping[str, CompiledFlow]) -> tuple[str, ...]:
    return tuple(f"flow {flow_id!r}: {text}" for flow_id, flow in compiled.items() for text in flow.warnings)


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """Return a zip file with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(members.items()):
            member = zipfile.ZipInfo(name, _FIRST_ZIP_DATE)
            member.create_system = _MADE_ON_UNIX
            member.external_attr = _REGULAR_FILE_MODE
            archive.writestr(member, content)
    return buffer.getvalue()


def flow_id_of(document: Any) -> str:
    """Return the id of a flow document, or an empty text."""
    if not isinstance(document, dict):
        return ""
    found = (document.get(key) for key in _ID_KEYS)
    return next((str(value).strip() for value in found if isinstance(value, (str, int)) and str(value).strip()), "")


def _read(path: Path) -> _Source:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Invalid("flow", f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    document = loads_foreign(content, field=path.name)
    if not isinstance(document, dict) or not flow_id_of(document):
        raise Invalid("flow", f"{str(path)!r} is no flow: it has no 'id'")
    return _Source(content, document)


def _collect(
    first: _Source, find: Callable[[str], _Source | None], entrypoints: Sequence[str], where: str
) -> dict[str, _Source]:
    """Return the flows that are needed, by id; the order in which they are found does not matter."""
    found = {flow_id_of(first.document): first}
    queue = [*referenced_flows(first.document), *entrypoints]
    missing: set[str] = set()
    while queue:
        flow_id = queue.pop()
        if flow_id in found or flow_id in missing:
            continue
        source = find(flow_id)
        if source is None:
            missing.add(flow_id)
            continue
        found[flow_id] = source
        queue += referenced_flows(found[flow_id].document)
    if missing:
        raise Invalid("flow", f"the flows {sorted(missing)} are needed but not {where}")
    return dict(sorted(found.items()))


def _by_id(directory: Path) -> dict[str, Path]:
    """Return the flow files of a directory by the id inside; of two with one id, the file that is named after it."""
    known: dict[str, Path] = {}
    for path in sorted(directory.glob("*.json")):
        try:
            flow_id = flow_id_of(loads_foreign(path.read_bytes()))
        except (Invalid, OSError):
            continue
        if flow_id and (flow_id not in known or path.stem == flow_id):
            known[flow_id] = path
    return known


def _manifest(root_id: str, flows: Mapping[str, _Source], wishes: BundleWishes) -> JsonObject:
    bundle_id, version = wishes.bundle_id.strip() or root_id, wishes.bundle_version.strip() or "0.0.0"
    check_bundle_name(bundle_id, version)
    listed = list(dict.fromkeys(wishes.entrypoints)) or [root_id]
    default = wishes.default_entrypoint or (root_id if root_id in listed else listed[0])
    return {
        "bundle_format_version": FORMAT_VERSION,
        "bundle_id": bundle_id,
        "bundle_version": version,
        "created_at": wishes.created_at if wishes.created_at is not None else _latest_change(flows),
        "entrypoints": [_entrypoint(flow_id, flows[flow_id].document) for flow_id in listed],
        "default_entrypoint": default,
        "flows": {flow_id: f"flows/{flow_id}.json" for flow_id in flows},
        "artifacts": {},
        "assets": {},
        "metadata": wishes.metadata,
    }


def _entrypoint(flow_id: str, document: JsonObject) -> JsonObject:
    name, description, interfaces = (document.get(key) for key in ("name", "description", "interfaces"))
    return {
        "flow_id": flow_id,
        "name": name.strip() if isinstance(name, str) and name.strip() else flow_id,
        "description": description if isinstance(description, str) else "",
        "interfaces": [item for item in interfaces if isinstance(item, str)] if isinstance(interfaces, list) else [],
    }


def _latest_change(flows: Mapping[str, _Source]) -> str:
    stamps = []
    for source in flows.values():
        for key in ("updated_at", "created_at"):
            try:
                stamps.append(parse_iso(str(source.document.get(key) or ""), field=key))
            except Invalid:
                continue
    return to_iso(max(stamps)) if stamps else ""
