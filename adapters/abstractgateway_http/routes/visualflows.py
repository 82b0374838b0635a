"""Flows that are being drawn: keeping them, and publishing them as bundles."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, json_object, read_part, text
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import TEXT, listed, named, shape
from .inputs import optional_text, required_text, switch


def list_visualflows(call: Call) -> Response:
    """List the drawn flows, by file name; files that cannot be read are left out."""
    return json_answer(call.gateway.visualflows.list())


def create_visualflow(call: Call) -> Response:
    """Store a new flow, which need not compile yet."""
    return json_answer(call.gateway.visualflows.create(**call.body))


def get_visualflow(call: Call) -> Response:
    """Return one drawn flow."""
    return json_answer(call.gateway.visualflows.get(call.path["flow_id"]))


def update_visualflow(call: Call) -> Response:
    """Change the fields of a flow that are given."""
    return json_answer(call.gateway.visualflows.update(call.path["flow_id"], **call.body))


def delete_visualflow(call: Call) -> Response:
    """Remove a drawn flow; bundles that were published from it stay."""
    return json_answer(call.gateway.visualflows.delete(call.path["flow_id"]))


def publish_visualflow(call: Call) -> Response:
    """Install a flow, with all flows that its subflow nodes run, as a bundle that can be started."""
    return json_answer(call.gateway.visualflows.publish(call.path["flow_id"], **call.body))


def _list_of(item: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Mismatch("list_type", "Input should be a valid list")
        for place, found in enumerate(value):
            read_part(item, found, place)
        return value

    return Reader(read, {"type": "array", "items": dict(item.schema)})


_TEXTS, _OBJECTS = _list_of(text), _list_of(json_object)
_FLOWS = f"{API}/visualflows"
_ONE = f"{_FLOWS}/{{flow_id}}"
_PARTS = (
    ("description", text, str, "What it does."),
    ("interfaces", _TEXTS, list, "The names of the contracts that it keeps."),
    ("nodes", _OBJECTS, list, "Its nodes."),
    ("edges", _OBJECTS, list, "Its edges."),
)
_ENTRY = optional_text("entryNode", "The node at which execution starts; without it, the one that is an entry.")

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _FLOWS,
        list_visualflows,
        answers=(Answer("The flows.", listed(named("Visualflow"))),),
    ),
    Route(
        "POST",
        _FLOWS,
        create_visualflow,
        answers=(Answer("It is stored durably.", named("Visualflow")),),
        body=(
            required_text("name", "Its name, for people."),
            *(Field(name, reader, default=empty, about=about) for name, reader, empty, about in _PARTS),
            _ENTRY,
        ),
        refusals=(400,),
    ),
    Route(
        "GET",
        _ONE,
        get_visualflow,
        answers=(Answer("The flow.", named("Visualflow")),),
        refusals=(400, 404),
    ),
    Route(
        "PUT",
        _ONE,
        update_visualflow,
        answers=(Answer("It is stored durably.", named("Visualflow")),),
        body=(
            optional_text("name", "Its name; null or missing keeps the one it has, as for every field."),
            *(Field(name, reader, nullable=True, about=about) for name, reader, _, about in _PARTS),
            _ENTRY,
        ),
        refusals=(400, 404),
    ),
    Route(
        "DELETE",
        _ONE,
        delete_visualflow,
        answers=(Answer("It is removed durably.", shape(status={"enum": ["deleted"]}, id=TEXT)),),
        refusals=(400, 404),
    ),
    Route(
        "POST",
        f"{_ONE}/publish",
        publish_visualflow,
        answers=(Answer("The bundle is installed durably.", named("Published")),),
        body=(
            optional_text("bundle_id", "The bundle; without it, the name of the flow."),
            optional_text("bundle_version", "Its version; without it, the one after the latest, `0.0.0` at first."),
            switch("overwrite", "Whether it may take the place of the same version."),
            switch("reload_gateway", "Whether it can be started when this is answered.", on=True),
        ),
        may_lack_body=True,
        refusals=(400, 404, 409),
    ),
)
