from __future__ import annotations

import pytest

from abstractgateway.jsonvalue import loads
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.models import RunStatus, StepRecord, StepStatus, WaitReason
from abstractgateway.stores.base import Commit, RunQuery, Stores
from tests.stores.shapes import FILES, a_run, at, save, waiting

R, W, C = RunStatus.RUNNING, RunStatus.WAITING, RunStatus.COMPLETED


def ids(stores: Stores, **query: object) -> list[str]:
    return [row.run_id for row in stores.runs.find(RunQuery(**query))]


@pytest.fixture
def seven(stores: Stores) -> Stores:
    """Seven runs, each updated a second after the one before."""
    states = [
        a_run("r1", session_id="s1", updated_at=at(1)),
        a_run("r2", status=C, session_id="s1", workflow_id="__internal", updated_at=at(2)),
        waiting("r3", key="k1", parent_run_id="r1", updated_at=at(3)),
        waiting("r4", until=at(600), parent_run_id="r1", session_id="s2", updated_at=at(4)),
        a_run("r5", parent_run_id="r3", updated_at=at(5)),
        a_run("r6", workflow_id="x__y", updated_at=at(6)),
        a_run("r7", workflow_id="other", status=C, updated_at=at(7)),
    ]
    for state in states:
        save(stores, state)
    return stores


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, "r7 r6 r5 r4 r3 r2 r1"),
        ({"limit": None}, "r7 r6 r5 r4 r3 r2 r1"),
        ({"limit": 2}, "r7 r6"),
        ({"limit": 0}, ""),
        ({"limit": -1}, ""),
        ({"statuses": (R,)}, "r6 r5 r1"),
        ({"statuses": (R, W)}, "r6 r5 r4 r3 r1"),
        ({"statuses": (W, R, W), "limit": 3}, "r6 r5 r4"),
        ({"statuses": (RunStatus.FAILED,)}, ""),
        ({"wait_reason": WaitReason.UNTIL}, "r4"),
        ({"wait_reason": WaitReason.EVENT, "statuses": (W,)}, "r3"),
        ({"workflow_id": "other"}, "r7"),
        ({"session_id": "s1"}, "r2 r1"),
        ({"session_id": "s1", "statuses": (C,)}, "r2"),
        ({"session_id": "nobody"}, ""),
        ({"parent_run_id": "r1"}, "r4 r3"),
        ({"parent_run_id": "r1", "limit": 1}, "r4"),
        ({"parent_run_id": "r1", "wait_reason": WaitReason.EVENT}, "r3"),
        ({"root_only": True}, "r7 r6 r2 r1"),
        ({"hide_internal": True}, "r7 r6 r5 r4 r3 r1"),
        ({"root_only": True, "hide_internal": True, "statuses": (R, C), "limit": 2}, "r7 r6"),
    ],
)
def test_a_query_finds_the_runs_it_wants_latest_first(seven: Stores, query: dict[str, object], wanted: str) -> None:
    found = ids(seven, **query)

    assert found == wanted.split()


def test_an_update_moves_a_run_to_the_front(seven: Stores) -> None:
    save(seven, a_run("r1", status=C, session_id="s1", updated_at=at(50)))

    assert ids(seven, limit=2) == ["r1", "r7"]
    assert ids(seven, statuses=(C,)) == ["r1", "r7", "r2"]
    assert ids(seven, statuses=(R,)) == ["r6", "r5"]
    assert ids(seven, session_id="s1") == ["r1", "r2"]


def test_an_older_time_puts_a_run_where_it_belongs(seven: Stores) -> None:
    save(seven, a_run("r7", workflow_id="other", status=C, updated_at=at(2.5)))

    assert ids(seven) == ["r6", "r5", "r4", "r3", "r7", "r2", "r1"]


def test_times_are_compared_as_instants_whatever_their_offset(stores: Stores) -> None:
    save(stores, a_run("noon-utc", updated_at="2026-11-21T12:00:00Z"))
    save(stores, a_run("later-in-new-york", updated_at="2026-11-21T08:30:00-05:00"))
    save(stores, a_run("earlier-in-tokyo", updated_at="2026-11-21T20:00:00+09:00"))
    save(stores, a_run("naive", updated_at="2026-11-21T12:15:00"))

    assert ids(stores) == ["later-in-new-york", "naive", "noon-utc", "earlier-in-tokyo"]
    assert ids(stores, statuses=(R,), limit=1) == ["later-in-new-york"]


def test_a_time_that_is_none_hides_no_run(stores: Stores) -> None:
    save(stores, a_run("odd", updated_at="yesterday", created_at="long ago"))
    save(stores, a_run("even"))

    assert ids(stores) == ["even", "odd"]
    assert [row["run_id"] for row in stores.runs.list_run_index()] == ["even", "odd"]


def test_runs_of_one_instant_come_with_the_last_committed_first(stores: Stores) -> None:
    for name in ("a", "c", "b"):
        save(stores, a_run(name))

    assert ids(stores) == ["b", "c", "a"]
    assert ids(stores, statuses=(R, C)) == ["b", "c", "a"]


def test_a_row_says_what_listings_need(seven: Stores) -> None:
    row = seven.runs.row("r3")

    assert (row.wait_key, row.wait_reason, row.wait_due, row.parent_run_id) == ("k1", WaitReason.EVENT, None, "r1")
    assert seven.runs.row("r4").wait_due == 1795245000.0
    assert seven.runs.row("nobody") is None


def test_runs_that_wait_on_a_key_are_found_oldest_wait_first(stores: Stores) -> None:
    save(stores, waiting("late", key="k1", updated_at=at(9)))
    save(stores, waiting("early", key="k2", updated_at=at(1)))
    save(stores, waiting("middle", key="k1", updated_at=at(5)))
    save(stores, waiting("other", key="k3", updated_at=at(2)))

    assert stores.runs.waiting_on(["k1", "k2", "k1", "none"]) == ["early", "middle", "late"]
    assert stores.runs.waiting_on([]) == []


def test_a_run_that_goes_on_waits_no_more(stores: Stores) -> None:
    save(stores, waiting("r1", key="k"))
    save(stores, a_run("r1"))

    assert stores.runs.waiting_on(["k"]) == []
    assert stores.runs.row("r1").wait_key is None


def test_children_are_found_oldest_first_however_often_they_change(stores: Stores) -> None:
    save(stores, a_run("younger", parent_run_id="p", created_at=at(20)))
    save(stores, a_run("older", parent_run_id="p", created_at="2026-11-21T08:00:10+01:00"))
    save(stores, a_run("stranger", parent_run_id="q", created_at=at(1)))

    save(stores, a_run("older", parent_run_id="p", created_at="2026-11-21T08:00:10+01:00", updated_at=at(99)))

    assert stores.runs.children_of("p") == ["older", "younger"]
    assert [state.run_id for state in stores.runs.list_children(parent_run_id="p")] == ["older", "younger"]
    assert stores.runs.list_children(parent_run_id="p", status=C) == []
    assert stores.runs.children_of("nobody") == []


def test_runs_are_listed_by_status_wait_and_workflow(seven: Stores) -> None:
    listed = seven.runs.list_runs(status=W, wait_reason=WaitReason.EVENT)
    limited = seven.runs.list_runs(limit=0)
    by_workflow = seven.runs.list_runs(workflow_id="other")

    assert [state.run_id for state in listed] == ["r3"]
    assert [state.run_id for state in limited] == ["r7"]
    assert [state.run_id for state in by_workflow] == ["r7"]


def test_due_timers_are_listed_earliest_first_whatever_their_offset(stores: Stores) -> None:
    save(stores, waiting("second", until="2026-11-21T07:00:20Z"))
    save(stores, waiting("first", until="2026-11-21T02:00:10-05:00"))
    save(stores, waiting("not-yet", until="2026-11-21T08:30:00+01:00"))
    save(stores, waiting("nonsense", until="tomorrow"))
    save(stores, waiting("no-timer", key="k"))

    due = stores.runs.list_due_wait_until(now_iso="2026-11-21T07:00:20+00:00")

    assert [state.run_id for state in due] == ["first", "second"]
    assert len(stores.runs.list_due_wait_until(now_iso=at(20), limit=1)) == 1
    assert stores.runs.list_due_wait_until(now_iso=at(20), limit=0) == []


def test_the_run_index_has_the_fields_of_abstractruntime(seven: Stores) -> None:
    rows = seven.runs.list_run_index(status=W, root_only=False, session_id="s2")

    assert rows == [
        {
            "run_id": "r4",
            "workflow_id": "wf",
            "status": "waiting",
            "wait_reason": "until",
            "wait_until": "2026-11-21T07:10:00+00:00",
            "parent_run_id": "r1",
            "actor_id": None,
            "session_id": "s2",
            "created_at": at(0).replace(".000000", ""),
            "updated_at": at(4),
        }
    ]
    assert [row["run_id"] for row in seven.runs.list_run_index(root_only=True, limit=2)] == ["r7", "r6"]


@pytest.mark.parametrize(
    ("after", "limit", "first", "count", "next_after"),
    [
        (0, 3, 1, 3, 3),
        (3, 100, 4, 197, 200),
        (199, 1, 200, 1, 200),
        (126, 3, 127, 3, 129),
        (64, 64, 65, 64, 128),
        (200, 10, None, 0, 200),
        (500, 10, None, 0, 500),
        (0, 0, None, 0, 0),
        (7, -5, None, 0, 7),
        (-4, 2, 1, 2, 2),
    ],
)
def test_a_ledger_is_read_by_pages(
    stores: Stores, after: int, limit: int, first: int | None, count: int, next_after: int
) -> None:
    for _ in range(20):
        save(stores, a_run(), count=10)

    page = stores.ledger.read("r1", after, 200 if limit == 100 else limit)

    assert (len(page.records), page.next_after) == (count, next_after)
    if first is not None:
        assert b'"i":%d,' % first in page.records[0]


def test_pages_give_the_bytes_that_were_committed(stores: Stores) -> None:
    written: list[bytes] = []
    for number in range(12):
        save(stores, a_run(), count=11, text=f"ü{number}")
    whole = list(stores.ledger.read("r1", 0, 1000).records)

    for after in range(0, 132, 7):
        written += stores.ledger.read("r1", after, 7).records

    assert written == whole
    assert len(whole) == 132
    assert verify_chain(stores.ledger.list("r1")).ok


def test_an_unknown_run_has_an_empty_ledger(stores: Stores) -> None:
    page = stores.ledger.read("nobody", 0, 10)

    assert (list(page.records), page.next_after) == ([], 0)
    assert stores.ledger.count("nobody") == 0
    assert stores.ledger.list("nobody") == []
    assert stores.ledger.read_record("nobody", 1) is None


def test_single_records_are_read_by_their_cursor(stores: Stores) -> None:
    save(stores, a_run(), count=3)

    assert stores.ledger.read_record("r1", 2)["result"]["i"] == 2
    assert [stores.ledger.read_record("r1", cursor) for cursor in (0, -1, 4)] == [None, None, None]


def test_decoded_pages_carry_the_cursor_on(stores: Stores) -> None:
    save(stores, a_run(), count=3)

    found, cursor = stores.ledger.list_after(run_id="r1", after=1, limit=1)

    assert ([record["result"]["i"] for record in found], cursor) == ([2], 2)


def test_records_appended_one_by_one_are_chained(stores: Stores) -> None:
    for number in range(3):
        stores.ledger.append(StepRecord("alone", f"s{number}", "n", StepStatus.COMPLETED, result={"i": number}))

    report = verify_chain(stores.ledger.list("alone"))

    assert (report.ok, report.count, stores.ledger.count("alone")) == (True, 3, 3)
    assert stores.runs.open("alone") is None


def test_a_run_may_be_made_after_its_ledger_began(stores: Stores) -> None:
    stores.ledger.append(StepRecord("r1", "s0", "n", StepStatus.COMPLETED))

    stores.runs.save(a_run())

    assert (stores.runs.open("r1").revision, stores.runs.open("r1").ledger_len) == (1, 1)


def test_a_record_appended_while_another_one_is_follows_it(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(name: str) -> StepRecord:
        return StepRecord("alone", name, "n", StepStatus.COMPLETED)

    commit, others = stores.commit, iter(["second", "third"])

    def commit_late(mine: Commit) -> object:
        name = next(others, None)
        if name is not None:
            stores.ledger.append(record(name))
        return commit(mine)

    monkeypatch.setattr(stores, "commit", commit_late)
    stores.ledger.append(record("first"))

    found = stores.ledger.list("alone")
    assert {item["step_id"] for item in found} == {"first", "second", "third"}
    assert (verify_chain(found).ok, len(found)) == (True, 3)


@pytest.mark.parametrize("backend", [FILES], indirect=True, ids=["files"])
def test_ledgers_are_read_by_turns_whatever_is_remembered_of_them(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abstractgateway.stores.ledger_index.MAX_RUNS", 2)
    for number in range(5):
        save(stores, a_run(f"r{number}"), count=130)

    for _ in range(2):
        for number in range(5):
            for after in (0, 63, 64, 127):
                page = stores.ledger.read(f"r{number}", after, 3)
                assert [loads(record)["result"]["i"] for record in page.records] == list(range(after + 1, after + 4))
    assert len(stores.view.index._runs) == 2


def test_runs_are_counted_by_status(stores: Stores) -> None:
    none = dict.fromkeys(RunStatus, 0)
    assert stores.runs.count() == none

    for number, status in enumerate((RunStatus.RUNNING, RunStatus.RUNNING, RunStatus.COMPLETED)):
        save(stores, a_run(f"r{number}", status=status))
    save(stores, a_run("r0", status=RunStatus.FAILED))

    assert stores.runs.count() == {**none, RunStatus.RUNNING: 1, RunStatus.COMPLETED: 1, RunStatus.FAILED: 1}
