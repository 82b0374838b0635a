"""Things that are read once and again when they change, such as the files of a directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

SETTLED_NS = 2_000_000_000
"""What changed less than this ago may change again under the same time stamp."""

Place = TypeVar("Place")
Item = TypeVar("Item")
Index = TypeVar("Index")


class Watched(Generic[Place, Item, Index]):
    """What is made of the files of a directory, or the like: an item of each, and an index of all, replaced as a whole.

    `find` returns where something is, with a stamp that changes with it. Safe to use from many threads; those that read
    `index` wait for nobody.
    """

    def __init__(
        self,
        find: Callable[[], Mapping[Place, object]],
        load: Callable[[Place], Item],
        build: Callable[[Mapping[Place, Item]], Index],
    ) -> None:
        self._find = find
        self._load = load
        self._build = build
        self._refreshing = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._stamps: Mapping[Place, object] = {}
        self._items: Mapping[Place, Item] = {}
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
        """Look again; say whether anything changed, came or went. The items of what did not are kept."""
        with self._refreshing:
            stamps = self._find()
            if stamps == self._stamps:
                return False
            items = {
                place: self._items[place] if self._stamps.get(place) == stamp else self._load(place)
                for place, stamp in stamps.items()
            }
            self.index = self._build(items)
            self._stamps, self._items = stamps, items
            return True
