from __future__ import annotations

import fcntl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import permutations
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, LeaseLost, StaleWrite, Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import files, open_file_stores, open_sqlite_stores
from abstractgateway.stores.base import Commit, RunQuery, Stores
from tests.stores.other import Other
from tests.stores.shapes import FILES, ON_A_DISK, Backend, Told, a_command, a_run, applied, save, write

Start = Callable[..., Other]
ROUNDS = 5


@pytest.fixture
def start(durable: Backend, tmp_path: Path) -> Iterator[Start]:
    """Start other processes on the directory of the test."""
    started: list[Other] = []

    def start_one() -> Other:
        started.append(Other(durable.name, tmp_path))
        return started[-1]

    yield start_one
    for other in started:
        with suppress(OSError):
            other.leave()


@pytest.fixture
def mine(durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path) -> Stores:
    return opened(durable, tmp_path)


def test_each_process_hears_of_the_runs_of_the_other_within_a_second(mine: Stores, start: Start) -> None:
    other = start()
    told = Told(mine)

    other.ask("save", "theirs")
    heard_here = told.wait_until(lambda: told.has_heard("theirs", 1), 1.0)
    save(mine, a_run("ours"), count=2)
    heard_there = other.wait_to_hear(lambda news: news["runs"].get("ours") == 1)

    assert heard_here
    assert heard_there["has_commands"] is False
    assert mine.runs.open("theirs").ledger_len == 1
    assert other.ask("look_up", "ours") == [1, 2]


def test_each_process_hears_of_the_commands_and_reads_the_outcomes_of_the_other(mine: Stores, start: Start) -> None:
    other = start()
    told = Told(mine)

    mine.commands.append(a_command("c0"))
    other.wait_to_hear(lambda news: news["has_commands"])
    other.ask("settle", "c0", 1)
    heard = told.wait_until(lambda: told.has_heard("by-command", 1), 1.0)

    assert heard
    assert mine.commands.outcome("c0").status == "applied"
    assert mine.commands.get_cursor() == 1
    mine.commit(Commit(outcome=applied(a_command("x"), 2), runs=(write(a_run("ours")),)))
    other.wait_to_hear(lambda news: "ours" in news["runs"])


def test_a_run_that_both_change_is_changed_by_one_at_a_time(mine: Stores, start: Start) -> None:
    other = start()
    told = Told(mine)
    save(mine, a_run("r1"), count=1)

    refused = other.ask("save_stale", "r1")
    other.ask("save", "r1")
    told.wait_until(lambda: told.has_heard("r1", 2))
    stored = mine.runs.open("r1")
    other.ask("save", "r1")
    with pytest.raises(StaleWrite):
        mine.commit(Commit(runs=(write(a_run("r1", current_node="late"), stored, count=1),)))

    assert refused == "stale_write"
    assert told.wait_until(lambda: told.has_heard("r1", 3))
    assert mine.runs.open("r1").ledger_len == 3


def test_an_epoch_claimed_by_the_other_process_ends_ours(mine: Stores, start: Start) -> None:
    other = start()
    epoch = mine.claim("mine")

    theirs = other.ask("claim")

    with pytest.raises(LeaseLost):
        save(mine, a_run(), epoch=epoch)
    assert theirs == epoch + 1


def test_processes_that_write_at_once_lose_and_double_nothing(mine: Stores, start: Start) -> None:
    others = [start(), start()]
    told = Told(mine)

    def work(other: Other, name: str) -> None:
        seqs.extend(other.ask("command", name, 60))
        other.ask("save", name, 2, 60)

    seqs: list[int] = []
    threads = [threading.Thread(target=work, args=(other, f"o{n}")) for n, other in enumerate(others)]
    for thread in threads:
        thread.start()
    for number in range(60):
        seqs.append(mine.commands.append(a_command(f"mine{number}")).seq)
        save(mine, a_run("mine"), count=2)
    for thread in threads:
        thread.join()

    assert sorted(seqs) == list(range(1, 181))
    assert told.wait_until(lambda: all(told.has_heard(name, 60) for name in ("o0", "o1", "mine")))
    for name in ("o0", "o1", "mine"):
        revisions = [revision for run_id, revision in told.revisions if run_id == name]
        assert revisions == sorted(set(revisions))
        assert (verify_chain(mine.ledger.list(name)).ok, mine.ledger.count(name)) == (True, 120)
        assert others[0].ask("look_up", name) == [60, 120]


FIGHTERS = 4
FIGHT_S = 1.0
LEAST_SHARE = 0.5
"""Of what each would have had if all had had the same; without the lock one of them made a quarter."""


def test_processes_that_fight_for_a_directory_lose_nothing_and_none_of_them_starves(mine: Stores, start: Start) -> None:
    others = {f"p{number}": start() for number in range(FIGHTERS)}
    done: dict[str, dict[str, list]] = {}

    def fight(name: str) -> None:
        done[name] = others[name].ask("fight", name, FIGHT_S)

    threads = [threading.Thread(target=fight, args=(name,)) for name in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine.look()  # the bell of the last commit may still be on its way

    def all_of(kind: str) -> list:
        return [item for acknowledged in done.values() for item in acknowledged[kind]]

    assert sorted(all_of("seqs")) == list(range(1, mine.commands.get_last_seq() + 1))
    assert sorted(all_of("epochs")) == list(range(1, len(all_of("epochs")) + 1))
    assert len(set(all_of("won"))) == len(all_of("won"))
    assert mine.runs.open("shared").revision == len(all_of("shared"))
    for name, acknowledged in done.items():
        assert all(mine.runs.open(run_id).ledger_len == 2 for run_id in acknowledged["runs"])
        assert all(mine.runs.open(f"contested-{number}").state.vars == {"of": name} for number in acknowledged["won"])
    for row in mine.runs.find(RunQuery(limit=None)):
        report = verify_chain(mine.ledger.list(row.run_id))
        assert (report.ok, report.count) == (True, row.ledger_len)
    counts = {name: len(acknowledged["runs"]) for name, acknowledged in done.items()}
    print(f"commits of each process: {counts}")
    assert min(counts.values()) >= LEAST_SHARE * sum(counts.values()) / FIGHTERS, counts


@ON_A_DISK
def test_a_process_that_dies_with_the_lock_leaves_the_others_free(mine: Stores, start: Start) -> None:
    other, third = start(), start()
    save(mine, a_run())

    other.tell("die_holding_the_lock")
    other.leave()

    assert save(mine, a_run()).revision == 2
    third.wait_to_hear(lambda news: news["runs"].get("r1") == 2)
    assert third.ask("save", "r1") == 3


@ON_A_DISK
def test_nobody_writes_while_somebody_else_has_the_lock(durable: Backend, mine: Stores, tmp_path: Path) -> None:
    decided = threading.Event()

    with open(tmp_path / ("journal.lock" if durable is FILES else "gateway.sqlite3.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine.submit(Commit(command=a_command()), lambda receipt, error: decided.set())
        is_decided_early = decided.wait(0.1)

    assert not is_decided_early
    assert decided.wait(10.0)
    assert mine.commands.get_last_seq() == 1


def test_what_a_process_had_acknowledged_when_it_was_killed_is_there(mine: Stores, start: Start) -> None:
    for number in range(ROUNDS):
        other = start()
        prefix = f"round{number}-"
        other.tell("save_for_ever", prefix)
        done = 0
        while done < 20 + 7 * number:
            done = other.wait_to_hear(lambda news: isinstance(news, int), 10.0)
        other.kill()

        mine.commands.append(a_command(f"after-{number}"))
        assert mine.commands.get(f"{prefix}-{done}") is not None
        for row in mine.runs.list_run_index(limit=1000):
            assert verify_chain(mine.ledger.list(row["run_id"])).ok
            stored = mine.runs.open(row["run_id"])
            assert stored.ledger_len == 2 * stored.revision


@pytest.mark.parametrize("durable", [FILES], indirect=True, ids=["files"])
def test_an_entry_that_a_killed_process_left_in_the_journal_is_put_into_the_files_by_another(
    mine: Stores, start: Start, tmp_path: Path
) -> None:
    told = Told(mine)
    other = start()

    other.tell("die_with_an_entry_in_the_journal_only", "r1")
    other.leave()
    heard = told.wait_until(lambda: told.has_heard("r1", 1))
    mine.close()

    assert heard
    assert (tmp_path / "run_r1.json").exists()
    assert len((tmp_path / "ledger_r1.jsonl").read_bytes().splitlines()) == 3


def test_a_process_that_slept_through_several_journals_reads_the_files_anew(tmp_path: Path) -> None:
    sleeper = open_file_stores(tmp_path)
    told = Told(sleeper)
    busy = open_file_stores(tmp_path, journal_bytes=3000, pending_bytes=0)

    with sleeper._holding:
        for number in range(60):
            save(busy, a_run(f"r{number % 5}"), count=1)
        save(busy, a_run("last"))
    heard = told.wait_until(lambda: told.has_heard("last", 1))

    assert heard
    for number in range(5):
        assert sleeper.runs.open(f"r{number}").revision == 12
        assert verify_chain(sleeper.ledger.list(f"r{number}")).count == 12
    told_busy = Told(busy)
    assert save(sleeper, a_run("r0"), count=1).revision == 13
    assert told_busy.wait_until(lambda: told_busy.has_heard("r0", 13))
    assert busy.runs.open("last") is not None
    assert save(busy, a_run("r0"), count=1).revision == 14
    busy.close()
    sleeper.close()


def test_a_process_that_slept_through_the_end_of_a_journal_reads_what_is_in_the_files(tmp_path: Path) -> None:
    with closing(open_file_stores(tmp_path)) as mine, closing(open_file_stores(tmp_path)) as theirs:
        mine._wake.close()
        told = Told(mine)
        save(theirs, a_run("r1"), count=2)
        seq = theirs.commands.append(a_command("c1")).seq
        with theirs._exclusive():
            theirs._apply_pending(None)
            theirs._begin_generation()
        save(theirs, a_run("r2"), count=1)

        mine.look()

        assert told.revisions == [("r1", 1), ("r2", 1)]
        assert mine.runs.open("r1").ledger_len == len(mine.ledger.list("r1")) == 2
        assert mine.commands.get("c1").seq == seq
        assert mine.runs.open("r2").ledger_len == 1
        assert save(mine, a_run("r1"), count=1).revision == 2


def test_stores_that_were_never_closed_leave_complete_files_at_exit(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.stores.other import ROOT

    code = (
        "from abstractgateway.stores import JsonFileRunStore, JsonlLedgerStore\n"
        "from tests.stores.shapes import a_run, save\n"
        f"runs, ledger = JsonFileRunStore({str(tmp_path)!r}), JsonlLedgerStore({str(tmp_path)!r})\n"
        "save(runs.stores, a_run('r1'), count=3)\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=30)

    assert (tmp_path / "run_r1.json").exists()
    assert len((tmp_path / "ledger_r1.jsonl").read_bytes().splitlines()) == 3


def test_stores_that_were_never_closed_are_closed_at_exit_whatever_became_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_open_stores", weakref.WeakSet())
    broken, well = open_file_stores(tmp_path / "broken"), open_file_stores(tmp_path / "well")
    for stores in (broken, well):
        save(stores, a_run(), count=3)

    def fail() -> None:
        raise OSError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(broken, "close", fail)
        files._close_at_exit()

    assert len((tmp_path / "well" / "ledger_r1.jsonl").read_bytes().splitlines()) == 3
    assert (tmp_path / "well" / "run_r1.json").exists()
    with pytest.raises(Unavailable, match="closed"):
        well.commands.append(a_command())
    broken.close()


def test_closed_stores_do_not_look_for_news(tmp_path: Path) -> None:
    stores = open_file_stores(tmp_path)
    stores.close()

    with pytest.raises(Unavailable, match="closed"):
        stores.look()


@pytest.mark.parametrize("hears_meanwhile", [False, True], ids=["not heard of", "heard of meanwhile"])
def test_a_checkpoint_of_another_process_is_seen_together_with_the_rest_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hears_meanwhile: bool
) -> None:
    with closing(open_file_stores(tmp_path)) as mine, closing(open_file_stores(tmp_path)) as theirs:
        save(mine, a_run(), count=1)
        mine._writer.close()
        mine._wake.close()  # this process neither writes nor hears of what follows
        with mine._exclusive():
            mine._apply_pending(None)
        save(theirs, a_run(current_node="later"), count=2)
        with theirs._exclusive():
            theirs._apply_pending(None)
        if hears_meanwhile:
            read = mine.runs._read

            def read_and_hear(run_id: str) -> object:
                found = read(run_id)
                mine.look()
                return found

            monkeypatch.setattr(mine.runs, "_read", read_and_hear)

        found = mine.runs.open("r1")

        assert (found.state.current_node, found.revision, found.ledger_len) == ("later", 2, 3)
        assert mine.ledger.count("r1") == 3


def test_run_and_ledger_stores_of_different_data_are_not_put_together(tmp_path: Path) -> None:
    from abstractgateway.stores import JsonFileRunStore, JsonlLedgerStore

    file_stores = [(JsonFileRunStore(tmp_path / name), JsonlLedgerStore(tmp_path / name)) for name in ("one", "two")]
    databases = [open_sqlite_stores(tmp_path / name) for name in ("three", "four")]

    for (runs, _), (_, ledger) in permutations([*file_stores, *((found.runs, found.ledger) for found in databases)], 2):
        with pytest.raises(Invalid, match="ledger_store"):
            runs.join_ledger(ledger)
    for found in databases:
        assert found.runs.join_ledger(found.ledger) is found
        found.close()
    for runs, _ in file_stores:
        runs.stores.close()


def test_a_file_store_without_a_directory_is_refused() -> None:
    from abstractgateway.stores import JsonFileRunStore

    with pytest.raises(Invalid, match="directory"):
        JsonFileRunStore(None)


def test_the_stores_of_one_directory_are_shared_until_they_are_closed(tmp_path: Path) -> None:
    from abstractgateway.stores import JsonFileRunStore, JsonlLedgerStore

    runs, ledger = JsonFileRunStore(tmp_path), JsonlLedgerStore(tmp_path / ".." / tmp_path.name)
    save(runs.stores, a_run(), count=1)
    runs.stores.close()
    again = JsonFileRunStore(tmp_path)

    assert runs.join_ledger(ledger) is runs.stores
    assert again.stores is not runs.stores
    assert again.open("r1").revision == 1
    again.stores.close()


def test_a_process_that_does_not_answer_its_bell_holds_up_nobody(durable: Backend, mine: Stores, start: Start) -> None:
    other = start()
    other.tell("stop")
    began = time.monotonic()

    for number in range(700):
        mine.commands.append(a_command(f"c{number}"))
    took_s = time.monotonic() - began
    other.wake()

    assert took_s < 30
    assert other.ask("outcome", "c699") is None


def test_sqlite_keeps_the_bell_of_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    one, two = open_sqlite_stores(deep), open_sqlite_stores(deep)
    told = Told(two)

    save(one, a_run())

    assert told.wait_until(lambda: told.has_heard("r1", 1), 1.0)
    one.close()
    two.close()
