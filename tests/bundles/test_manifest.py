from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.bundles import parse_manifest
from abstractgateway.errors import Invalid


def test_a_manifest_is_read_with_its_defaults(manifest: Any) -> None:
    found = parse_manifest(
        manifest(bundle_version="  ", created_at=..., metadata=[1], assets="x", entrypoints=[{"flow_id": " root "}, 3])
    )

    assert (found.bundle_ref, found.created_at, found.metadata, found.assets) == ("ask@0.0.0", "", {}, {})
    assert (found.entrypoints[0].flow_id, found.entrypoints[0].name, found.entrypoints[0].interfaces) == (
        "root",
        None,
        (),
    )
    assert found.default_entrypoint is None


def test_camel_case_names_and_a_numeric_format_are_understood() -> None:
    found = parse_manifest(
        {
            "bundleFormatVersion": 1,
            "bundleId": " b ",
            "bundleVersion": "2.0.0",
            "createdAt": "t",
            "entrypoints": [{"flowId": "f", "name": " ", "interfaces": [" i ", "", 4]}],
            "defaultEntrypointFlowId": "f",
            "flows": {"f": "flows\\f.json"},
        }
    )

    assert (found.bundle_ref, found.created_at, found.default_entrypoint) == ("b@2.0.0", "t", "f")
    assert found.entrypoints[0].interfaces == ("i",)
    assert found.flows == {"f": "flows/f.json"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bundle_format_version": "2"}, "'bundle_format_version' is '2'; only '1' can be read"),
        ({"bundle_format_version": ...}, "'bundle_format_version' is None"),
        ({"bundle_id": " "}, "'bundle_id' is missing"),
        ({"bundle_id": ["x"]}, "'bundle_id' is missing"),
        ({"entrypoints": []}, "'entrypoints' lists no flow"),
        ({"entrypoints": {"flow_id": "root"}}, "'entrypoints' lists no flow"),
        ({"entrypoints": [{"name": "x"}]}, "an entrypoint has no 'flow_id'"),
        ({"entrypoints": [{"flow_id": "a"}, {"flowId": "a"}]}, "two entrypoints name the flow 'a'"),
        ({"default_entrypoint": "zz"}, "'default_entrypoint' is 'zz', which is none of the entrypoints ['root']"),
        ({"flows": {" ": "x"}}, "'flows' has a blank key"),
        *(
            ({"flows": {"f": path}}, "which is not a path inside the bundle")
            for path in ("/x", "\\x", "c:/x", "../x", "a/../x", "a\\..\\x", "./x", "", " ", 3, None)
        ),
        ({"assets": {"f": "../x"}}, "'assets' gives 'f' the path '../x'"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(manifest: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_manifest(manifest(**changes))

    assert caught.value.field == "manifest"
    assert said in caught.value.why


def test_all_problems_of_a_manifest_are_reported_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_manifest({"flows": {"f": "/x"}})

    assert caught.value.why.count("; ") == 4


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_a_manifest_is_an_object(document: Any) -> None:
    with pytest.raises(Invalid, match="not an object"):
        parse_manifest(document)


def test_empty_segments_in_paths_are_allowed(manifest: Any) -> None:
    assert parse_manifest(manifest(flows={"root": "a//b"})).flows == {"root": "a//b"}
