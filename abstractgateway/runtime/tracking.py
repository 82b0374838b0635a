"""The variables of a run with a large state: they know which of them may have changed since they were last written.

Finding changes by comparing everything costs as much as writing everything. So a variable counts as touched once its
value was set, or handed out and could be changed in place; only what was touched is encoded and compared. What is
kept of a variable is its JSON, in parts where it is large, so that what is written is not much more than what changed.

A value belongs to one variable. Where two share a list, what is done to it through one is written for that one only;
they share nothing any more once the run is read from the store again.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any

from ..jsonvalue import JsonObject, compact_text
from .delta import check_vars_weight

LARGE_PART_BYTES = 4096
"""A dictionary or list with more JSON than this is compared part by part …"""
SMALL_PART_BYTES = 256
"""… if its parts have more JSON than this on average."""

Part = str | list[str] | dict[str, "Part"]
"""The JSON of a value: as one text, by item of a list, or by key of an object."""
Path = tuple[str | int, ...]

_SCALARS = (str, int, float, bool, type(None))


def part_of(value: Any) -> Part:
    """Return the JSON of a value, in parts where that is worth it. Raises `Invalid` for values JSON lacks."""
    return _split(value, compact_text(value, field="vars"))


def _split(value: Any, text: str) -> Part:
    if not isinstance(value, (dict, list)) or len(text) < max(LARGE_PART_BYTES, len(value) * SMALL_PART_BYTES):
        return text
    if isinstance(value, list):
        return [compact_text(item, field="vars") for item in value]
    if not all(isinstance(key, str) for key in value):
        return text
    return {key: part_of(item) for key, item in value.items()}


class TrackedVars(dict[str, Any]):
    """`run.vars` as any other dictionary, which notes what was touched since `take_changes` was last called."""

    def __init__(self, values: JsonObject) -> None:
        super().__init__(values)
        self._touched: set[str] = set()
        self._parts: dict[str, Part] = {}

    def take_changes(self) -> list[str]:
        """Return what has changed since the last time, as JSON texts that `delta.apply` understands, and begin anew.

        Raises `Invalid` for values JSON lacks or that would be too long.
        """
        found = Comparison()
        touched = {key: dict.__getitem__(self, key) for key in self._touched if key in self}
        check_vars_weight(touched)
        for key in sorted(self._touched):
            if key in touched:
                self._parts[key] = found.compare(self._parts.get(key), touched[key], (key,))
            elif self._parts.pop(key, None) is not None:
                found.remove((key,))
        self._touched = set()
        return found.changes

    def plain(self) -> JsonObject:
        """Return the variables as an ordinary dictionary that shares their values; nothing counts as touched."""
        return dict(dict.items(self))

    def _touch(self, key: Any) -> None:
        if key in self._touched:
            return
        if key not in self._parts and key in self:
            self._parts[key] = part_of(dict.__getitem__(self, key))
        self._touched.add(key)

    def _touch_all(self) -> None:
        for key, value in dict.items(self):
            if not isinstance(value, _SCALARS):
                self._touch(key)

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        if not isinstance(value, _SCALARS):
            self._touch(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    def __iter__(self) -> Iterator[str]:
        # With an iterator of its own a dictionary is copied through its methods, not behind their back.
        return dict.__iter__(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self._touch_all()
        return dict.items(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self._touch_all()
        return dict.values(self)

    def copy(self) -> JsonObject:
        self._touch_all()
        return self.plain()

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> TrackedVars:  # type: ignore[override]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)

    def __setitem__(self, key: str, value: Any) -> None:
        self._touch(key)
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        self._touch(key)
        dict.__delitem__(self, key)

    def update(self, *others: Any, **named: Any) -> None:
        for key, value in dict(*others, **named).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        self._touch(key)
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[str, Any]:
        key, value = dict.popitem(self)
        dict.__setitem__(self, key, value)
        return key, self.pop(key)

    def clear(self) -> None:
        for key in list(self):
            del self[key]


class Comparison:
    """What differs between values and the JSON they had; `changes` are JSON texts such as `["set",["a",0],1]`."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def compare(self, old: Part | None, new: Any, path: Path) -> Part:
        """Note what makes the old value into the new one, and return the new one's JSON."""
        if isinstance(old, dict) and isinstance(new, dict) and _keeps_order(old, new):
            return self._compare_objects(old, new, path)
        if isinstance(old, list) and isinstance(new, list):
            return self._compare_lists(old, new, path)
        text = compact_text(new, field="vars")
        if text == old:
            return text
        self._add("set", path, text)
        return _split(new, text)

    def remove(self, path: Path) -> None:
        """Note that a value is gone."""
        self._add("remove", path, "null")

    def _compare_objects(self, old: dict[str, Part], new: JsonObject, path: Path) -> Part:
        for key in old:
            if key not in new:
                self.remove((*path, key))
        return {key: self.compare(old.get(key), value, (*path, key)) for key, value in new.items()}

    def _compare_lists(self, old: list[str], new: list[Any], path: Path) -> Part:
        texts = [compact_text(item, field="vars") for item in new]
        dropped = old.index(texts[0]) if texts and texts[0] in old else 0
        kept = len(old) - dropped
        if texts[:kept] == old[dropped:]:
            if dropped:
                self._add("drop", path, str(dropped))
            if texts[kept:]:
                self._add("append", path, f"[{','.join(texts[kept:])}]")
        elif len(texts) == len(old):
            for index, text in enumerate(texts):
                if text != old[index]:
                    self._add("set", (*path, index), text)
        else:
            self._add("set", path, f"[{','.join(texts)}]")
        return texts

    def _add(self, verb: str, path: Path, text: str) -> None:
        self.changes.append(f'["{verb}",{compact_text(list(path))},{text}]')


def _keeps_order(old: dict[str, Part], new: JsonObject) -> bool:
    """Say whether the keys that stay come first and in the same order; if not, the object is written as a whole."""
    kept = [key for key in old if key in new]
    return all(isinstance(key, str) for key in new) and list(new)[: len(kept)] == kept
