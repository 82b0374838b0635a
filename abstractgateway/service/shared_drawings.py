"""Flows that are being drawn, where the processes of a fleet share them."""

from __future__ import annotations

import hashlib

from ..jsonvalue import JsonObject
from ..stores.shelf import NEVER_ANYTHING, NOTHING, Shelf
from .drawn_flows import SUFFIX, DrawnFlowFiles, Edit, check_flow_id, content_of, flow_in, is_flow_id, readable

DRAWER = "visualflows"


class SharedDrawings:
    """The drawn flows of a shelf. Those that a directory has from `before` are taken over, each once for all time."""

    def __init__(self, shelf: Shelf, *, before: DrawnFlowFiles) -> None:
        self._shelf = shelf
        own = before.contents()
        for flow_id in sorted(own.keys() - self._names()):
            if is_flow_id(flow_id):
                shelf.put(DRAWER, flow_id, own[flow_id], instead_of=NEVER_ANYTHING)

    def all(self) -> list[JsonObject]:
        found = self._shelf.read(DRAWER, self._names())
        return readable({flow_id: found[flow_id] for flow_id in sorted(found, key=lambda name: f"{name}{SUFFIX}")})

    def get(self, flow_id: str) -> JsonObject | None:
        content = self._content(flow_id)
        return flow_in(content, flow_id) if content is not None else None

    def add(self, flow: JsonObject) -> bool:
        return self._shelf.put(DRAWER, check_flow_id(flow["id"]), content_of(flow), instead_of=NOTHING)

    def change(self, flow_id: str, edit: Edit) -> JsonObject | None:
        while (content := self._content(flow_id)) is not None:
            changed = edit(flow_in(content, flow_id))
            known = hashlib.sha256(content).hexdigest()
            if self._shelf.put(DRAWER, flow_id, content_of(changed), instead_of=known):
                return changed
        return None

    def remove(self, flow_id: str) -> bool:
        return self._shelf.remove(DRAWER, [check_flow_id(flow_id)]) > 0

    def close(self) -> None:
        """Leave everything as it is."""

    def _content(self, flow_id: str) -> bytes | None:
        return self._shelf.read(DRAWER, [check_flow_id(flow_id)]).get(flow_id)

    def _names(self) -> set[str]:
        return {item.name for item in self._shelf.list(DRAWER)}
