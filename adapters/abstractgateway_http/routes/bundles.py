"""Bundles: which there are, what is in them, and how they come and go."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field, upload
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import anything
from ..shapes import named
from .inputs import BUNDLE_VERSION, optional_text, switch


def list_bundles(call: Call) -> Response:
    """List the loaded bundles and their entrypoints."""
    return json_answer(call.gateway.bundles.list(**call.query))


def get_bundle(call: Call) -> Response:
    """Describe one bundle: entrypoints, inputs, flows, metadata."""
    return json_answer(call.gateway.bundles.get(call.path["bundle_id"], **call.query))


def get_flow(call: Call) -> Response:
    """Return a flow of a bundle as it is drawn."""
    return json_answer(call.gateway.bundles.flow(call.path["bundle_id"], call.path["flow_id"], **call.query))


def get_input_schema(call: Call) -> Response:
    """Return what a flow wants to be started with, also as a JSON schema."""
    return json_answer(call.gateway.bundles.input_schema(call.path["bundle_id"], call.path["flow_id"], **call.query))


def get_workflow_flow(call: Call) -> Response:
    """Return the flow of a workflow id as it is drawn."""
    return json_answer(call.gateway.bundles.workflow_flow(call.path["workflow_id"]))


def reload_bundles(call: Call) -> Response:
    """Look at the directory of bundles again."""
    return json_answer(call.gateway.bundles.reload())


def upload_bundle(call: Call) -> Response:
    """Install a bundle; one that would not load is refused and changes nothing."""
    given = dict(call.body)
    return json_answer(call.gateway.bundles.upload(given.pop("file"), **given))


def delete_bundle(call: Call) -> Response:
    """Remove a version of a bundle, or all of them."""
    return json_answer(call.gateway.bundles.remove(call.path["bundle_id"], **call.query))


def deprecate_bundle(call: Call) -> Response:
    """Have an entrypoint, or the whole bundle, not be started any more."""
    return json_answer(call.gateway.bundles.deprecate(call.path["bundle_id"], **call.body))


def undeprecate_bundle(call: Call) -> Response:
    """Take a deprecation back, exactly the one that was made."""
    given = {"flow_id": call.body["flow_id"]}
    return json_answer(call.gateway.bundles.undeprecate(call.path["bundle_id"], **given))


_BUNDLES = f"{API}/bundles"
_ONE = f"{_BUNDLES}/{{bundle_id}}"
_RELOAD = switch("reload", "Whether it can be started, or cannot any more, when this is answered.", on=True)
_DEPRECATION = (
    optional_text("flow_id", "The entrypoint; without it, the whole bundle."),
    optional_text("reason", "Why, for whoever tries to start it."),
)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _BUNDLES,
        list_bundles,
        session=anything,
        answers=(Answer("The bundles, by id.", named("BundleList")),),
        query=(
            switch("all_versions", "Every version of each bundle, not only the latest."),
            switch("include_deprecated", "Deprecated entrypoints as well."),
        ),
    ),
    Route(
        "POST",
        f"{_BUNDLES}/reload",
        reload_bundles,
        answers=(Answer("What there is now.", named("BundlesReloaded")),),
    ),
    Route(
        "POST",
        f"{_BUNDLES}/upload",
        upload_bundle,
        answers=(Answer("The bundle is installed durably.", named("BundleInstalled")),),
        body=(
            Field("file", upload, required=True, about="The `.flow` file."),
            switch("overwrite", "Whether it may take the place of the same version."),
            _RELOAD,
        ),
        is_form=True,
        refusals=(400, 409),
    ),
    Route(
        "GET",
        _ONE,
        get_bundle,
        session=anything,
        answers=(Answer("The bundle.", named("Bundle")),),
        query=(BUNDLE_VERSION,),
        refusals=(400, 404),
    ),
    Route(
        "DELETE",
        _ONE,
        delete_bundle,
        answers=(Answer("It is removed.", named("BundleRemoved")),),
        query=(BUNDLE_VERSION, _RELOAD),
        refusals=(400, 404, 409),
    ),
    Route(
        "POST",
        f"{_ONE}/deprecate",
        deprecate_bundle,
        answers=(Answer("It is deprecated durably.", named("Deprecated")),),
        body=_DEPRECATION,
        may_lack_body=True,
        refusals=(404,),
    ),
    Route(
        "POST",
        f"{_ONE}/undeprecate",
        undeprecate_bundle,
        answers=(Answer("`removed` says whether there was such a deprecation.", named("Undeprecated")),),
        body=_DEPRECATION,
        may_lack_body=True,
    ),
    Route(
        "GET",
        f"{_ONE}/flows/{{flow_id}}",
        get_flow,
        session=anything,
        answers=(Answer("The flow.", named("Flow")),),
        query=(BUNDLE_VERSION,),
        refusals=(400, 404),
    ),
    Route(
        "GET",
        f"{_ONE}/flows/{{flow_id}}/input_schema",
        get_input_schema,
        session=anything,
        answers=(Answer("The inputs, version 1 of the contract.", named("InputSchema")),),
        query=(BUNDLE_VERSION,),
        refusals=(400, 404),
    ),
    Route(
        "GET",
        f"{API}/workflows/{{workflow_id}}/flow",
        get_workflow_flow,
        session=anything,
        answers=(Answer("The flow.", {"anyOf": [named("Flow"), named("MadeFlow")]}),),
        refusals=(400, 404),
    ),
)
