"""What a database holds besides runs, taken along into the directories of a gateway that leaves it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from ..bundles.install import install_bundle
from ..bundles.shared import DRAWER as BUNDLES
from ..clock import SystemClock
from ..config import GatewayConfig
from ..errors import Invalid
from ..service.deprecations import FILE_NAME as DEPRECATIONS_FILE
from ..service.deprecations import DeprecationFile
from ..service.drawn_flows import drawn_flow_files
from ..service.shared_deprecations import SharedDeprecations
from ..service.shared_drawings import DRAWER as DRAWINGS
from ..service.shared_tokens import SharedTokens, not_taken_over
from ..service.tokens import FILE_NAME as TOKENS_FILE
from ..service.tokens import TokenFile
from ..stores.shelf import SharedShelf, Shelf


@dataclass(frozen=True)
class TakenAlong:
    """How many bundles, deprecations, drawn flows and named tokens were copied, and which bundles could not be read."""

    bundles: int
    deprecations: int
    drawn_flows: int
    tokens: int
    lost: tuple[str, ...]


def take_along(shelf: SharedShelf, config: GatewayConfig) -> TakenAlong:
    """Copy what is on a shelf into the flows and data directories of a config, in place of what has the same name.

    A named token that was revoked is taken away there, too. Raises `Conflict` when there are bundles to copy and the
    flows directory is one bundle, `Unavailable` for what cannot be read or written.
    """
    names = [item.name for item in shelf.list(BUNDLES)]
    lost = tuple(name for name in names if not _take_bundle(shelf, config, name))
    deprecations, drawings = _take_deprecations(shelf, config), _take_drawings(shelf, config)
    return TakenAlong(len(names) - len(lost), deprecations, drawings, _take_tokens(shelf, config), lost)


def _take_bundle(shelf: Shelf, config: GatewayConfig, name: str) -> bool:
    content = shelf.read(BUNDLES, [name]).get(name, b"")
    directory, most = Path(config.flows_dir), max(len(content), 1)
    try:
        install_bundle(io.BytesIO(content), directory, check=lambda bundle: None, overwrite=True, max_bytes=most)
    except Invalid:
        return False
    return True


def _take_deprecations(shelf: Shelf, config: GatewayConfig) -> int:
    nothing, clock = DeprecationFile(None, clock=SystemClock()), SystemClock()
    file = DeprecationFile(Path(config.data_dir) / DEPRECATIONS_FILE, clock=clock)
    entries = SharedDeprecations(shelf, before=nothing).current()
    for bundle_id, flows in entries.items():
        for flow_id, entry in flows.items():
            file.put(bundle_id, flow_id, entry)
    return sum(map(len, entries.values()))


def _take_drawings(shelf: Shelf, config: GatewayConfig) -> int:
    files = drawn_flow_files(config, Path(config.data_dir))
    found = shelf.read(DRAWINGS, [item.name for item in shelf.list(DRAWINGS)])
    for flow_id, content in found.items():
        files.keep(flow_id, content)
    return len(found)


def _take_tokens(shelf: SharedShelf, config: GatewayConfig) -> int:
    file = TokenFile(Path(config.data_dir) / TOKENS_FILE)
    tokens = SharedTokens(shelf).read()
    file.replace([*not_taken_over(shelf, file), *tokens])
    return len(tokens)
