"""Bundles that the processes of a fleet share, and those that were deployed beside one of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import Conflict
from ..stores.shelf import ANYTHING, NOTHING, Shelf
from .archive import ArchiveLimits
from .catalogue import SUFFIX, Bundle, Catalogue, LoadError, bundle_of, load_shared
from .install import InstalledBundle, already_installed, bundle_references, is_meant, receive
from .naming import bundle_file_name, check_bundle_name
from .source import BundleDirectory, Check, Place

DRAWER = "bundles"


class SharedBundles:
    """What is uploaded goes to the shelf, as `id@version.flow`; the bundles of the directory are only read.

    Where both have the same id and version, the shelf's counts.
    """

    def __init__(self, shelf: Shelf, directory: str | Path) -> None:
        self._beside = BundleDirectory(directory)
        self.directory = self._beside.directory
        self._shelf = shelf

    def catalogue(self) -> Catalogue:
        """Return all bundles as they are now."""
        return Catalogue(self.directory, [self._load(item.name) for item in self._shelf.list(DRAWER)])

    @property
    def told(self) -> int:
        return self._shelf.told

    def newest(self) -> int:
        return self._shelf.newest()

    def stamps(self) -> Mapping[Place, object]:
        return {**{item.name: item.sha256 for item in self._shelf.list(DRAWER)}, **self._beside.stamps()}

    def load(self, place: Place) -> Bundle | LoadError:
        return self._beside.load(place) if isinstance(place, Path) else self._load(place)

    def install(self, source: BinaryIO, *, check: Check, overwrite: bool, max_bytes: int) -> InstalledBundle:
        received = io.BytesIO()
        digest = receive(source, received, max_bytes)
        content = received.getvalue()
        bundle = bundle_of("upload", content, ArchiveLimits(file_bytes=max_bytes))
        manifest = bundle.manifest
        check_bundle_name(manifest.bundle_id, manifest.bundle_version)
        check(bundle)
        name = bundle_file_name(manifest.bundle_id, manifest.bundle_version)
        deployed = [] if overwrite else self._deployed(manifest.bundle_id, manifest.bundle_version)
        if deployed:
            raise already_installed(deployed[0].name)
        if not self._shelf.put(DRAWER, name, content, instead_of=ANYTHING if overwrite else NOTHING):
            raise already_installed(name)
        return InstalledBundle(bundle, digest)

    def remove(self, bundle_id: str, version: str | None) -> int:
        deployed = self._deployed(bundle_id, version)
        if deployed:
            names = ", ".join(repr(str(path)) for path in deployed)
            raise Conflict(
                f"{names} can only be removed from the directory of each process that has it; what was uploaded is in "
                "the database",
                code="bundle_deployed",
            )
        named = (item.name for item in self._shelf.list(DRAWER))
        return self._shelf.remove(DRAWER, [n for n in named if is_meant(n.removesuffix(SUFFIX), bundle_id, version)])

    def _deployed(self, bundle_id: str, version: str | None) -> list[Path]:
        return [path for path, ref in bundle_references(self.directory) if is_meant(ref, bundle_id, version)]

    def _load(self, name: str) -> Bundle | LoadError:
        content = self._shelf.read(DRAWER, [name]).get(name)
        if content is None:
            return LoadError(name, name.removesuffix(SUFFIX), "is damaged, or has just been removed")
        return load_shared(name, content)
