from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.bundles import Catalogue, latest_version, open_bundle, split_bundle_ref
from abstractgateway.bundles.namespace import namespaced_flow
from abstractgateway.errors import Invalid


def test_a_bundle_is_read_with_its_flows(pack: Any) -> None:
    bundle = open_bundle(pack())

    assert (bundle.ref, bundle.file, list(bundle.flows)) == ("ask@0.0.1", "ask.flow", ["root"])
    assert len(bundle.flow_hash("root")) == 64


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flows": {}}, "'flows' lists no flow"),
        ({"flows": {"other": "flows/other.json"}}, "the entrypoints ['root'] are not among its flows ['other']"),
        ({"members": {"flows/root.json": "[1]"}}, "'flows/root.json' is a JSON list"),
        ({"members": {"flows/root.json": "{"}}, "flows/root.json: is not valid JSON"),
        ({"members": {"flows/root.json": "[" * 100_000}}, "flows/root.json: "),
        ({"members": {"manifest.json": b"\xff"}}, "manifest: is not valid JSON"),
        ({"members": {"manifest.json": "{}"}}, "manifest: 'bundle_format_version'"),
    ],
)
def test_a_bundle_that_is_wrong_is_refused_with_the_reason(pack: Any, given: dict[str, Any], said: str) -> None:
    path = pack(**given)

    with pytest.raises(Invalid) as caught:
        open_bundle(path)

    assert said in str(caught.value)


def test_a_listed_flow_that_is_missing_is_named(pack: Any) -> None:
    path = pack(
        members={
            "manifest.json": {
                "bundle_format_version": 1,
                "bundle_id": "b",
                "entrypoints": [{"flow_id": "x"}],
                "flows": {"x": "no"},
            }
        }
    )

    with pytest.raises(Invalid, match="has no file 'no'"):
        open_bundle(path)


def test_a_small_file_that_decodes_to_millions_of_values_is_refused(pack: Any) -> None:
    many = '{"id": "f", "nodes": [' + ",".join(["{}"] * 300_000) + "]}"
    flows = {f"f{number}": f"flows/f{number}.json" for number in range(3)}
    path = pack(members=dict.fromkeys(flows.values(), many), flows={"root": "flows/root.json", **flows})

    with pytest.raises(Invalid, match=r"'flows/f1\.json' and the files before it hold too many values"):
        open_bundle(path)


def test_a_file_that_is_listed_often_counts_as_often(pack: Any) -> None:
    many = '{"id": "f", "nodes": [' + ",".join(["{}"] * 20_000) + "]}"
    flows = {f"f{number}": "flows/same.json" for number in range(50)}

    with pytest.raises(Invalid, match="hold too many values"):
        open_bundle(pack(members={"flows/same.json": many}, flows={"root": "flows/root.json", **flows}))


def test_one_broken_bundle_does_not_hide_the_others(pack: Any, tmp_path: Path) -> None:
    pack("good.flow")
    pack("wrong.flow", bundle_id="wrong", flows={})
    (tmp_path / "junk.flow").write_text("junk")
    (tmp_path / "readme.txt").write_text("not a bundle")
    (tmp_path / ".upload_x.flow").write_text("half written")

    catalogue = Catalogue(tmp_path)

    assert list(catalogue.bundles) == ["ask"]
    assert [(error.file, error.bundle_ref) for error in catalogue.load_errors] == [
        ("junk.flow", None),
        ("wrong.flow", "wrong@0.0.1"),
    ]


def test_of_two_files_with_one_identity_the_first_by_name_counts(pack: Any, tmp_path: Path) -> None:
    pack("b.flow", created_at="second")
    pack("a.flow", created_at="first")

    catalogue = Catalogue(tmp_path)

    assert catalogue.latest("ask").file == "a.flow"
    assert [error.to_dict() for error in catalogue.load_errors] == [
        {"file": "b.flow", "bundle_ref": "ask@0.0.1", "error": "'ask@0.0.1' is already in 'a.flow'"}
    ]


def test_one_bundle_file_is_a_catalogue_too(pack: Any, tmp_path: Path) -> None:
    path = pack()
    pack("other.flow", bundle_id="other")

    assert list(Catalogue(path).bundles) == ["ask"]


def test_a_missing_directory_is_empty_and_stays_missing(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "gone")

    assert (catalogue.bundles, catalogue.load_errors, catalogue.latest("x")) == ({}, (), None)
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file_is_listed(pack: Any, tmp_path: Path) -> None:
    pack().chmod(0)

    assert "cannot be read" in Catalogue(tmp_path).load_errors[0].error


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        ([("1.9", "z"), ("1.10", "a")], "1.10"),
        ([("2.0.0.5", "a"), ("2.0.0", "b")], "2.0.0.5"),
        ([("1.10", "a"), ("1.10.0", "b")], "1.10"),
        ([("9.0.0", "2026-01-01"), ("dev", "2026-02-01")], "dev"),
        ([("9.0.0", "2026-03-01"), ("dev", "2026-02-01")], "9.0.0"),
        ([("dev", "t"), ("v1", "t")], "v1"),
    ],
)
def test_the_latest_version_is_by_number_or_by_age(pack: Any, versions: list[tuple[str, str]], latest: str) -> None:
    bundles = [open_bundle(pack(f"{v}.flow", bundle_version=v, created_at=created)) for v, created in versions]

    assert latest_version(bundles) == latest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", None)),
        (" a @ 1.0 ", ("a", "1.0")),
        ("a@", ("a", None)),
        ("a@1.flow", ("a", "1")),
        ("a@1@2", ("a", "1@2")),
    ],
)
def test_references_are_split_at_the_first_at(text: str, expected: tuple[str, str | None]) -> None:
    assert split_bundle_ref(text) == expected


@pytest.mark.parametrize("written", ["subflow", " subflow ", "NodeType.SUBFLOW", {"value": "subflow"}])
def test_subflows_are_renamed_however_their_type_is_written(written: Any) -> None:
    document = {"id": "root", "nodes": [{"id": "s", "type": written, "data": {"subflowId": "sub"}}], "edges": []}

    renamed = namespaced_flow(document, "b@1", "root", {"root", "sub"})

    assert renamed["nodes"][0]["data"]["subflowId"] == "b@1:sub"


def test_subflows_of_the_same_bundle_are_renamed_on_a_copy() -> None:
    nodes = [
        {"id": "1", "type": "subflow", "data": {"subflowId": " sib ", "flowId": "other@1:x"}},
        {"id": "2", "type": "agent", "data": {"subflowId": "sib"}},
        {"id": "3", "type": "subflow"},
        "junk",
    ]
    document = {"id": "root", "nodes": nodes}

    renamed = namespaced_flow(document, "b@1", "root", ["root", "sib"])

    assert renamed["id"] == "b@1:root"
    assert renamed["nodes"][0]["data"] == {"subflowId": "b@1:sib", "flowId": "other@1:x"}
    assert renamed["nodes"][1:] == nodes[1:]
    assert nodes[0]["data"]["subflowId"] == " sib "
