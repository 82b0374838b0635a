from __future__ import annotations

import json

import pytest

from .conftest import echo_flow, packed


@pytest.fixture
def base(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    return base


@pytest.fixture
def live(go_live, base, tmp_path):
    live = go_live(workspace_dir=base, workspace_mounts=(("other", str(tmp_path / "other")),))
    live.upload(packed())
    return live


def inputs(live, run_id: str):
    return live.ask("GET", f"/runs/{run_id}/input_data").json


def test_a_flow_without_a_bundle_has_its_flow_id(go_live):
    live = go_live(workflow_source="visualflow")
    (live.flows_dir / "echo.json").write_text(json.dumps({**echo_flow(), "id": "echo"}))

    shown = inputs(live, live.start(flow_id="echo", input_data={"prompt": "hi", "x": 1}))

    assert (shown["bundle_id"], shown["flow_id"], shown["pin_ids"]) == (None, "echo", ["prompt", "n"])
    assert shown["input_data"]["prompt"] == "hi"
    assert "bundle_version" not in shown


def test_a_flow_that_is_gone_has_no_flow_id(go_live):
    live = go_live(workflow_source="visualflow")
    path = live.flows_dir / "echo.json"
    path.write_text(json.dumps({**echo_flow(), "id": "echo"}))
    run_id = live.start(flow_id="echo", input_data={"prompt": "hi"})
    live.finish(run_id)
    path.unlink()
    live.ask("POST", "/bundles/reload")

    shown = inputs(live, run_id)

    assert (shown["flow_id"], shown["pin_ids"], shown["input_data"]["prompt"]) == (None, [], "hi")


def test_a_run_without_a_workspace_shows_none(live):
    assert inputs(live, live.start(bundle_id="echo"))["workspace"] == {}


@pytest.mark.parametrize(("inside", "shown"), [("", "."), ("sub/dir", "sub/dir")])
def test_a_workspace_inside_the_base_is_shown_relative_to_it(live, base, inside, shown):
    run_id = live.start(bundle_id="echo", input_data={"workspace_root": str(base / inside)})

    assert inputs(live, run_id)["workspace"] == {"workspace_root": shown}


def test_a_workspace_elsewhere_keeps_its_path(live, tmp_path):
    run_id = live.start(bundle_id="echo", input_data={"workspace_root": str(tmp_path / "other" / "x")})

    assert inputs(live, run_id)["workspace"] == {"workspace_root": str(tmp_path / "other" / "x")}


def test_lists_stay_lists_and_texts_stay_texts(live, base, tmp_path):
    given = {
        "workspace_root": "sub",
        "workspace_access_mode": "workspace_or_allowed",
        "workspace_allowed_paths": [str(base / "a"), str(base), str(tmp_path / "other")],
        "workspace_ignored_paths": f"x\n{base}/sub/y\n{base}/z",
    }

    assert inputs(live, live.start(bundle_id="echo", input_data=given))["workspace"] == {
        "workspace_root": "sub",
        "workspace_access_mode": "workspace_or_allowed",
        "workspace_allowed_paths": ["a", ".", str(tmp_path / "other")],
        "workspace_ignored_paths": f"x\ny\n{base}/z",
    }


def test_what_is_shown_of_a_workspace_starts_another_run_with_the_same_one(live, base):
    given = {
        "workspace_root": str(base / "sub"),
        "workspace_access_mode": "workspace_or_allowed",
        "workspace_allowed_paths": [str(base / "a")],
        "workspace_ignored_paths": f"{base}/sub/y",
    }
    first = inputs(live, live.start(bundle_id="echo", input_data=given))["workspace"]

    second = inputs(live, live.start(bundle_id="echo", input_data=first))["workspace"]

    assert second == first


def test_without_a_workspace_directory_the_workspaces_of_runs_are_the_base(go_live, tmp_path):
    live = go_live()
    live.upload(packed())
    root = tmp_path / "data" / "workspaces" / "run-1"

    run_id = live.start(bundle_id="echo", input_data={"workspace_root": str(root)})

    assert inputs(live, run_id)["workspace"] == {"workspace_root": "run-1"}


def test_the_variables_of_a_flow_without_inputs_show_no_path_of_the_base(go_live, base):
    live = go_live(workspace_dir=base)
    flow = echo_flow()
    flow["nodes"][0]["data"] = {"outputs": [{"id": "exec-out", "type": "execution"}]}
    live.upload(packed(flow={**flow, "edges": flow["edges"][:1]}))

    shown = inputs(live, live.start(bundle_id="echo", input_data={"workspace_root": str(base / "a"), "x": 1}))

    assert (shown["pin_ids"], shown["input_data"]["x"], shown["input_data"]["workspace_root"]) == ([], 1, "a")
