"""Bundles that arrive and leave: checked completely before a directory changes, then put in place in one step.

What is being checked lies in a directory `.upload_<hex>` beside the bundles, where nobody looks for any; at the end it
is moved under the name that its manifest gives it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import Conflict, Invalid, Unavailable
from ..ids import new_hex
from ..jsonvalue import loads_foreign
from ..stores.disk import Disk
from .archive import ArchiveLimits, open_archive
from .catalogue import SUFFIX, Bundle, bundle_files, open_bundle
from .manifest import parse_manifest
from .naming import bundle_file_name, check_bundle_name

_CHUNK = 262_144
_SCRATCH = ".upload_"


@dataclass(frozen=True)
class InstalledBundle:
    """A bundle that was put in place: what is in it, and the SHA-256 of its file."""

    bundle: Bundle
    sha256: str


def install_bundle(
    source: BinaryIO,
    flows_dir: Path,
    *,
    check: Callable[[Bundle], object],
    overwrite: bool = False,
    max_bytes: int = ArchiveLimits.file_bytes,
    disk: Disk | None = None,
) -> InstalledBundle:
    """Put the bundle that a stream of bytes holds into a directory of bundles, durably, as `id@version.flow`.

    `check` may refuse it by raising `Invalid`. With `overwrite` it takes the place of every file with the same id and
    version. Raises `Invalid` for a bundle that is too large, broken, unsafe or there already, `Conflict` when
    `flows_dir` is one bundle, and `Unavailable` when it cannot be written; nothing has changed then.
    """
    _check_directory(flows_dir)
    writer = disk or Disk()
    try:
        flows_dir.mkdir(parents=True, exist_ok=True)
        scratch = flows_dir / f"{_SCRATCH}{new_hex()}"
        scratch.mkdir()
        try:
            digest = _receive(source, scratch / "upload", max_bytes)
            bundle = open_bundle(scratch / "upload", ArchiveLimits(file_bytes=max_bytes))
            check_bundle_name(bundle.manifest.bundle_id, bundle.manifest.bundle_version)
            check(bundle)
            _put_in_place(scratch / "upload", bundle, flows_dir, overwrite=overwrite, disk=writer)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise Unavailable(
            f"the bundle cannot be written to {str(flows_dir)!r}: {error}", code="store_failed"
        ) from error
    return InstalledBundle(bundle, digest)


def remove_bundles(flows_dir: Path, bundle_id: str, version: str | None, *, disk: Disk | None = None) -> int:
    """Take a version of a bundle away, or all of them, readable or not, and return how many files that were.

    Raises `Conflict` when `flows_dir` is one bundle, and `Unavailable` when a file cannot be removed.
    """
    _check_directory(flows_dir)
    writer = disk or Disk()
    found = [path for path, ref in bundle_references(flows_dir) if is_meant(ref, bundle_id, version)]
    try:
        for path in found:
            shutil.rmtree(path) if path.is_dir() else writer.remove(path)
        if found:
            writer.sync_path(flows_dir)
    except OSError as error:
        raise Unavailable(f"a bundle cannot be removed: {error}", code="store_failed") from error
    return len(found)


def _check_directory(flows_dir: Path) -> None:
    if flows_dir.suffix == SUFFIX or (flows_dir / "manifest.json").is_file():
        raise Conflict(
            f"{str(flows_dir)!r} is one bundle; set ABSTRACTGATEWAY_FLOWS_DIR to a directory to change what is in it",
            code="flows_dir_is_bundle",
        )


def receive(source: BinaryIO, target: BinaryIO, max_bytes: int) -> str:
    """Copy a stream and return its SHA-256. Raises `Invalid` for an empty one, and for one that is too long."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size <= max_bytes:
            digest.update(chunk)
            target.write(chunk)
    if size > max_bytes:
        raise Invalid("", f"Bundle too large ({size} bytes > {max_bytes} bytes)", code="bundle_too_large")
    if not size:
        raise Invalid("", "Bundle content is empty", code="bundle_broken")
    return digest.hexdigest()


def already_installed(file: str) -> Invalid:
    """Return the refusal of a bundle whose version is there."""
    return Invalid("", f"Bundle already installed: {file}; send overwrite=true to replace it", code="bundle_installed")


def bundle_references(flows_dir: Path) -> Iterable[tuple[Path, str]]:
    """Return each bundle of a directory and its `id@version`; of one that cannot be read, what its name says."""
    for path in bundle_files(flows_dir):
        try:
            manifest = parse_manifest(loads_foreign(open_archive(path).read("manifest.json"), field="manifest"))
            yield path, manifest.bundle_ref
        except (Invalid, OSError):
            yield path, path.name.removesuffix(SUFFIX)


def is_meant(ref: str, bundle_id: str, version: str | None) -> bool:
    """Say whether `id@version` is of a bundle, in that version or, for None, in any."""
    found_id, _, found_version = ref.partition("@")
    return found_id == bundle_id and version in (None, found_version)


def _receive(source: BinaryIO, target: Path, max_bytes: int) -> str:
    """Write a stream to a file, durably, and return its SHA-256."""
    with target.open("wb") as file:
        digest = receive(source, file, max_bytes)
        file.flush()
        os.fsync(file.fileno())
    return digest


def _put_in_place(received: Path, bundle: Bundle, flows_dir: Path, *, overwrite: bool, disk: Disk) -> None:
    manifest = bundle.manifest
    target = flows_dir / bundle_file_name(manifest.bundle_id, manifest.bundle_version)
    others = [path for path, ref in bundle_references(flows_dir) if ref == bundle.ref and path != target]
    if overwrite:
        disk.rename(received, target)
        for path in others:
            shutil.rmtree(path) if path.is_dir() else disk.remove(path)
    else:
        _put_beside(received, target, others)
    disk.sync_path(flows_dir)


def _put_beside(received: Path, target: Path, others: list[Path]) -> None:
    """Give a file its name unless the name is taken, also when somebody else takes it this moment."""
    try:
        if not others:
            os.link(received, target)
            return
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    raise already_installed((others or [target])[0].name)
