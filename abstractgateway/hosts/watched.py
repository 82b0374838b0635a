"""Files of a directory that are read once and again when they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from ..bundles.catalogue import file_stamp

SETTLED_NS = 2_000_000_000
"""What changed less than this ago may change again under the same time stamp."""

Item = TypeVar("Item")
Index = TypeVar("Index")


class Watched(Generic[Item, Index]):
    """What is made of the files of a directory: an item of each, and an index of all, replaced as a whole.

    Safe to use from many threads; those that read `index` wait for nobody.
    """

    def __init__(
        self,
        files: Callable[[], Iterable[Path]],
        load: Callable[[Path], Item],
        build: Callable[[Mapping[Path, Item]], Index],
    ) -> None:
        self._files = files
        self._load = load
        self._build = build
        self._refreshing = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._stamps: Mapping[Path, tuple[object, ...]] = {}
        self._items: Mapping[Path, Item] = {}
        self.index = build({})
        self.refresh()

    def look(self, where: Path) -> None:
        """Look at the files again if their directory has changed: what was put there, renamed or removed is noticed.

        It costs one `stat` where nothing has changed.
        """
        try:
            found = where.stat()
            seen = (found.st_mtime_ns, found.st_ino)
        except OSError:
            return
        if seen == self._seen:
            return
        is_settled = time.time_ns() - found.st_mtime_ns > SETTLED_NS
        self.refresh()
        self._seen = seen if is_settled else None

    def refresh(self) -> bool:
        """Look at the files again; say whether any changed, came or went. The items of the others are kept."""
        with self._refreshing:
            stamps = {path: file_stamp(path) for path in self._files()}
            if stamps == self._stamps:
                return False
            items = {
                path: self._items[path] if self._stamps.get(path) == stamp else self._load(path)
                for path, stamp in stamps.items()
            }
            self.index = self._build(items)
            self._stamps, self._items = stamps, items
            return True
