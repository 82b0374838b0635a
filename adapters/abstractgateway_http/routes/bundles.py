"""Bundles: which there are."""

from __future__ import annotations

from ..render import json_answer
from ..route import API, Answer, Call, Response, Route
from ..shapes import named
from .inputs import BUNDLE_VERSION, switch


def list_bundles(call: Call) -> Response:
    """List the loaded bundles and their entrypoints."""
    return json_answer(call.gateway.bundles.list(**call.query))


def get_bundle(call: Call) -> Response:
    """Describe one bundle: entrypoints, inputs, flows, metadata."""
    return json_answer(call.gateway.bundles.get(call.path["bundle_id"], **call.query))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/bundles",
        list_bundles,
        answers=(Answer("The bundles, by id.", named("BundleList")),),
        query=(
            switch("all_versions", "Every version of each bundle, not only the latest."),
            switch("include_deprecated", "Deprecated entrypoints as well."),
        ),
    ),
    Route(
        "GET",
        f"{API}/bundles/{{bundle_id}}",
        get_bundle,
        answers=(Answer("The bundle.", named("Bundle")),),
        query=(BUNDLE_VERSION,),
        refusals=(400, 404),
    ),
)
