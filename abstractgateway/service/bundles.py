"""Which bundles there are."""

from __future__ import annotations

from ..hosts.bundle_host import BundleHost
from ..jsonvalue import JsonObject


class BundleService:
    """The use cases around bundles."""

    def __init__(self, *, host: BundleHost) -> None:
        self._host = host

    def list(self, *, all_versions: bool = False, include_deprecated: bool = False) -> JsonObject:
        """Return `{"items": […], "default_bundle_id": …, "load_errors": […]}`, sorted by bundle id.

        No bundle can be deprecated yet, so `include_deprecated` shows nothing more.
        """
        return self._host.list_bundles(all_versions=all_versions)

    def get(self, bundle_id: str, bundle_version: str | None = None) -> JsonObject:
        """Return one bundle with its entrypoints, their inputs and nodes. Raises `NotFound` for an unknown one."""
        return self._host.get_bundle(bundle_id, bundle_version)
