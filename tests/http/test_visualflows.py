from __future__ import annotations

import io
import json
import re
import zipfile

import pytest

from .conftest import echo_flow, packed

PARTS = ("name", "description", "interfaces", "nodes", "edges", "entryNode")


def drawing(**changes):
    flow = echo_flow()
    return {**{key: flow[key] for key in ("name", "nodes", "edges")}, **changes}


def calling(other: str):
    """Return a drawing whose only step runs another flow."""
    nodes = [
        {"id": "s", "type": "on_flow_start", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}},
        {"id": "c", "type": "subflow", "data": {"subflowId": other}},
    ]
    edge = {"id": "1", "source": "s", "sourceHandle": "exec-out", "target": "c", "targetHandle": "exec-in"}
    return {"name": "caller", "nodes": nodes, "edges": [edge]}


def create(live, **changes) -> str:
    flow_id: str = live.ask("POST", "/visualflows", body=drawing(**changes)).json["id"]
    return flow_id


def stored(live, tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "visualflows").glob("*"))


@pytest.fixture
def live(go_live):
    return go_live(store_backend="file")


def test_a_new_flow_is_a_file_and_comes_back_with_an_id_and_its_times(live, tmp_path):
    answer = live.ask("POST", "/visualflows", body={"name": "My Flow!"})

    flow = answer.json
    path = tmp_path / "data" / "visualflows" / f"{flow['id']}.json"
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{8}", flow["id"])
    assert {name: flow[name] for name in PARTS} == {
        "name": "My Flow!",
        "description": "",
        "interfaces": [],
        "nodes": [],
        "edges": [],
        "entryNode": None,
    }
    assert flow["created_at"] == flow["updated_at"]
    assert path.read_text() == json.dumps(flow, indent=2, ensure_ascii=False)
    assert live.ask("GET", f"/visualflows/{flow['id']}").json == flow


def test_the_list_is_an_array_by_file_name_without_broken_files(live, tmp_path):
    first = create(live)
    directory = tmp_path / "data" / "visualflows"
    (directory / "broken.json").write_text("{")
    (directory / "list.json").write_text("[]")
    (directory / "~named.json").write_text('{"name": "by hand"}')

    listed = live.ask("GET", "/visualflows").json

    assert [flow["id"] for flow in listed] == [first, "~named"]


def test_an_empty_gateway_lists_no_flows(live):
    answer = live.ask("GET", "/visualflows")

    assert (answer.status, answer.json) == (200, [])


def test_an_update_changes_what_is_given_and_keeps_the_rest(live):
    flow_id = create(live, description="old", interfaces=["i"])
    before = live.ask("GET", f"/visualflows/{flow_id}").json

    answer = live.ask("PUT", f"/visualflows/{flow_id}", body={"name": "new", "description": None, "id": "x", "more": 1})

    assert answer.json == {**before, "name": "new", "updated_at": answer.json["updated_at"]}
    assert answer.json["updated_at"] > before["updated_at"]
    assert live.ask("GET", f"/visualflows/{flow_id}").json == answer.json


def test_an_empty_list_and_text_are_values_of_an_update(live):
    flow_id = create(live, description="old", interfaces=["i"])

    answer = live.ask("PUT", f"/visualflows/{flow_id}", body={"description": "", "interfaces": [], "nodes": []})

    assert (answer.json["description"], answer.json["interfaces"], answer.json["nodes"]) == ("", [], [])


def test_a_deleted_flow_is_gone(live, tmp_path):
    flow_id = create(live)

    answer = live.ask("DELETE", f"/visualflows/{flow_id}")

    assert answer.json == {"status": "deleted", "id": flow_id}
    assert stored(live, tmp_path) == []
    assert live.ask("DELETE", f"/visualflows/{flow_id}").status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
def test_an_unknown_flow_is_not_found(live, method):
    path = "/visualflows/nope/publish" if method == "POST" else "/visualflows/nope"

    answer = live.ask(method, path, body={} if method in ("PUT", "POST") else None)

    assert (answer.status, answer.json["code"]) == (404, "flow_not_found")
    assert answer.json["detail"] == "Flow 'nope' not found"


@pytest.mark.parametrize("flow_id", ["..", "a%20b", "a%5Cb", "a%00b", "%C3%A9", "x" * 201, "a%0A"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_id_that_is_no_file_name_is_refused(live, tmp_path, method, flow_id):
    answer = live.ask(method, f"/visualflows/{flow_id}", body={"name": "x"} if method == "PUT" else None)

    assert answer.status == 400
    assert answer.json["detail"].startswith("flow_id: ")
    assert stored(live, tmp_path) == []


def test_a_path_out_of_the_directory_is_no_route(live):
    assert live.ask("GET", "/visualflows/..%2F..%2Fdata%2Fx").status == 404


@pytest.mark.parametrize(
    ("body", "place", "kind"),
    [
        ({}, "name", "missing"),
        ({"name": None}, "name", "string_type"),
        ({"name": 1}, "name", "string_type"),
        ({"name": "x", "description": 1}, "description", "string_type"),
        ({"name": "x", "interfaces": "i"}, "interfaces", "list_type"),
        ({"name": "x", "interfaces": [1]}, "interfaces 0", "string_type"),
        ({"name": "x", "nodes": {}}, "nodes", "list_type"),
        ({"name": "x", "nodes": [1]}, "nodes 0", "dict_type"),
        ({"name": "x", "edges": [[]]}, "edges 0", "dict_type"),
        ({"name": "x", "entryNode": 5}, "entryNode", "string_type"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(live, tmp_path, body, place, kind):
    answer = live.ask("POST", "/visualflows", body=body)

    assert answer.status == 422
    (problem,) = answer.json["detail"]
    assert (" ".join(map(str, problem["loc"])), problem["type"]) == (f"body {place}", kind)
    assert stored(live, tmp_path) == []


def test_a_flow_that_is_nested_too_deeply_is_refused(live, tmp_path):
    deep: object = {}
    for _ in range(250):
        deep = {"x": deep}

    answer = live.ask("POST", "/visualflows", body={"name": "x", "nodes": [deep]})

    assert (answer.status, "nested" in answer.json["detail"]) == (400, True)
    assert stored(live, tmp_path) == []


def test_a_damaged_flow_says_so_and_can_be_deleted(live, tmp_path):
    flow_id = create(live)
    (tmp_path / "data" / "visualflows" / f"{flow_id}.json").write_text("{")

    answers = [
        live.ask("GET", f"/visualflows/{flow_id}"),
        live.ask("PUT", f"/visualflows/{flow_id}", body={"name": "x"}),
    ]

    assert [(answer.status, answer.json["code"]) for answer in answers] == [(503, "flow_damaged")] * 2
    assert str(tmp_path) not in answers[0].body.decode()
    assert live.ask("DELETE", f"/visualflows/{flow_id}").status == 200


def test_the_directory_of_the_settings_is_used(go_live, tmp_path):
    live = go_live(visualflows_dir=tmp_path / "drawn")

    flow_id = create(live)

    assert [path.name for path in (tmp_path / "drawn").iterdir()] == [f"{flow_id}.json"]


def test_with_stores_in_memory_flows_are_gone_with_the_gateway(go_live, tmp_path):
    live = go_live(store_backend="memory")

    flow_id = create(live)

    assert live.ask("GET", f"/visualflows/{flow_id}").status == 200
    assert live.ask("POST", f"/visualflows/{flow_id}/publish", body={}).status == 200
    assert not (tmp_path / "data" / "visualflows").exists()


def published(live, flow_id: str, **wishes):
    return live.ask("POST", f"/visualflows/{flow_id}/publish", body=wishes)


def manifest(live, ref: str):
    with zipfile.ZipFile(io.BytesIO((live.flows_dir / f"{ref}.flow").read_bytes())) as archive:
        return json.loads(archive.read("manifest.json"))


def test_a_published_flow_can_be_started(live):
    flow_id = create(live, name="My Flow!", description="d", interfaces=["i"])

    answer = published(live, flow_id)

    assert answer.json == {
        "ok": True,
        "bundle_id": "My-Flow",
        "bundle_version": "0.0.0",
        "bundle_ref": "My-Flow@0.0.0",
        "bundle_path": "My-Flow@0.0.0.flow",
        "gateway_reloaded": True,
        "gateway_reload_error": None,
        "warnings": [],
    }
    run_id = live.start(bundle_id="My-Flow", input_data={"prompt": "hi"})
    live.finish(run_id)
    assert live.ask("GET", f"/runs/{run_id}").json["output"] == {"prompt": "hi", "success": True}
    entry = live.ask("GET", "/bundles").json["items"][0]["entrypoints"][0]
    assert (entry["flow_id"], entry["name"], entry["interfaces"]) == (flow_id, "My Flow!", ["i"])


def test_publishing_again_takes_the_next_version_and_says_where_it_comes_from(live):
    flow_id = create(live, name="root")
    published(live, flow_id)

    answer = published(live, flow_id)

    told = manifest(live, "root@0.0.1")["metadata"]
    assert answer.json["bundle_version"] == "0.0.1"
    assert told["publisher"]["host"] == "abstractgateway"
    assert told["source"] == {
        "root_flow_id": flow_id,
        "root_flow_name": "root",
        "root_flow_updated_at": live.ask("GET", f"/visualflows/{flow_id}").json["updated_at"],
    }
    assert told["lineage"] == {
        "bundle_id": "root",
        "bundle_version": "0.0.1",
        "origin_bundle_version": "0.0.0",
        "previous_bundle_version": "0.0.0",
    }


def test_the_first_version_has_itself_as_its_origin(live):
    published(live, create(live, name="root"))

    assert manifest(live, "root@0.0.0")["metadata"]["lineage"] == {
        "bundle_id": "root",
        "bundle_version": "0.0.0",
        "origin_bundle_version": "0.0.0",
    }


@pytest.mark.parametrize(
    ("there", "following"),
    [
        (["1.2"], "1.2.1"),
        (["3"], "3.0.1"),
        (["beta"], "beta.1"),
        (["0.9.9", "0.10.0"], "0.10.1"),
        (["1.2.3.4"], "1.2.4"),
    ],
)
def test_without_a_version_the_one_after_the_latest_is_taken(live, there, following):
    for version in there:
        live.upload(packed(bundle_id="root", version=version))

    assert published(live, create(live, name="root")).json["bundle_version"] == following


def test_a_version_that_cannot_be_read_is_not_taken_again(live):
    (live.flows_dir / "root@0.0.0.flow").write_bytes(b"broken")

    assert published(live, create(live, name="root")).json["bundle_version"] == "0.0.1"
    assert (live.flows_dir / "root@0.0.0.flow").read_bytes() == b"broken"


def test_the_wished_names_are_cleaned(live):
    answer = published(live, create(live), bundle_id="  a  b!!c ", bundle_version=" dev ")

    assert answer.json["bundle_ref"] == "a-b-c@dev"


def test_a_name_of_which_nothing_is_left_is_replaced_by_the_flow_id(live):
    flow_id = create(live, name="!?")

    assert published(live, flow_id, bundle_id="///").json["bundle_id"] == flow_id


def test_the_editor_publishes_dev_over_and_over(live):
    flow_id = create(live, name="root")
    wishes = {"bundle_version": "dev", "overwrite": True, "reload_gateway": True}
    published(live, flow_id, **wishes)
    live.ask("PUT", f"/visualflows/{flow_id}", body={"description": "second"})

    answer = published(live, flow_id, **wishes)

    assert (answer.status, answer.json["gateway_reloaded"]) == (200, True)
    entry = live.ask("GET", "/bundles/root?bundle_version=dev").json["entrypoints"][0]
    assert entry["description"] == "second"
    assert "previous_bundle_version" not in manifest(live, "root@dev")["metadata"]["lineage"]


def test_a_version_that_is_there_needs_overwrite(live):
    flow_id = create(live, name="root")
    published(live, flow_id, bundle_version="dev")
    before = (live.flows_dir / "root@dev.flow").read_bytes()

    answer = published(live, flow_id, bundle_version="dev")

    assert (answer.status, answer.json["code"]) == (400, "bundle_installed")
    assert "bundle_version 'dev' already exists for bundle 'root'" in answer.json["detail"]
    assert (live.flows_dir / "root@dev.flow").read_bytes() == before


def test_a_version_that_cannot_name_a_file_is_refused(live):
    answer = published(live, create(live), bundle_version="1/2")

    assert (answer.status, "'1-2'" in answer.json["detail"]) == (400, True)
    assert list(live.flows_dir.iterdir()) == []


def test_without_reload_the_bundle_is_there_and_says_that_it_is_not_loaded(live):
    answer = published(live, create(live, name="root"), reload_gateway=False)

    assert (answer.json["gateway_reloaded"], answer.json["gateway_reload_error"]) == (False, None)
    assert (live.flows_dir / "root@0.0.0.flow").exists()


def test_every_flow_that_is_reached_is_packed_and_no_other(live):
    inner = create(live, name="inner")
    middle = live.ask("POST", "/visualflows", body=calling(inner)).json["id"]
    outer = live.ask("POST", "/visualflows", body=calling(middle)).json["id"]
    create(live, name="other")

    answer = published(live, outer, bundle_id="all")

    assert answer.status == 200
    assert sorted(manifest(live, "all@0.0.0")["flows"]) == sorted([inner, middle, outer])
    run_id = live.start(bundle_id="all")
    live.finish(run_id)
    assert live.ask("GET", f"/runs/{run_id}").json["status"] == "completed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nodes": [], "edges": []}, "Failed to publish bundle: "),
        (calling("gone"), "the flows ['gone'] are needed"),
        (calling("../../x"), "the flows ['../../x'] are needed"),
        ({"nodes": [{"id": "s", "type": "no_such_node", "data": {}}], "edges": []}, "Failed to publish bundle: "),
    ],
)
def test_a_flow_that_does_not_compile_is_refused_with_the_reason_and_nothing_is_written(
    live, tmp_path, changes, reason
):
    answer = published(live, create(live, **changes))

    assert answer.status == 400
    assert reason in answer.json["detail"]
    assert str(tmp_path) not in answer.body.decode()
    assert list(live.flows_dir.iterdir()) == []


def test_a_flow_that_is_larger_than_a_bundle_may_be_is_refused(go_live):
    live = go_live(max_bundle_bytes=500)

    answer = published(live, create(live))

    assert (answer.status, answer.json["code"]) == (413, "bundle_too_large")


def test_publishing_needs_bundles(go_live):
    live = go_live(workflow_source="visualflow")

    answer = published(live, create(live))

    assert (answer.status, answer.json["code"]) == (409, "no_bundles")


def test_publishing_without_a_body_takes_the_defaults(live):
    answer = live.ask("POST", f"/visualflows/{create(live, name='root')}/publish")

    assert (answer.status, answer.json["bundle_ref"]) == (200, "root@0.0.0")


def test_a_stranger_reads_no_flows(live):
    assert live.ask("GET", "/visualflows", "Authorization: none").status == 401
