from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, LeaseLost, StaleWrite, Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import CommitReceipt, Premises
from abstractgateway.runtime.models import RunStatus
from abstractgateway.stores.base import Commit, Stores
from tests.stores.shapes import PATIENCE_S, Backend, a_command, a_run, appending, applied, save, waiting, write

Open = Callable[[Backend, Path], Stores]


def test_a_commit_shows_its_runs_records_command_and_outcome(stores: Stores) -> None:
    stores.commands.append(a_command("first"))
    runs = (write(a_run("r1"), count=2), write(a_run("r2"), count=1))

    receipt = stores.commit(Commit(runs=runs, command=a_command("second"), outcome=applied(a_command("first"), 1)))

    assert receipt.command is not None and receipt.command.seq == 2
    assert [stores.ledger.count(run_id) for run_id in ("r1", "r2")] == [2, 1]
    assert stores.runs.open("r2") is not None
    assert stores.commands.get_cursor() == 1
    assert stores.commands.outcome("first") == applied(a_command("first"), 1)


def test_a_refused_commit_changes_nothing_of_what_it_holds(stores: Stores) -> None:
    save(stores, a_run("old"), count=1)
    stale = write(a_run("old", current_node="other"), count=1)
    commit = Commit(
        runs=(write(a_run("new"), count=3), stale), command=a_command("c"), outcome=applied(a_command("x"), 9)
    )

    with pytest.raises(StaleWrite, match="old"):
        stores.commit(commit)

    assert stores.runs.open("new") is None
    assert stores.ledger.count("new") == 0
    assert stores.ledger.count("old") == 1
    assert stores.commands.get("c") is None
    assert stores.commands.get_cursor() == 0
    assert stores.commands.get_last_seq() == 0


def test_a_run_that_exists_cannot_be_made_again(stores: Stores) -> None:
    save(stores, a_run())

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(write(a_run()),)))


def test_a_run_that_does_not_exist_cannot_be_changed(stores: Stores) -> None:
    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(replace(write(a_run()), expected=3),)))


def test_a_write_made_from_an_older_revision_is_refused(stores: Stores) -> None:
    first = save(stores, a_run())
    save(stores, a_run(current_node="second"))

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(write(a_run(current_node="late"), first),)))

    assert stores.runs.open("r1").state.current_node == "second"


def test_records_that_do_not_follow_the_ledger_are_refused(stores: Stores) -> None:
    stored = save(stores, a_run(), count=2)
    misplaced = replace(write(stored.state, stored, count=1), ledger_len=1)

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(misplaced,)))

    assert stores.ledger.count("r1") == 2


def test_records_alone_are_checked_for_the_revision_as_well(stores: Stores) -> None:
    old = save(stores, a_run(), count=1)
    save(stores, a_run())

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(appending(old, 1),)))


def test_records_alone_leave_the_revision(stores: Stores) -> None:
    stored = save(stores, a_run(), count=1)

    stores.commit(Commit(runs=(appending(stored, 2),)))

    after = stores.runs.open("r1")
    assert (after.revision, after.ledger_len) == (1, 3)
    assert verify_chain(stores.ledger.list("r1")).head_hash == after.ledger_hash
    assert stores.runs.row("r1").ledger_len == 3


def test_a_state_can_follow_records_that_were_appended_alone(stores: Stores) -> None:
    stored = save(stores, a_run(), count=1)
    stores.commit(Commit(runs=(appending(stored, 2),)))

    after = save(stores, a_run(current_node="later"), count=1)

    assert (after.revision, after.ledger_len) == (2, 4)


def test_save_overrides_whatever_is_stored_and_keeps_the_ledger(stores: Stores) -> None:
    save(stores, a_run(), count=2)

    stores.runs.save(a_run(status=RunStatus.COMPLETED))
    stores.runs.save(a_run("fresh"))

    stored = stores.runs.open("r1")
    assert (stored.revision, stored.ledger_len, stored.state.status) == (2, 2, RunStatus.COMPLETED)
    assert stores.runs.open("fresh").revision == 1


def test_one_commit_cannot_write_a_run_twice(stores: Stores) -> None:
    with pytest.raises(Invalid, match="one run"):
        stores.commit(Commit(runs=(write(a_run()), write(a_run()))))


@pytest.mark.parametrize("run_id", ["../evil", "a/b", "", ".hidden", "x\0y", "a" * 300, "line\nbreak", "a\\b"])
def test_an_id_that_is_no_file_name_is_refused(stores: Stores, run_id: str) -> None:
    with pytest.raises(Invalid, match="run_id"):
        stores.commit(Commit(runs=(write(a_run(run_id)),)))

    assert stores.runs.open(run_id) is None


def test_a_record_of_two_lines_is_refused(stores: Stores) -> None:
    broken = replace(write(a_run()), records=(b'{"a":\n1}',))

    with pytest.raises(Invalid, match="line break"):
        stores.commit(Commit(runs=(broken,)))


def test_a_write_with_the_state_of_another_run_is_refused(stores: Stores) -> None:
    with pytest.raises(Invalid, match="r2"):
        stores.commit(Commit(runs=(replace(write(a_run("r2")), run_id="r1"),)))


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"body": b""}, "not a JSON object"), ({"body": b"[1]"}, "not a JSON object"), ({"expected": -7}, "revision -7")],
    ids=["no body", "a list", "a revision that cannot be"],
)
def test_a_write_that_makes_no_sense_is_refused_and_changes_nothing(
    stores: Stores, fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        stores.commit(Commit(runs=(replace(write(a_run()), **fields),), command=a_command()))

    assert stores.runs.open("r1") is None
    assert stores.commands.get_last_seq() == 0


def test_an_epoch_that_is_over_is_refused_and_the_newest_is_not(stores: Stores) -> None:
    old = stores.claim("one")
    new = stores.claim("two")

    with pytest.raises(LeaseLost):
        save(stores, a_run("r1"), epoch=old)
    save(stores, a_run("r2"), epoch=new)

    assert new > old
    assert stores.runs.open("r1") is None


def test_a_commit_without_an_epoch_is_nobodys_affair(stores: Stores) -> None:
    stores.claim("one")

    stored = save(stores, a_run())

    assert stored.revision == 1


def test_a_premise_that_still_holds_lets_a_commit_pass(stores: Stores) -> None:
    save(stores, waiting("listener", key="k"))
    premises = Premises(revisions=(("listener", 1), ("none", 0)), waiters=((("k",), frozenset({"listener"})),))

    save(stores, a_run("emitter"), premises=premises)

    assert stores.runs.open("emitter") is not None


@pytest.mark.parametrize(
    "premises",
    [
        Premises(revisions=(("listener", 2),)),
        Premises(revisions=(("none", 1),)),
        Premises(waiters=((("k",), frozenset()),)),
        Premises(waiters=((("k",), frozenset({"listener", "another"})),)),
    ],
)
def test_a_premise_that_does_not_hold_is_a_stale_write(stores: Stores, premises: Premises) -> None:
    save(stores, waiting("listener", key="k"))

    with pytest.raises(StaleWrite):
        save(stores, a_run("emitter"), premises=premises)

    assert stores.runs.open("emitter") is None


def test_a_state_that_was_read_is_a_copy(stores: Stores) -> None:
    save(stores, a_run(vars={"list": [1]}))
    read = stores.runs.open("r1").state

    read.vars["list"].append(2)
    read.status = RunStatus.FAILED

    again = stores.runs.open("r1").state
    assert (again.vars, again.status) == ({"list": [1]}, RunStatus.RUNNING)


def test_a_state_that_was_saved_is_a_copy(stores: Stores) -> None:
    state = a_run(vars={"list": [1]})
    save(stores, state)

    state.vars["list"].append(2)

    assert stores.runs.open("r1").state.vars == {"list": [1]}


def test_big_states_and_all_of_unicode_come_back(stores: Stores) -> None:
    values = {"big": "é" * 400_000, "🜁": "\u2028 \x00 \ud7ff \U0010ffff", "deep": [[{"a": [None, 1.5, True]}]]}

    save(stores, a_run(vars=values), count=2, text="naïve ☃ \u2028\n")

    assert stores.runs.open("r1").state.vars == values
    assert stores.ledger.list("r1")[1]["result"]["text"] == "naïve ☃ \u2028\n"


def test_submit_tells_its_callback_the_receipt(stores: Stores) -> None:
    told: list[tuple[CommitReceipt | None, Exception | None]] = []
    decided = threading.Event()

    stores.submit(Commit(command=a_command()), lambda receipt, error: (told.append((receipt, error)), decided.set()))

    assert decided.wait(PATIENCE_S)
    assert told[0][0].command.seq == 1
    assert told[0][1] is None


def test_submit_tells_its_callback_the_error(stores: Stores) -> None:
    save(stores, a_run())
    told: list[Exception | None] = []
    decided = threading.Event()

    for run_id in ("r1", "../evil"):
        stores.submit(
            Commit(runs=(write(a_run(run_id)),)),
            lambda receipt, error: (told.append(error), len(told) == 2 and decided.set()),
        )

    assert decided.wait(PATIENCE_S)
    assert {type(error) for error in told} == {StaleWrite, Invalid}


def test_a_callback_that_fails_does_not_harm_the_next_commit(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)

    stores.submit(Commit(command=a_command("c1")), lambda receipt, error: 1 // 0)

    assert stores.commands.append(a_command("c2")).seq == 2


def test_one_bad_commit_of_many_does_not_harm_the_others(stores: Stores) -> None:
    outcomes: dict[str, Exception | None] = {}
    decided = threading.Event()

    def note(name: str) -> Callable[[CommitReceipt | None, Exception | None], None]:
        return lambda receipt, error: (outcomes.__setitem__(name, error), len(outcomes) == 40 and decided.set())

    for number in range(40):
        is_bad = number % 4 == 3
        record = b'{"broken": "\xff\xfe"}' if is_bad else b"{}"
        bad = replace(write(a_run(f"r{number}")), records=(record,), ledger_hash=None)
        if is_bad:
            bad = replace(bad, expected=5)
        stores.submit(Commit(runs=(bad,)), note(f"r{number}"))

    assert decided.wait(PATIENCE_S)
    assert [name for name, error in outcomes.items() if error is None] == [f"r{n}" for n in range(40) if n % 4 != 3]


def test_threads_that_commit_to_their_own_runs_do_not_disturb_each_other(stores: Stores) -> None:
    def work(name: str) -> None:
        for _ in range(20):
            save(stores, a_run(name), count=2)

    threads = [threading.Thread(target=work, args=(f"run-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in range(8):
        report = verify_chain(stores.ledger.list(f"run-{number}"))
        assert (report.ok, report.count) == (True, 40)
        assert stores.runs.open(f"run-{number}").revision == 20


def test_threads_that_commit_to_the_same_run_lose_nothing(stores: Stores) -> None:
    save(stores, a_run())
    refused: list[int] = []

    def work(number: int) -> None:
        for step in range(10):
            while True:
                stored = stores.runs.open("r1")
                stored.state.vars[f"{number}-{step}"] = True
                try:
                    stores.commit(Commit(runs=(write(stored.state, stored, count=1),)))
                    break
                except StaleWrite:
                    refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stored = stores.runs.open("r1")
    assert len(stored.state.vars) == 80
    assert (stored.revision, stored.ledger_len) == (81, 80)
    assert verify_chain(stores.ledger.list("r1")).ok


def test_a_reader_never_sees_half_of_a_commit(stores: Stores) -> None:
    save(stores, a_run("child", vars={"n": 0}))
    save(stores, a_run("parent", vars={"n": 0}))
    has_ended = threading.Event()
    torn: list[tuple[int, int]] = []

    def read() -> None:
        while not has_ended.is_set():
            child = stores.runs.open("child").state.vars["n"]
            parent = stores.runs.open("parent").state.vars["n"]
            if parent < child:
                torn.append((parent, child))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 200):
        pair = [write(a_run(name, vars={"n": number}), stores.runs.open(name)) for name in ("child", "parent")]
        stores.commit(Commit(runs=tuple(pair)))
    has_ended.set()
    reader.join()

    assert torn == []


def test_what_was_committed_is_there_after_a_restart(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)
    save(stores, a_run(vars={"é": 1}, session_id="s"), count=3)
    stored = save(stores, waiting("r2", key="k", parent_run_id="r1"), count=1)
    stores.commit(Commit(runs=(appending(stored, 2),)))
    stores.commands.append(a_command("c1"))
    stores.commit(Commit(outcome=applied(a_command("c1"), 1)))
    epoch = stores.claim("runner")
    pages = [list(stores.ledger.read(run_id, 0, 100).records) for run_id in ("r1", "r2")]
    opens = [stores.runs.open(run_id) for run_id in ("r1", "r2")]
    rows = [stores.runs.row(run_id) for run_id in ("r1", "r2")]
    stores.close()

    again = opened(durable, tmp_path)

    assert [list(again.ledger.read(run_id, 0, 100).records) for run_id in ("r1", "r2")] == pages
    assert [again.runs.open(run_id) for run_id in ("r1", "r2")] == opens
    assert [again.runs.row(run_id) for run_id in ("r1", "r2")] == rows
    assert again.commands.outcome("c1") == applied(a_command("c1"), 1)
    assert again.commands.append(a_command("c1")).duplicate
    assert (again.commands.get_cursor(), again.commands.append(a_command("c2")).seq) == (1, 2)
    assert again.runs.waiting_on(["k"]) == ["r2"]
    assert again.runs.children_of("r1") == ["r2"]
    assert again.claim("runner") == epoch + 1
    assert list(again.problems) == []


def test_closed_stores_refuse_commits_and_may_be_closed_again(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)
    told: list[Exception | None] = []
    stores.close()

    stores.submit(Commit(command=a_command()), lambda receipt, error: told.append(error))
    with pytest.raises(Unavailable, match="closed"):
        stores.commit(Commit(command=a_command()))
    with pytest.raises(Unavailable, match="closed"):
        stores.claim("x")
    stores.close()

    assert told[0].code == "store_closed"


def test_closing_decides_everything_that_was_submitted(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)
    told: list[Exception | None] = []
    for number in range(300):
        stores.submit(Commit(runs=(write(a_run(f"r{number}")),)), lambda receipt, error: told.append(error))

    stores.close()

    assert told == [None] * 300
    assert len(opened(durable, tmp_path).runs.list_runs(limit=1000)) == 300


def test_a_commit_while_the_stores_close_is_decided_either_way(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)
    accepted: list[str] = []
    has_begun = threading.Event()

    def work(name: str) -> None:
        for number in range(10_000):
            try:
                stores.commit(Commit(command=a_command(f"{name}-{number}")))
            except Unavailable:
                return
            accepted.append(f"{name}-{number}")
            has_begun.set()

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert has_begun.wait(PATIENCE_S)
    stores.close()
    for thread in threads:
        thread.join(PATIENCE_S)

    again = opened(durable, tmp_path)
    assert not any(thread.is_alive() for thread in threads)
    assert [command_id for command_id in accepted if again.commands.get(command_id) is None] == []


def test_a_stored_state_is_readable_json_for_people(opened: Open, tmp_path: Path) -> None:
    from tests.stores.shapes import FILES

    stores = opened(FILES, tmp_path)
    save(stores, a_run(vars={"greeting": "grüß dich"}), count=1)
    stores.close()

    text = (tmp_path / "run_r1.json").read_text(encoding="utf-8")

    assert '  "vars": {"greeting":"grüß dich"},\n' in text
    assert json.loads(text)["run_id"] == "r1"


@pytest.mark.parametrize("after", [3, 2**63 - 2, 2**63 - 1, 2**70])
@pytest.mark.parametrize("limit", [1, 2000, 2**70])
def test_a_page_after_the_end_is_empty_however_far(stores: Stores, after: int, limit: int) -> None:
    save(stores, a_run(), count=3)

    page = stores.ledger.read("r1", after, limit)

    assert (list(page.records), page.next_after) == ([], after)
