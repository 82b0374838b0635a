"""Where bundles come from, and go to when they are uploaded and removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from .catalogue import Bundle, LoadError, bundle_files, file_stamp, load_bundle
from .install import InstalledBundle, install_bundle, remove_bundles

Place = Path | str
"""A file of the directory, or the name of one in the database."""
Check = Callable[[Bundle], object]


class BundleSource(Protocol):
    """The bundles that are served; `directory` is watched for what people and other programs put there.

    Where several processes share bundles, `told` is a number that grows with every change: this process hears of those
    of others within moments, and `newest` asks. Everything raises `Unavailable` for what cannot be reached or written.
    """

    directory: Path

    @property
    def told(self) -> int:
        """The number of the latest change that this process knows of; it costs nothing."""

    def newest(self) -> int:
        """Return the number of the latest change that was acknowledged anywhere."""

    def stamps(self) -> Mapping[Place, object]:
        """Return what there is, in the order in which it counts, each with something that changes with its content."""

    def load(self, place: Place) -> Bundle | LoadError:
        """Return a bundle, or why there is none."""

    def install(self, source: BinaryIO, *, check: Check, overwrite: bool, max_bytes: int) -> InstalledBundle:
        """Keep the bundle that a stream of bytes holds, durably and whole.

        Raises `Invalid` for one that is too large, broken, unsafe or there already, and what `check` raises; nothing
        has changed then.
        """

    def remove(self, bundle_id: str, version: str | None) -> int:
        """Take a version of a bundle away, or all of them, and return how many that were.

        Raises `Conflict` for what cannot be removed here; nothing has changed then.
        """


class BundleDirectory:
    """The bundles of a directory, which processes on one machine may share; or one bundle."""

    told = 0

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def newest(self) -> int:
        return 0

    def stamps(self) -> Mapping[Place, object]:
        return {path: file_stamp(path) for path in bundle_files(self.directory)}

    def load(self, place: Place) -> Bundle | LoadError:
        return load_bundle(Path(place))

    def install(self, source: BinaryIO, *, check: Check, overwrite: bool, max_bytes: int) -> InstalledBundle:
        return install_bundle(source, self.directory, check=check, overwrite=overwrite, max_bytes=max_bytes)

    def remove(self, bundle_id: str, version: str | None) -> int:
        return remove_bundles(self.directory, bundle_id, version)
