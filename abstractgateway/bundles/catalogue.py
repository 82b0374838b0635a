"""The bundles of a directory: which there are, which version is the latest, and which could not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps_canonical, loads_foreign
from .archive import Archive, ArchiveLimits, archive_of, open_archive
from .manifest import Manifest, parse_manifest

SUFFIX = ".flow"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read completely: its manifest and its flow documents, unchanged."""

    file: str
    manifest: Manifest
    flows: Mapping[str, JsonObject]
    is_shared: bool = False

    @property
    def ref(self) -> str:
        return self.manifest.bundle_ref

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return f"{self.file!r} in the database" if self.is_shared else repr(self.file)

    def has_content_of(self, other: Bundle) -> bool:
        """Say whether both are the same, wherever they are."""
        return self.manifest == other.manifest and self.flows == other.flows

    def flow_hash(self, flow_id: str) -> str:
        """Return the SHA-256 of a flow's canonical JSON."""
        return hashlib.sha256(dumps_canonical(self.flows[flow_id])).hexdigest()


@dataclass(frozen=True)
class LoadError:
    """A bundle that is there but cannot be used, and why."""

    file: str
    bundle_ref: str | None
    error: str

    def to_dict(self) -> JsonObject:
        return {"file": self.file, "bundle_ref": self.bundle_ref, "error": self.error}


class Catalogue:
    """The bundles of a directory of `*.flow`, or of one bundle, as they are now. It never changes and never writes.

    `bundles` maps bundle id to version to `Bundle`. Of two files with the same id and version the first by name counts;
    `shared`, from elsewhere, count before them.
    """

    def __init__(self, flows_dir: str | Path, shared: Iterable[Bundle | LoadError] = ()) -> None:
        items = [*shared, *(load_bundle(path) for path in bundle_files(flows_dir))]
        errors = [item for item in items if isinstance(item, LoadError)]
        self.bundles, doubles = index_bundles(item for item in items if isinstance(item, Bundle))
        self.load_errors = tuple(sorted([*errors, *doubles], key=lambda item: item.file))

    def latest(self, bundle_id: str) -> Bundle | None:
        """Return the latest version of a bundle, or None when there is no such bundle."""
        versions = self.bundles.get(bundle_id)
        return versions[latest_version(versions.values())] if versions else None


def bundle_files(flows_dir: str | Path) -> list[Path]:
    """Return the bundles that a path stands for, sorted by name; a missing directory has none."""
    root = Path(flows_dir)
    if root.suffix == SUFFIX or (root / "manifest.json").is_file():
        return [root] if root.exists() else []
    if not root.is_dir():
        return []
    return sorted(
        (item for item in root.iterdir() if item.suffix == SUFFIX and not item.name.startswith(".")),
        key=lambda i: i.name,
    )


def file_stamp(path: Path) -> tuple[object, ...]:
    """Return what changes when a bundle changes: name, size, times and inode of the file, or of all files below it."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    stamp: list[object] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            continue
        stamp.append((str(file), found.st_size, found.st_mtime_ns, found.st_ino))
    return tuple(stamp)


def open_bundle(path: str | Path, limits: ArchiveLimits | None = None) -> Bundle:
    """Return the bundle at a path, a zip file or a directory.

    Raises `Invalid`: `bundle` for an archive that is broken or harmful, `manifest` for a wrong manifest, `flow` for a
    flow that is missing or is not JSON.
    """
    bounds = limits or ArchiveLimits()
    return _bundle_in(Path(path).name, open_archive(path, bounds), bounds)


def bundle_of(name: str, content: bytes, limits: ArchiveLimits | None = None) -> Bundle:
    """Return the bundle that the bytes of a zip file hold. Raises `Invalid` as `open_bundle` does."""
    bounds = limits or ArchiveLimits()
    return _bundle_in(name, archive_of(name, content, bounds), bounds)


def load_bundle(path: Path) -> Bundle | LoadError:
    """Return the bundle at a path, or why there is none, so that one broken bundle does not hide the others."""
    try:
        return open_bundle(path)
    except Invalid as error:
        return LoadError(path.name, _ref_of(lambda: open_archive(path)), str(error))
    except OSError as error:
        return LoadError(path.name, None, f"cannot be read: {error.strerror or error}")


def load_shared(name: str, content: bytes) -> Bundle | LoadError:
    """Return the bundle that the database holds under a name, or why there is none."""
    try:
        return replace(bundle_of(name, content), is_shared=True)
    except Invalid as error:
        return LoadError(name, _ref_of(lambda: archive_of(name, content)), str(error))


def index_bundles(loaded: Iterable[Bundle]) -> tuple[dict[str, dict[str, Bundle]], list[LoadError]]:
    """Return bundles by id and version, and an error for each file whose id and version was there before.

    A file with the content of the database's bundle is no error.
    """
    bundles: dict[str, dict[str, Bundle]] = {}
    doubles: list[LoadError] = []
    for bundle in loaded:
        versions = bundles.setdefault(bundle.manifest.bundle_id, {})
        first = versions.setdefault(bundle.manifest.bundle_version, bundle)
        if first is not bundle and not (first.is_shared and bundle.has_content_of(first)):
            doubles.append(LoadError(bundle.file, bundle.ref, f"{bundle.ref!r} is already in {first.where}"))
    return bundles, doubles


def latest_version(bundles: Iterable[Bundle]) -> str:
    """Return the latest version: by number if all are numeric, else by creation time, as AbstractGateway decides."""
    known = list(bundles)
    numbers = [_version_number(item.manifest.bundle_version) for item in known]
    if all(number is not None for number in numbers):
        best = max(range(len(known)), key=lambda at: (numbers[at] or (), -at))
        return known[best].manifest.bundle_version
    return max(known, key=lambda item: (item.manifest.created_at, item.manifest.bundle_version)).manifest.bundle_version


def split_bundle_ref(text: str) -> tuple[str, str | None]:
    """Return the id and version of `id@version`, `id` or `id@`; an `.flow` at the end does not count."""
    cleaned = text.strip()
    if cleaned.endswith(SUFFIX) and "/" not in cleaned:
        cleaned = cleaned[: -len(SUFFIX)]
    bundle_id, _, version = cleaned.partition("@")
    return bundle_id.strip(), version.strip() or None


def _version_number(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        return None
    return tuple([*(int(part) for part in parts), 0, 0][:3])


class _JsonReader:
    """Decodes the JSON files of an archive, as long as they do not hold too many values together."""

    def __init__(self, archive: Archive, most_values: int) -> None:
        self._archive = archive
        self._left = most_values

    def read(self, path: str, field: str) -> Any:
        text = self._archive.read(path)
        self._left -= sum(map(text.count, (b",", b"[", b"{")))
        if self._left < 0:
            raise Invalid("bundle", f"{path!r} and the files before it hold too many values")
        return loads_foreign(text, field=field)


def _read_flows(reader: _JsonReader, manifest: Manifest) -> dict[str, JsonObject]:
    if not manifest.flows:
        raise Invalid("manifest", "'flows' lists no flow")
    absent = [item.flow_id for item in manifest.entrypoints if item.flow_id not in manifest.flows]
    if absent:
        raise Invalid("manifest", f"the entrypoints {absent} are not among its flows {sorted(manifest.flows)}")
    flows: dict[str, JsonObject] = {}
    for flow_id, path in manifest.flows.items():
        document = reader.read(path, path)
        if not isinstance(document, dict):
            raise Invalid("flow", f"{path!r} is a JSON {type(document).__name__}, not an object")
        flows[flow_id] = document
    return flows


def _bundle_in(name: str, archive: Archive, limits: ArchiveLimits) -> Bundle:
    reader = _JsonReader(archive, limits.json_values)
    manifest = parse_manifest(reader.read("manifest.json", "manifest"))
    return Bundle(name, manifest, _read_flows(reader, manifest))


def _ref_of(open_again: Callable[[], Archive]) -> str | None:
    """Name a bundle whose manifest is fine although something else in it is not."""
    try:
        reader = _JsonReader(open_again(), ArchiveLimits.json_values)
        return parse_manifest(reader.read("manifest.json", "manifest")).bundle_ref
    except (Invalid, OSError):
        return None
