"""The use cases around bundles where there are none: the gateway serves a directory of single flows."""

from __future__ import annotations

from typing import BinaryIO, NoReturn

from ..errors import Conflict, NotFound
from ..hosts.visualflow_host import VisualflowHost
from ..jsonvalue import JsonObject


class FlowFileService:
    """Answers as `BundleService` does: what concerns single flows works, what needs a bundle says why it does not.

    Bundles that are looked for raise `NotFound`; installing, removing and deprecating raise `Conflict`.
    """

    def __init__(self, *, host: VisualflowHost) -> None:
        self._host = host

    def list(self, *, all_versions: bool = False, include_deprecated: bool = False) -> JsonObject:
        """Return no bundles, and the flows as `flows: [{flow_id, name, description, interfaces}]`."""
        listing = self._host.list_flows()
        return {
            "items": [],
            "default_bundle_id": None,
            "load_errors": listing["load_errors"],
            "flows": listing["items"],
        }

    def get(self, bundle_id: str, bundle_version: str | None = None) -> JsonObject:
        raise _no_bundle(bundle_id)

    def flow(self, bundle_id: str, flow_id: str, bundle_version: str | None = None) -> JsonObject:
        raise _no_bundle(bundle_id)

    def input_schema(self, bundle_id: str, flow_id: str, bundle_version: str | None = None) -> JsonObject:
        raise _no_bundle(bundle_id)

    def workflow_flow(self, workflow_id: str) -> JsonObject:
        """Return a flow as it is drawn, with the fields of `BundleService.flow`; those of the bundle are null."""
        try:
            document = self._host.document(workflow_id)
        except NotFound:
            raise NotFound(f"Workflow '{workflow_id}' not found", code="unknown_workflow") from None
        bundle = dict.fromkeys(("bundle_id", "bundle_version", "bundle_ref"))
        return {**bundle, "flow_id": workflow_id, "workflow_id": workflow_id, "flow": document}

    def reload(self) -> JsonObject:
        """Look at the directory again and return `{ok, bundle_ids, count, load_errors}`; it counts flows."""
        self._host.refresh()
        listing = self._host.list_flows()
        return {"ok": True, "bundle_ids": [], "count": len(listing["items"]), "load_errors": listing["load_errors"]}

    def upload(self, source: BinaryIO, *, overwrite: bool = False, reload: bool = True) -> JsonObject:
        _refuse()

    def remove(self, bundle_id: str, bundle_version: str | None = None, *, reload: bool = True) -> JsonObject:
        _refuse()

    def deprecate(self, bundle_id: str, *, flow_id: str | None = None, reason: str | None = None) -> JsonObject:
        _refuse()

    def undeprecate(self, bundle_id: str, *, flow_id: str | None = None) -> JsonObject:
        _refuse()


def _no_bundle(bundle_id: str) -> NotFound:
    return NotFound(
        f"Bundle {bundle_id!r} not found: ABSTRACTGATEWAY_WORKFLOW_SOURCE is 'visualflow', which has flows only",
        code="bundle_not_found",
    )


def _refuse() -> NoReturn:
    raise Conflict(
        "the gateway serves a directory of flows and manages no bundles; "
        "for that, set ABSTRACTGATEWAY_WORKFLOW_SOURCE to 'bundle'",
        code="no_bundles",
    )
