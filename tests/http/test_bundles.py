from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from .conftest import echo_flow, form, packed


def listed(live, query: str = "") -> list[str]:
    return [item["bundle_ref"] for item in live.ask("GET", f"/bundles{query}").json["items"]]


def files(live) -> list[str]:
    return sorted(path.name for path in live.flows_dir.iterdir())


def test_an_uploaded_bundle_is_installed_under_its_own_name_and_can_be_started(go_live):
    live = go_live()
    content = packed()

    answer = live.upload(content)

    assert answer.status == 200
    assert answer.json == {
        "ok": True,
        "bundle_id": "echo",
        "bundle_version": "0.0.1",
        "bundle_ref": "echo@0.0.1",
        "sha256": hashlib.sha256(content).hexdigest(),
        "default_entrypoint": None,
        "entrypoints": [{"flow_id": "root", "name": "root", "description": "echoes", "interfaces": ["i"]}],
        "gateway_reloaded": True,
        "gateway_reload_error": None,
    }
    assert files(live) == ["echo@0.0.1.flow"]
    assert (live.flows_dir / "echo@0.0.1.flow").read_bytes() == content
    assert live.ask("POST", "/runs/start", body={"bundle_id": "echo"}).status == 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Bundle content is empty"),
        (b"not a zip", "is not a zip file"),
        (packed(bundle_format_version="2"), "'bundle_format_version' is '2'"),
        (packed(bundle_id="a b"), "'a b' cannot name a bundle; use 'a-b'"),
        (packed(bundle_id="../x"), "'../x' cannot name a bundle; use 'x'"),
        (packed(version="1/2"), "'1/2' cannot name a bundle; use '1-2'"),
        (packed(flows={"root": "flows/gone.json"}), "no file 'flows/gone.json'"),
        (packed(flow={"id": "root", "nodes": "none"}), "flow 'root' does not compile"),
    ],
)
def test_a_bundle_that_would_not_load_is_refused_with_the_reason_and_nothing_is_written(live, content, reason):
    before = files(live)

    answer = live.upload(content)

    assert answer.status == 400
    assert reason in answer.json["detail"]
    assert str(live.flows_dir) not in answer.body.decode()
    assert files(live) == before
    assert listed(live) == ["echo@0.0.1"]


def test_the_same_version_again_needs_overwrite(live):
    other = packed(entrypoints=[{"flow_id": "root", "name": "other"}])

    refused = live.upload(other)
    replaced = live.upload(other, overwrite="true")

    assert (refused.status, refused.json["code"]) == (400, "bundle_installed")
    assert "Bundle already installed: echo@0.0.1.flow" in refused.json["detail"]
    assert replaced.status == 200
    assert live.ask("GET", "/bundles").json["items"][0]["entrypoints"][0]["name"] == "other"
    assert files(live) == ["echo@0.0.1.flow"]


def test_overwriting_takes_the_place_of_the_version_under_any_file_name(go_live):
    live = go_live()
    (live.flows_dir / "a.flow").write_bytes(packed())

    refused = live.upload(packed())
    replaced = live.upload(packed(), overwrite="1")

    assert (refused.status, replaced.status) == (400, 200)
    assert files(live) == ["echo@0.0.1.flow"]


def test_a_bundle_over_the_limit_is_refused_with_its_size(go_live):
    live = go_live(max_bundle_bytes=1_000)

    answer = live.upload(b"x" * 1_500)

    assert (answer.status, answer.json["code"]) == (413, "bundle_too_large")
    assert answer.json["detail"] == "Bundle too large (1500 bytes > 1000 bytes)"
    assert files(live) == []


def test_a_form_over_the_limit_is_refused_before_it_is_read(go_live):
    live = go_live(max_bundle_bytes=1_000)

    answer = live.ask("POST", "/bundles/upload", "Content-Type: multipart/form-data", "Content-Length: 900000000")

    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


def test_the_upload_of_a_stranger_is_refused_without_being_read(live):
    declared = "Content-Length: 60000000"

    answer = live.ask("POST", "/bundles/upload", "Authorization: none", "Content-Type: multipart/form-data", declared)

    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_an_upload_may_be_larger_than_other_bodies(go_live):
    live = go_live(max_body_bytes=1_000)
    padded = packed(metadata={"x": "y" * 100_000})

    uploaded = live.upload(padded)
    started = live.ask("POST", "/runs/start", body={"bundle_id": "echo", "input_data": {"x": "y" * 2_000}})

    assert (uploaded.status, started.status) == (200, 413)


def test_a_bundle_that_is_not_reloaded_is_installed_all_the_same(go_live):
    live = go_live()

    answer = live.upload(packed(), reload="false")
    before = listed(live)
    reloaded = live.ask("POST", "/bundles/reload")

    assert answer.json["gateway_reloaded"] is False
    assert before == []
    assert reloaded.json == {"ok": True, "bundle_ids": ["echo"], "count": 1, "load_errors": []}
    assert listed(live) == ["echo@0.0.1"]


def test_an_upload_without_a_file_names_the_missing_part(live):
    body, kind = b'--bnd\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\nmaybe\r\n--bnd--\r\n', form(b"")[1]

    answer = live.ask("POST", "/bundles/upload", kind, body=body)

    assert answer.status == 422
    assert [(item["type"], item["loc"]) for item in answer.json["detail"]] == [
        ("missing", ["body", "file"]),
        ("bool_parsing", ["body", "overwrite"]),
    ]


def test_a_file_sent_as_a_text_field_is_refused(live):
    body = b'--bnd\r\nContent-Disposition: form-data; name="file"\r\n\r\nzip\r\n--bnd--\r\n'

    answer = live.ask("POST", "/bundles/upload", form(b"")[1], body=body)

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["body", "file"]


def test_an_upload_that_is_no_form_is_refused(live):
    answer = live.ask("POST", "/bundles/upload", "Content-Type: application/zip", body=packed())

    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


def test_one_version_of_a_bundle_can_be_removed(live):
    live.upload(packed(version="0.0.2"))

    answer = live.ask("DELETE", "/bundles/echo@0.0.1")

    assert answer.json == {
        "ok": True,
        "bundle_ref": "echo@0.0.1",
        "removed": 1,
        "gateway_reloaded": True,
        "gateway_reload_error": None,
    }
    assert listed(live, "?all_versions=true") == ["echo@0.0.2"]


def test_without_a_version_all_are_removed_even_a_broken_one(live):
    live.upload(packed(version="0.0.2"))
    (live.flows_dir / "echo@0.0.3.flow").write_bytes(b"broken")

    answer = live.ask("DELETE", "/bundles/echo")

    assert answer.json["removed"] == 3
    assert files(live) == []
    assert listed(live) == []


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/bundles/nope", 404, "Bundle 'nope' not found"),
        ("/bundles/echo?bundle_version=9", 404, "Bundle 'echo@9' not found"),
        ("/bundles/echo@0.0.1?bundle_version=9", 400, "bundle_version conflicts with bundle_id"),
    ],
)
def test_removing_what_is_not_there_changes_nothing(live, path, status, detail):
    answer = live.ask("DELETE", path)

    assert answer.status == status
    assert answer.json["detail"].startswith(detail)
    assert listed(live) == ["echo@0.0.1"]


def test_a_gateway_on_one_bundle_file_can_neither_install_nor_remove(go_live, tmp_path: Path):
    only = tmp_path / "only.flow"
    only.write_bytes(packed())
    live = go_live()
    live.service.bundles._host.source.directory = only

    uploaded = live.upload(packed())
    removed = live.ask("DELETE", "/bundles/echo")

    assert [(item.status, item.json["code"]) for item in (uploaded, removed)] == [(409, "flows_dir_is_bundle")] * 2


def test_a_flow_is_returned_as_it_is_drawn(live):
    answer = live.ask("GET", "/bundles/echo/flows/root")

    assert answer.json == {
        "bundle_id": "echo",
        "bundle_version": "0.0.1",
        "bundle_ref": "echo@0.0.1",
        "flow_id": "root",
        "workflow_id": "echo@0.0.1:root",
        "flow": echo_flow(),
    }


@pytest.mark.parametrize("path", ["/bundles/echo@0.0.1/flows/echo:root", "/workflows/echo:root/flow"])
def test_a_flow_has_several_names(live, path):
    assert live.ask("GET", path).json == live.ask("GET", "/bundles/echo/flows/root").json


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/bundles/echo/flows/zzz", 404, "Flow 'zzz' not found in bundle 'echo@0.0.1'"),
        ("/bundles/echo/flows/zzz/input_schema", 404, "Flow 'zzz' not found in bundle 'echo@0.0.1'"),
        ("/bundles/nope/flows/root", 404, "Bundle 'nope' not found"),
        ("/bundles/echo/flows/other:root", 400, "flow_id bundle prefix 'other' does not match bundle_id 'echo'"),
        ("/bundles/echo@0.0.1/flows/root?bundle_version=2", 400, "bundle_version conflicts with bundle_id"),
        ("/workflows/nope:root/flow", 404, "Workflow 'nope:root' not found"),
        ("/workflows/root/flow", 404, "Workflow 'root' not found"),
    ],
)
def test_a_flow_that_is_not_there_is_named(live, path, status, detail):
    answer = live.ask("GET", path)

    assert answer.status == status
    assert answer.json["detail"].startswith(detail)


def test_the_inputs_of_a_flow_are_told_as_a_json_schema(live):
    answer = live.ask("GET", "/bundles/echo/flows/root/input_schema?bundle_version=0.0.1")

    prompt = {"type": "string", "x-abstract-type": "string", "title": "Prompt"}
    number = {"type": "integer", "x-abstract-type": "integer", "default": 3}
    assert answer.json == {
        "bundle_id": "echo",
        "bundle_version": "0.0.1",
        "bundle_ref": "echo@0.0.1",
        "flow_id": "root",
        "workflow_id": "echo@0.0.1:root",
        "version": 1,
        "inputs": [
            {"id": "prompt", "label": "Prompt", "type": "string", "required": True, "schema": prompt},
            {"id": "n", "label": "n", "type": "integer", "default": 3, "required": False, "schema": number},
        ],
        "defaults": {"n": 3},
        "input_data_schema": {
            "type": "object",
            "additionalProperties": True,
            "properties": {"prompt": prompt, "n": number},
            "required": ["prompt"],
        },
    }


def test_a_pin_of_an_unknown_type_has_no_json_type_and_defaults_make_nothing_required(live):
    outputs = [{"id": "x", "type": "Model"}, {"id": "y", "type": "DICT"}]
    live.upload(packed("other", flow=echo_flow(outputs=outputs, pinDefaults={"x": None, "y": {}})))

    schema = live.ask("GET", "/bundles/other/flows/root/input_schema").json["input_data_schema"]

    assert schema["properties"]["x"] == {"x-abstract-type": "Model", "default": None}
    assert schema["properties"]["y"] == {"type": "object", "x-abstract-type": "DICT", "default": {}}
    assert "required" not in schema


def test_a_deprecated_entrypoint_is_hidden_and_cannot_be_started(live):
    answer = live.ask("POST", "/bundles/echo/deprecate", body={"flow_id": "root", "reason": "old"})
    started = live.ask("POST", "/runs/start", body={"bundle_id": "echo"})

    assert answer.json == {
        "ok": True,
        "bundle_id": "echo",
        "flow_id": "root",
        "deprecated_at": answer.json["deprecated_at"],
        "reason": "old",
    }
    assert (started.status, started.json["code"]) == (409, "workflow_deprecated")
    assert started.json["detail"] == "Workflow 'echo:root' is deprecated: old"
    assert live.ask("GET", "/bundles").json["items"] == []
    assert live.ask("GET", "/bundles").json["default_bundle_id"] is None
    shown = live.ask("GET", "/bundles?include_deprecated=true").json["items"][0]["entrypoints"][0]
    assert (shown["deprecated"], shown["deprecated_reason"]) == (True, "old")
    assert live.ask("GET", "/bundles/echo").json["entrypoints"][0]["deprecated"] is True


def test_a_whole_bundle_is_deprecated_without_a_body_and_taken_back(live):
    deprecated = live.ask("POST", "/bundles/echo/deprecate")
    refused = live.ask("POST", "/runs/start", body={"flow_id": "echo:root"})
    by_flow = live.ask("POST", "/bundles/echo/undeprecate", body={"flow_id": "root"})
    taken_back = live.ask("POST", "/bundles/echo/undeprecate", body={})

    assert deprecated.json["flow_id"] == "*"
    assert "reason" not in deprecated.json
    assert refused.json["detail"] == "Workflow 'echo:root' is deprecated"
    assert by_flow.json["removed"] is False
    assert taken_back.json == {"ok": True, "bundle_id": "echo", "flow_id": "*", "removed": True}
    assert live.ask("POST", "/runs/start", body={"bundle_id": "echo"}).status == 200


@pytest.mark.parametrize(
    ("bundle_id", "body", "detail"),
    [
        ("zz", {}, "Bundle 'zz' not found"),
        ("echo@0.0.1", {}, "Bundle 'echo@0.0.1' not found"),
        ("echo", {"flow_id": "nope"}, "Entrypoint 'echo:nope' not found"),
    ],
)
def test_only_what_exists_can_be_deprecated(live, bundle_id, body, detail):
    answer = live.ask("POST", f"/bundles/{bundle_id}/deprecate", body=body)

    assert (answer.status, answer.json["detail"]) == (404, detail)


def test_deprecations_are_kept_in_a_file_that_other_processes_may_change(go_live, tmp_path: Path):
    live = go_live(store_backend="file")
    live.upload(packed())
    path = tmp_path / "data" / "workflow_deprecations.json"

    live.ask("POST", "/bundles/echo/deprecate", body={"reason": "old"})
    written = json.loads(path.read_text())
    path.write_text(json.dumps({"version": 1, "bundles": {"echo": {"root": {"deprecated_at": "x", "reason": "new"}}}}))
    changed = live.ask("POST", "/runs/start", body={"bundle_id": "echo"})
    path.unlink()

    assert written["version"] == 1
    assert written["bundles"]["echo"]["*"]["reason"] == "old"
    assert changed.json["detail"].endswith("is deprecated: new")
    assert live.ask("POST", "/runs/start", body={"bundle_id": "echo"}).status == 200


def test_a_deprecations_file_that_cannot_be_read_is_set_aside(go_live, tmp_path: Path):
    live = go_live(store_backend="file")
    live.upload(packed())
    path = tmp_path / "data" / "workflow_deprecations.json"
    path.write_text("{half")

    started = live.ask("POST", "/runs/start", body={"bundle_id": "echo"})

    assert started.status == 200
    assert [item.name for item in path.parent.glob("workflow_deprecations*")][0].startswith(path.name + ".corrupt.")


def test_a_directory_of_flows_is_served_without_bundles(go_live, tmp_path: Path):
    (tmp_path / "flows" / "alone.json").write_text(json.dumps({**echo_flow(), "id": "alone"}))
    live = go_live(workflow_source="visualflow")

    started = live.ask("POST", "/runs/start", body={"flow_id": "alone"})
    shown = live.ask("GET", "/workflows/alone/flow")
    refused = live.upload(packed())

    assert started.status == 200
    assert [item["flow_id"] for item in live.ask("GET", "/bundles").json["flows"]] == ["alone"]
    assert shown.json["flow"]["id"] == "alone"
    assert (refused.status, refused.json["code"]) == (409, "no_bundles")
