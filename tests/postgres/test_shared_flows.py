"""Gateways on one database: bundles, deprecations and drawn flows that come through one of them are there for all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.hosts import BundleHost
from abstractgateway_postgres import news
from tests.http.conftest import LiveGateway, echo_flow, packed
from tests.postgres.conftest import Join
from tests.postgres.proxy import Proxy
from tests.postgres.server import shared, url_of
from tests.service.waiting import wait_for_status
from tests.visualflow.conftest import flow, node

PATIENCE_S = 10.0
ASKING = flow(
    [
        node("s", "on_flow_start", "", ">"),
        node("ask", "ask_user", "> prompt", "> response", defaults={"prompt": "Go on?"}),
        node("end", "on_flow_end", "> response"),
    ],
    ["s > ask", "ask > end", "ask/response -> end/response"],
    "root",
)


def answer(live: LiveGateway, run_id: str) -> None:
    payload = {"payload": {"response": "yes"}}
    live.service.commands.submit(run_id=run_id, type="resume", payload=payload, command_id=f"c-{run_id}")


def listed(live: LiveGateway) -> list[str]:
    return [item["bundle_ref"] for item in live.ask("GET", "/bundles?all_versions=true").json["items"]]


def output_of(live: LiveGateway, **given: Any) -> Any:
    run_id = live.start(**given)
    live.finish(run_id)
    return live.ask("GET", f"/runs/{run_id}").json["output"]


@contextmanager
def hearing(live: LiveGateway) -> Iterator[Callable[[Callable[[], bool]], bool]]:
    """Give what waits for something that a process sees without being asked, as its runner looks before each step."""
    host: BundleHost = live.service.bundles._host
    changed = threading.Condition()
    newest = live.service.stores.shelf.newest

    def listen() -> None:
        newest()
        host.look()
        with changed:
            changed.notify_all()

    def wait_until(is_so: Callable[[], bool]) -> bool:
        with changed:
            return changed.wait_for(is_so, PATIENCE_S)

    live.service.stores._news.on_shelf = listen
    yield wait_until
    live.service.stores._news.on_shelf = newest


def workflows(live: LiveGateway) -> list[str]:
    """Return what a process knows, without having it look."""
    return list(live.service.bundles._host._index.workflows)


def test_a_bundle_that_one_gateway_took_is_started_at_another_at_once(one: LiveGateway, two: LiveGateway) -> None:
    for number in range(5):
        installed = one.upload(packed(f"echo{number}"))
        assert installed.status == 200

        assert output_of(two, bundle_id=f"echo{number}", input_data={"prompt": "hi"})["prompt"] == "hi"


def test_a_newer_version_counts_at_once_everywhere(one: LiveGateway, two: LiveGateway) -> None:
    one.upload(packed())
    first = two.ask("GET", "/bundles/echo").json["bundle_ref"]
    two.upload(packed(version="0.0.2"))
    run_id = one.start(bundle_id="echo", input_data={})

    assert first == "echo@0.0.1"
    assert one.ask("GET", f"/runs/{run_id}").json["workflow_id"] == "echo@0.0.2:root"
    assert listed(one) == listed(two) == ["echo@0.0.1", "echo@0.0.2"]


def test_others_are_told_of_uploads_and_removals(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "SHORTEST_LOOK_S", 60.0)
    monkeypatch.setattr(news, "LONGEST_LOOK_S", 60.0)
    one, two = join(), join()

    with hearing(two) as wait_until:
        one.upload(packed())
        assert wait_until(lambda: workflows(two) == ["echo@0.0.1:root"])
        one.ask("DELETE", "/bundles/echo")
        assert wait_until(lambda: workflows(two) == [])


def test_a_change_of_which_nobody_was_told_is_found(one: LiveGateway, two: LiveGateway, tmp_path: Path) -> None:
    one.upload(packed())
    database = url_of(tmp_path).rpartition("/")[2]
    with hearing(two) as wait_until:
        assert wait_until(lambda: workflows(two) == ["echo@0.0.1:root"])
        shared().execute(
            "SET search_path = abstractgateway; UPDATE counters SET value = value + 1 WHERE name = 'shelf'; "
            "UPDATE shelf SET sha256 = NULL, revision = revision + 1",
            database,
        )
        assert wait_until(lambda: workflows(two) == [])


def test_a_run_goes_on_when_its_bundle_was_replaced_or_removed_through_another_gateway(
    one: LiveGateway, two: LiveGateway
) -> None:
    two.upload(packed("ask", flow=ASKING))
    first, second = (two.start(bundle_id="ask", input_data={}) for _ in range(2))
    for run_id in (first, second):
        wait_for_status(one.service, run_id, "waiting")
    two.upload(packed("ask", flow=echo_flow()), overwrite="true")
    answer(two, first)
    two.ask("DELETE", "/bundles/ask")
    answer(two, second)

    outputs = [wait_for_status(one.service, run_id, "completed", "failed")["output"] for run_id in (first, second)]

    assert [output["response"] for output in outputs] == ["yes", "yes"]
    assert listed(one) == []


def test_of_the_same_upload_to_two_gateways_at_once_one_wins(one: LiveGateway, two: LiveGateway) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda live: live.upload(packed()), (one, two, one, two)))

    refused = [answer for answer in answers if answer.status != 200]
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    assert {answer.json["code"] for answer in refused} == {"bundle_installed"}
    assert listed(one) == ["echo@0.0.1"]


def test_a_bundle_is_removed_through_another_gateway(one: LiveGateway, two: LiveGateway) -> None:
    one.upload(packed())

    removed = two.ask("DELETE", "/bundles/echo?bundle_version=0.0.1")
    started = one.ask("POST", "/runs/start", body={"bundle_id": "echo"})

    assert removed.json["removed"] == 1
    assert started.status == 404
    assert two.ask("DELETE", "/bundles/echo").status == 404


def test_a_deprecation_holds_at_every_gateway_at_once(one: LiveGateway, two: LiveGateway) -> None:
    one.upload(packed())
    one.ask("POST", "/bundles/echo/deprecate", body={"reason": "old"})
    refused = two.ask("POST", "/runs/start", body={"bundle_id": "echo"})
    hidden = listed(two)

    back = two.ask("POST", "/bundles/echo/undeprecate", body={})
    started = one.ask("POST", "/runs/start", body={"bundle_id": "echo"})

    assert (refused.status, refused.json["code"], hidden) == (409, "workflow_deprecated", [])
    assert (back.json["removed"], started.status) == (True, 200)


def test_a_flow_is_drawn_at_one_gateway_and_published_at_another(one: LiveGateway, two: LiveGateway) -> None:
    drawn = {**echo_flow(), "name": "Echo"}
    del drawn["id"]
    kept = one.ask("POST", "/visualflows", body=drawn).json
    changed = two.ask("PUT", f"/visualflows/{kept['id']}", body={"description": "again"}).json
    seen = one.ask("GET", "/visualflows").json

    published = [live.ask("POST", f"/visualflows/{kept['id']}/publish").json["bundle_ref"] for live in (one, two)]

    assert seen == [changed]
    assert published == ["Echo@0.0.0", "Echo@0.0.1"]
    assert output_of(one, bundle_id="Echo", input_data={"prompt": "x"})["prompt"] == "x"
    assert two.ask("DELETE", f"/visualflows/{kept['id']}").status == 200
    assert one.ask("GET", f"/visualflows/{kept['id']}").status == 404


def test_bundles_of_a_directory_are_served_by_the_processes_that_have_it(one: LiveGateway, two: LiveGateway) -> None:
    (one.flows_dir / "own.flow").write_bytes(packed("own"))
    one.ask("POST", "/bundles/reload")
    two.upload(packed())

    refused = one.ask("DELETE", "/bundles/own")

    assert listed(one) == ["echo@0.0.1", "own@0.0.1"]
    assert listed(two) == ["echo@0.0.1"]
    assert output_of(one, bundle_id="own", input_data={"prompt": "x"})["prompt"] == "x"
    assert (refused.status, refused.json["code"]) == (409, "bundle_deployed")


def test_a_directory_that_is_one_bundle_stays_so_beside_what_is_uploaded(join: Join, tmp_path: Path) -> None:
    (tmp_path / "only.flow").write_bytes(packed("only"))
    live = join(flows_dir=tmp_path / "only.flow")

    uploaded = live.upload(packed())

    assert uploaded.status == 200
    assert listed(live) == ["echo@0.0.1", "only@0.0.1"]


def test_what_was_uploaded_outlives_all_processes(join: Join) -> None:
    first = join()
    first.upload(packed())
    first.ask("POST", "/bundles/echo/deprecate", body={"reason": "old"})
    flow_id = first.ask("POST", "/visualflows", body={"name": "x"}).json["id"]
    first.service.close()

    later = join(runner_enabled=True)

    assert later.ask("GET", "/bundles?include_deprecated=1").json["items"][0]["entrypoints"][0]["deprecated"] is True
    assert later.ask("GET", f"/visualflows/{flow_id}").status == 200


def test_a_directory_for_drawn_flows_that_is_named_is_used(join: Join, tmp_path: Path) -> None:
    directory = tmp_path / "drawn"
    one, two = join(visualflows_dir=directory), join(visualflows_dir=directory)

    flow_id = one.ask("POST", "/visualflows", body={"name": "x"}).json["id"]

    assert json.loads((directory / f"{flow_id}.json").read_text())["name"] == "x"
    assert two.ask("GET", f"/visualflows/{flow_id}").status == 200


def test_an_upload_without_the_database_is_refused_and_can_be_repeated(join: Join, tmp_path: Path) -> None:
    proxy = Proxy(shared().port)
    url = url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/")
    one, cut = join(), join(database_url=url)
    cut.service.stores.database.patience_s = 0.05
    try:
        proxy.cut_now(stays_away=True)
        refused = cut.upload(packed())
        between = listed(one)
        proxy.heal()
        repeated = cut.upload(packed())
    finally:
        proxy.close()

    assert (refused.status, refused.json["code"]) == (503, "database_unreachable")
    assert "retry-after" in refused.headers
    assert between == []
    assert repeated.status == 200
    assert listed(one) == ["echo@0.0.1"]
