"""Which bundles there are, what is in them, and how they come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from ..bundles.archive import ArchiveLimits
from ..bundles.catalogue import split_bundle_ref
from ..bundles.compiled import compile_bundle
from ..bundles.install import InstalledBundle
from ..bundles.versions import BundleVersions
from ..errors import Invalid, NotFound
from ..hosts.bundle_host import BundleHost
from ..jsonvalue import JsonObject
from .deprecations import ALL_FLOWS, Deprecations
from .input_schema import input_schema


class BundleService:
    """The use cases around bundles. `made_flow` finds the flows that the gateway itself has made, by workflow id."""

    def __init__(
        self,
        *,
        host: BundleHost,
        deprecations: Deprecations,
        max_bytes: int = ArchiveLimits.file_bytes,
        made_flow: Callable[[str], JsonObject | None] = lambda workflow_id: None,
    ) -> None:
        self._made_flow = made_flow
        self._host = host
        self._deprecations = deprecations
        self._max_bytes = max_bytes

    def list(self, *, all_versions: bool = False, include_deprecated: bool = False) -> JsonObject:
        """Return `{"items": […], "default_bundle_id": …, "load_errors": […]}`, sorted by bundle id.

        Deprecated entrypoints, and bundles without any other, are shown only with `include_deprecated`.
        """
        listing = self._host.list_bundles(all_versions=all_versions)
        items = [self._marked(item) for item in listing["items"]]
        if not include_deprecated:
            items = [shown for item in items if (shown := _in_use(item))["entrypoints"]]
        default = listing["default_bundle_id"]
        is_shown = any(item["bundle_id"] == default for item in items)
        return {**listing, "items": items, "default_bundle_id": default if is_shown else None}

    def get(self, bundle_id: str, bundle_version: str | None = None) -> JsonObject:
        """Return one bundle with its entrypoints, their inputs and nodes. Raises `NotFound` for an unknown one."""
        return self._marked(self._host.get_bundle(bundle_id, bundle_version))

    def flow(self, bundle_id: str, flow_id: str, bundle_version: str | None = None) -> JsonObject:
        """Return a flow as it is drawn: `{bundle_id, bundle_version, bundle_ref, flow_id, workflow_id, flow}`.

        `flow_id` may be `bundle:flow`. Raises `NotFound` for unknown bundles and flows, `Invalid` for contradictions.
        """
        named, document = self._find_flow(bundle_id, flow_id, bundle_version)
        return {**named, "flow": document}

    def input_schema(self, bundle_id: str, flow_id: str, bundle_version: str | None = None) -> JsonObject:
        """Return what a flow wants to be started with, also as a JSON schema. Raises as `flow` does."""
        named, _ = self._find_flow(bundle_id, flow_id, bundle_version)
        return {**named, **input_schema(self._host.start_pins(named["workflow_id"]))}

    def workflow_flow(self, workflow_id: str) -> JsonObject:
        """Return the flow of a workflow id, `bundle:flow` or `bundle@version:flow`, as `flow` does.

        That of a schedule is `{workflow_id, flow, source}`. Raises `NotFound` for an unknown id.
        """
        made = self._made_flow(workflow_id)
        if made is not None:
            return made
        bundle_ref, _, flow_id = workflow_id.partition(":")
        try:
            return self.flow(bundle_ref, flow_id)
        except NotFound:
            raise NotFound(f"Workflow '{workflow_id}' not found", code="unknown_workflow") from None

    def reload(self) -> JsonObject:
        """Look at the directory again and return `{ok, bundle_ids, count, load_errors}`."""
        self._host.refresh()
        listing = self._host.list_bundles(all_versions=True)
        names = sorted({item["bundle_id"] for item in listing["items"]})
        return {"ok": True, "bundle_ids": names, "count": len(names), "load_errors": listing["load_errors"]}

    def upload(self, source: BinaryIO, *, overwrite: bool = False, reload: bool = True) -> JsonObject:
        """Install the bundle that a stream of bytes holds and return what was installed.

        It is read, checked and compiled first: a bundle that would not load is refused with `Invalid` and changes
        nothing. With `reload` it can be started when this returns.
        """
        installed = self._host.source.install(
            source, check=compile_bundle, overwrite=overwrite, max_bytes=self._max_bytes
        )
        return {**_installed(installed), **self._reloaded(reload)}

    def versions(self, bundle_id: str) -> BundleVersions:
        """Return the versions of a bundle, those that cannot be used included; an unknown bundle has none."""
        self._host.refresh()
        listing = self._host.list_bundles(all_versions=True)
        created = {
            item["bundle_version"]: item["created_at"] for item in listing["items"] if item["bundle_id"] == bundle_id
        }
        broken = (split_bundle_ref(error["bundle_ref"] or error["file"]) for error in listing["load_errors"])
        return BundleVersions(
            created,
            self._host.get_bundle(bundle_id)["bundle_version"] if created else None,
            frozenset(version for name, version in broken if name == bundle_id and version),
        )

    def remove(self, bundle_id: str, bundle_version: str | None = None, *, reload: bool = True) -> JsonObject:
        """Take a version of a bundle away, or all of them; unfinished runs of it go on once it is there again.

        Raises `NotFound` when there was none, `Invalid` when id and version name different versions, and `Conflict`
        for bundles that cannot be removed through the gateway.
        """
        name, version = split_bundle_ref(bundle_id)
        given = (bundle_version or "").strip() or None
        if version and given and version != given:
            raise Invalid("", f"bundle_version conflicts with bundle_id ({version!r} is not {given!r})")
        chosen = version or given
        ref = f"{name}@{chosen}" if chosen else name
        removed = self._host.source.remove(name, chosen)
        if not removed:
            raise NotFound(f"Bundle '{ref}' not found", code="bundle_not_found")
        return {"ok": True, "bundle_ref": ref, "removed": removed, **self._reloaded(reload)}

    def deprecate(self, bundle_id: str, *, flow_id: str | None = None, reason: str | None = None) -> JsonObject:
        """Have an entrypoint, or without one the whole bundle, not be started any more, in all versions.

        Raises `NotFound` for an unknown bundle or entrypoint.
        """
        chosen = self._deprecable(bundle_id, flow_id)
        entry = self._deprecations.add(bundle_id, chosen, (reason or "").strip() or None)
        return {"ok": True, "bundle_id": bundle_id, "flow_id": chosen, **entry}

    def undeprecate(self, bundle_id: str, *, flow_id: str | None = None) -> JsonObject:
        """Take a deprecation back, exactly the one that was made, and say whether there was one."""
        chosen = (flow_id or "").strip() or ALL_FLOWS
        removed = self._deprecations.remove(bundle_id, chosen)
        return {"ok": True, "bundle_id": bundle_id, "flow_id": chosen, "removed": removed}

    def _deprecable(self, bundle_id: str, flow_id: str | None) -> str:
        if "@" in bundle_id:
            raise NotFound(f"Bundle '{bundle_id}' not found", code="bundle_not_found")
        known = [item["flow_id"] for item in self._host.get_bundle(bundle_id)["entrypoints"]]
        chosen = (flow_id or "").strip() or ALL_FLOWS
        if chosen != ALL_FLOWS and chosen not in known:
            raise NotFound(f"Entrypoint '{bundle_id}:{chosen}' not found", code="entrypoint_not_found")
        return chosen

    def _find_flow(self, bundle_id: str, flow_id: str, bundle_version: str | None) -> tuple[JsonObject, JsonObject]:
        bundle = self._host.get_bundle(bundle_id, bundle_version)
        owner, colon, own_id = flow_id.partition(":")
        if colon and split_bundle_ref(owner)[0] != bundle["bundle_id"]:
            raise Invalid("", f"flow_id bundle prefix {owner!r} does not match bundle_id {bundle['bundle_id']!r}")
        chosen = own_id if colon else flow_id
        workflow_id = f"{bundle['bundle_ref']}:{chosen}"
        try:
            document = self._host.document(workflow_id)
        except NotFound:
            text = f"Flow '{chosen}' not found in bundle '{bundle['bundle_ref']}'"
            raise NotFound(text, code="flow_not_found") from None
        named = {key: bundle[key] for key in ("bundle_id", "bundle_version", "bundle_ref")}
        return {**named, "flow_id": chosen, "workflow_id": workflow_id}, document

    def _marked(self, bundle: JsonObject) -> JsonObject:
        """Return a bundle whose entrypoints say whether they are deprecated."""
        entrypoints = [
            {**item, **_mark(self._deprecations.find(bundle["bundle_id"], item["flow_id"]))}
            for item in bundle["entrypoints"]
        ]
        return {**bundle, "entrypoints": entrypoints}

    def _reloaded(self, reload: bool) -> JsonObject:
        if reload:
            self._host.refresh()
        return {"gateway_reloaded": reload, "gateway_reload_error": None}


def _mark(entry: JsonObject | None) -> dict[str, Any]:
    return {
        "deprecated": entry is not None,
        "deprecated_at": entry.get("deprecated_at") if entry else None,
        "deprecated_reason": entry.get("reason") if entry else None,
    }


def _in_use(bundle: JsonObject) -> JsonObject:
    return {**bundle, "entrypoints": [item for item in bundle["entrypoints"] if not item["deprecated"]]}


def _installed(installed: InstalledBundle) -> JsonObject:
    manifest = installed.bundle.manifest
    return {
        "ok": True,
        "bundle_id": manifest.bundle_id,
        "bundle_version": manifest.bundle_version,
        "bundle_ref": installed.bundle.ref,
        "sha256": installed.sha256,
        "default_entrypoint": manifest.default_entrypoint,
        "entrypoints": [
            {
                "flow_id": item.flow_id,
                "name": item.name,
                "description": item.description,
                "interfaces": list(item.interfaces),
            }
            for item in manifest.entrypoints
        ],
    }
