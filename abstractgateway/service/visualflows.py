"""Flows that are being drawn, and publishing them as bundles."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..bundles.naming import check_bundle_name, clean_bundle_id
from ..bundles.packer import BundleWishes, PackedBundle, pack_flows
from ..clock import Clock, to_iso
from ..config import GatewayConfig
from ..errors import Conflict, Invalid, NotFound
from ..ids import new_id
from ..jsonvalue import JsonObject
from ..stores.shelf import Shelf
from .bundles import BundleService
from .bundles_of_flows import FlowFileService
from .drawn_flows import DrawnFlows, drawn_flow_files
from .shared_drawings import SharedDrawings

FIELDS = ("name", "description", "interfaces", "nodes", "edges", "entryNode")


class VisualflowService:
    """The use cases around flows that are being drawn."""

    @staticmethod
    def of(
        config: GatewayConfig,
        data_dir: Path | None,
        bundles: BundleService | FlowFileService,
        clock: Clock,
        shelf: Shelf | None = None,
    ) -> VisualflowService:
        """Return the service on the directory of the settings; without a data directory, on one that goes with it.

        With a shelf the flows are there, unless the settings name a directory for them; those that a data directory
        still has are taken over.
        """
        kept = drawn_flow_files(config, data_dir)
        if shelf is None or config.visualflows_dir:
            return VisualflowService(flows=kept, bundles=bundles, clock=clock)
        return VisualflowService(flows=SharedDrawings(shelf, before=kept), bundles=bundles, clock=clock)

    def __init__(self, *, flows: DrawnFlows, bundles: BundleService | FlowFileService, clock: Clock) -> None:
        self._flows = flows
        self._bundles = bundles
        self._clock = clock

    def list(self) -> list[JsonObject]:
        """Return every flow, by file name; files that cannot be read are left out."""
        return self._flows.all()

    def create(self, **fields: Any) -> JsonObject:
        """Store a new flow durably and return it: the fields with `id`, `created_at` and `updated_at`.

        `fields` are `name, description, interfaces, nodes, edges, entryNode`. A flow need not compile yet.
        """
        now = to_iso(self._clock.now())
        given = {name: fields[name] for name in FIELDS if name in fields}
        while True:
            flow = {"id": new_id()[:8], **given, "created_at": now, "updated_at": now}
            if self._flows.add(flow):
                return flow

    def get(self, flow_id: str) -> JsonObject:
        """Return a flow. Raises `NotFound` for an unknown one."""
        flow = self._flows.get(flow_id)
        if flow is None:
            raise _unknown(flow_id)
        return flow

    def update(self, flow_id: str, **fields: Any) -> JsonObject:
        """Change the fields of a flow that are given and not None, durably, and return it. Raises as `get`."""
        given = {name: value for name in FIELDS if (value := fields.get(name)) is not None}
        now = to_iso(self._clock.now())
        changed = self._flows.change(flow_id, lambda flow: {**flow, **given, "id": flow_id, "updated_at": now})
        if changed is None:
            raise _unknown(flow_id)
        return changed

    def delete(self, flow_id: str) -> JsonObject:
        """Remove a flow durably, readable or not. Raises `NotFound` for an unknown one."""
        if not self._flows.remove(flow_id):
            raise _unknown(flow_id)
        return {"status": "deleted", "id": flow_id}

    def publish(
        self,
        flow_id: str,
        *,
        bundle_id: str | None = None,
        bundle_version: str | None = None,
        overwrite: bool = False,
        reload_gateway: bool = True,
    ) -> JsonObject:
        """Install a flow, with all flows that its subflow nodes run, as a bundle that can be started.

        Returns `{ok, bundle_id, bundle_version, bundle_ref, bundle_path, gateway_reloaded, gateway_reload_error,
        warnings}`; `bundle_path` is relative to the directory of bundles. Without a version the next one is taken.
        Raises `Invalid` for flows that do not compile or are missing, names that cannot be used, and a version that is
        there already; nothing is written then. Raises `NotFound` for an unknown flow, `Conflict` where the gateway
        has no bundles.
        """
        root = self.get(flow_id)
        if isinstance(self._bundles, FlowFileService):
            raise _no_bundles()
        name = clean_bundle_id(bundle_id or "") or clean_bundle_id(_text(root, "name")) or clean_bundle_id(flow_id)
        versions = self._bundles.versions(name)
        version = (bundle_version or "").strip() or versions.following()
        check_bundle_name(name, version)
        if version in versions.taken and not overwrite:
            text = f"bundle_version '{version}' already exists for bundle '{name}'"
            raise Invalid("", f"{text}; send overwrite=true to replace it", code="bundle_installed")
        now = to_iso(self._clock.now())
        metadata = {
            "publisher": {"host": "abstractgateway", "published_at": now},
            "source": {
                "root_flow_id": flow_id,
                "root_flow_name": _text(root, "name"),
                "root_flow_updated_at": _text(root, "updated_at"),
            },
            "lineage": {"bundle_id": name, "bundle_version": version, **versions.lineage(version)},
        }
        packed = self._packed(root, BundleWishes(name, version, created_at=now, metadata=metadata))
        installed = self._bundles.upload(io.BytesIO(packed.content), overwrite=overwrite, reload=reload_gateway)
        shown = ("ok", "bundle_id", "bundle_version", "bundle_ref", "gateway_reloaded", "gateway_reload_error")
        return {
            **{key: installed[key] for key in shown},
            "bundle_path": f"{installed['bundle_ref']}.flow",
            "warnings": list(packed.warnings),
        }

    def close(self) -> None:
        """Let go of the flows."""
        self._flows.close()

    def _packed(self, root: JsonObject, wishes: BundleWishes) -> PackedBundle:
        try:
            return pack_flows(root, self._needed, wishes=wishes)
        except Invalid as error:
            raise Invalid("", f"Failed to publish bundle: {error.why}", code=error.code) from error

    def _needed(self, flow_id: str) -> JsonObject | None:
        """Return a flow that another one runs, which may name it with blanks, or by something that is no id."""
        try:
            return self._flows.get(flow_id.strip())
        except Invalid:
            return None


def _text(flow: JsonObject, name: str) -> str:
    value = flow.get(name)
    return value if isinstance(value, str) else ""


def _unknown(flow_id: str) -> NotFound:
    return NotFound(f"Flow '{flow_id}' not found", code="flow_not_found")


def _no_bundles() -> Conflict:
    return Conflict(
        "the gateway serves a directory of flows and manages no bundles; "
        "to publish some, set ABSTRACTGATEWAY_WORKFLOW_SOURCE to 'bundle'",
        code="no_bundles",
    )
