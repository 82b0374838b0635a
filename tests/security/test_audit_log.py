from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from abstractgateway.config import GatewayConfig
from abstractgateway.security.audit import copied_headers, query_names
from abstractgateway.service.audit import MOST_WAITING, AuditLog
from abstractgateway.service.audit_files import ChainFile, rotated_files, verify
from abstractgateway.stores.disk import Disk
from abstractgateway.testing import FaultyDisk, ManualClock
from abstractgateway.testing.disk import PowerLoss


class FullDisk(Disk):
    """A disk that is full while `is_full` is set, and tells when somebody found out."""

    def __init__(self) -> None:
        self.is_full = False
        self.was_tried = threading.Event()

    def write_at(self, fd: int, offset: int, data: bytes) -> None:
        if self.is_full:
            super().write_at(fd, offset, data[: len(data) // 2])
            self.was_tried.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_at(fd, offset, data)


def log_of(directory: Path, disk: Disk | None = None, **settings) -> AuditLog:
    return AuditLog.of(GatewayConfig(data_dir=directory, **settings), ManualClock(), disk)


def written(directory: Path, count: int = 9, **settings) -> list[bytes]:
    """Write entries, and return the lines of the current file."""
    log = log_of(directory, **settings)
    for number in range(count):
        log.note({"ts": "t", "path": f"/{number}"})
        if settings:
            assert log.flush()
    log.close()
    return (directory / "audit_log.jsonl").read_bytes().splitlines(keepends=True)


def findings(directory: Path) -> list[str]:
    return [f"{finding.line}: {finding.text}" for finding in verify(directory).findings]


def test_entries_are_written_in_order_numbered_and_for_the_owner_only(tmp_path):
    lines = written(tmp_path)

    entries = [json.loads(line) for line in lines]
    assert [(entry["seq"], entry["path"]) for entry in entries] == [(n + 1, f"/{n}") for n in range(9)]
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ["audit_log.jsonl", "audit_log.end", "audit_log.lock"], 0o600
    )
    assert verify(tmp_path)[:2] == (9, 1)
    assert findings(tmp_path) == []


def change(lines):
    lines[3] = lines[3].replace(b"/3", b"/X")


def change_the_last(lines):
    lines[-1] = lines[-1].replace(b"/8", b"/X")


def forge(lines):
    entry = json.loads(lines[3])
    del entry["hash"]
    lines[3] = json.dumps({**entry, "path": "/X", "hash": "0" * 64}, separators=(",", ":")).encode() + b"\n"


def remove(lines):
    del lines[3]


def remove_the_first(lines):
    del lines[0]


def remove_the_last(lines):
    del lines[-1]


def swap(lines):
    lines[3], lines[4] = lines[4], lines[3]


def repeat(lines):
    lines.insert(3, lines[3])


def insert(lines):
    lines.insert(3, b'{"path":"/X"}\n')


def empty(lines):
    lines.clear()


@pytest.mark.parametrize(
    "tamper",
    [change, change_the_last, forge, remove, remove_the_first, remove_the_last, swap, repeat, insert, empty],
)
@pytest.mark.parametrize("rotated", [False, True])
def test_whatever_is_done_to_the_lines_is_found(tmp_path, tamper, rotated):
    written(tmp_path)
    path = tmp_path / "audit_log.jsonl"
    if rotated:
        path.rename(tmp_path / "audit_log.20260101T000000+0000.jsonl")
        written(tmp_path, 3)
        path = tmp_path / "audit_log.20260101T000000+0000.jsonl"
    assert findings(tmp_path) == []
    lines = path.read_bytes().splitlines(keepends=True)

    tamper(lines)
    path.write_bytes(b"".join(lines))

    assert findings(tmp_path) != []


def test_a_line_made_anew_with_its_own_hash_does_not_fit_between_the_others(tmp_path):
    other = tmp_path / "other"
    forged = written(other, 9)
    lines = written(tmp_path)
    lines[3] = forged[3].replace(b"/3", b"/3")
    forged_file = tmp_path / "audit_log.jsonl"

    forged_file.write_bytes(b"".join([*lines[:3], written(tmp_path / "third", 12)[4], *lines[4:]]))

    assert findings(tmp_path) != []


def test_a_whole_file_that_is_gone_is_found(tmp_path):
    written(tmp_path, 20, audit_log_max_bytes=500)
    files = rotated_files(tmp_path)
    assert len(files) > 3 and findings(tmp_path) == []

    files[1].unlink()

    assert len(findings(tmp_path)) == 1


def test_the_oldest_file_that_is_gone_is_found_unless_the_log_itself_dropped_it(tmp_path):
    written(tmp_path, 30, audit_log_max_bytes=500, audit_log_rotations=3)
    files = rotated_files(tmp_path)
    assert len(files) == 3 and findings(tmp_path) == []

    files[0].unlink()

    assert "instead of" in findings(tmp_path)[0]


def test_without_rotations_only_the_current_file_is_kept(tmp_path):
    written(tmp_path, 9, audit_log_max_bytes=1, audit_log_rotations=0)

    assert list(tmp_path.glob("audit_log.*.jsonl")) == []
    assert findings(tmp_path) == []


def test_the_chain_goes_on_after_a_restart_and_in_another_process(tmp_path):
    written(tmp_path, 2)
    code = (
        "import sys; from abstractgateway import GatewayConfig; from abstractgateway.service.audit import AuditLog; "
        "log = AuditLog.of(GatewayConfig(data_dir=sys.argv[1])); log.note({'path': '/other'}); log.close()"
    )
    log = log_of(tmp_path)
    log.note({"path": "/before"})
    assert log.flush()

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    log.note({"path": "/after"})
    log.close()

    entries = [json.loads(line) for line in (tmp_path / "audit_log.jsonl").read_bytes().splitlines()]
    assert [entry["path"] for entry in entries] == ["/0", "/1", "/before", "/other", "/after"]
    assert findings(tmp_path) == []


def test_what_a_crash_left_of_a_line_was_no_entry(tmp_path):
    lines = written(tmp_path, 3)
    (tmp_path / "audit_log.jsonl").write_bytes(b"".join(lines) + b'{"seq":4,"ts"')

    notes = [note.text for note in verify(tmp_path).notes]
    assert findings(tmp_path) == []
    after = written(tmp_path, 1)

    assert notes == [
        "a crash left 13 bytes of an entry here; they are cut off when the log goes on, and an entry will say so"
    ]
    told = json.loads(after[3])
    assert len(after) == 5
    assert (told["seq"], told["event"], told["bytes"]) == (4, "torn_line_removed", 13)
    assert verify(tmp_path)[:3] == (5, 1, ())
    assert [note.text for note in verify(tmp_path).notes] == [
        "entry 4 says that a crash had left 13 bytes of an entry before it"
    ]


@pytest.mark.parametrize("note", [b"", b"{", b'{"seq":"x"}', b"[]", None])
def test_a_damaged_or_missing_note_of_the_end_is_found_and_made_anew(tmp_path, note):
    written(tmp_path, 3)
    end = tmp_path / "audit_log.end"
    end.unlink()
    if note is not None:
        end.write_bytes(note)

    assert findings(tmp_path) == ["0: the file that names the end of the log is missing"]
    written(tmp_path, 1)

    assert findings(tmp_path) == []
    assert verify(tmp_path).entries == 4


def test_a_line_that_is_hashed_and_has_no_number_is_no_entry(tmp_path):
    lines = written(tmp_path, 3)
    signed = b'{"seq":"x","prev":"0"'
    forged = signed + b',"hash":"' + hashlib.sha256(signed).hexdigest().encode() + b'"}\n'
    (tmp_path / "audit_log.jsonl").write_bytes(b"".join([*lines[:2], forged]))

    assert findings(tmp_path)[0] == "3: the entry was changed, or is none"


def test_lines_taken_away_stay_missing_although_the_log_goes_on(tmp_path):
    lines = written(tmp_path, 5)
    (tmp_path / "audit_log.jsonl").write_bytes(b"".join(lines[:3]))

    written(tmp_path, 1)

    assert findings(tmp_path) == ["4: entry 6 follows entry 3: some are missing, repeated or in another order"]


def test_a_log_of_the_original_is_put_aside_and_not_looked_into(tmp_path):
    (tmp_path / "audit_log.jsonl").write_bytes(b'{"ts":"2026","path":"/api/gateway/runs/start"}\n')

    written(tmp_path, 2)

    assert len(list(tmp_path.glob("audit_log.*.jsonl"))) == 1
    assert verify(tmp_path)[:2] == (2, 1)
    assert findings(tmp_path) == []


def test_a_directory_without_a_log_is_sound(tmp_path):
    assert verify(tmp_path) == (0, 0, (), ())


def test_a_full_disk_costs_no_entry_and_no_half_of_one(tmp_path):
    disk = FullDisk()
    log = log_of(tmp_path, disk)
    log.note({"path": "/0"})
    assert log.flush()

    disk.is_full = True
    log.note({"path": "/1"})
    assert disk.was_tried.wait(5)
    log.note({"path": "/2"})
    disk.is_full = False
    assert log.flush()
    log.close()

    entries = [json.loads(line) for line in (tmp_path / "audit_log.jsonl").read_bytes().splitlines()]
    assert [entry["path"] for entry in entries] == ["/0", "/1", "/2"]
    assert findings(tmp_path) == []


def test_of_entries_that_fit_on_the_disk_in_part_none_is_there_twice(tmp_path):
    disk = FullDisk()
    file = ChainFile(tmp_path, max_bytes=0, rotations=0, clock=ManualClock(), disk=disk)
    entries = [{"path": f"/{number}"} for number in range(4)]

    disk.is_full = True
    with pytest.raises(OSError, match="No space left"):
        file.append(entries)
    disk.is_full = False
    file.append(entries)

    written = [json.loads(line)["path"] for line in (tmp_path / "audit_log.jsonl").read_bytes().splitlines()]
    assert written == ["/0", "/1", "/2", "/3"]


@pytest.mark.parametrize("is_required", [False, True])
def test_a_full_disk_is_a_problem_where_the_log_is_required(tmp_path, is_required):
    disk = FullDisk()
    log = log_of(tmp_path, disk, audit_log_required=is_required)
    before = log.problem()

    disk.is_full = True
    log.note({"path": "/1"})
    assert disk.was_tried.wait(5)
    log.close()

    assert (before, log.problem()) == (None, "No space left on device" if is_required else None)


def test_entries_that_could_not_be_kept_are_counted_in_the_log(tmp_path):
    disk = FullDisk()
    disk.is_full = True
    log = log_of(tmp_path, disk)

    for _ in range(MOST_WAITING + 7):
        log.note({"path": "/"})
    disk.is_full = False
    assert log.flush()
    log.close()

    last = json.loads((tmp_path / "audit_log.jsonl").read_bytes().splitlines()[-1])
    assert (last["event"], last["count"]) == ("entries_lost", 7)
    assert findings(tmp_path) == []
    assert [note.text for note in verify(tmp_path).notes] == [
        f"entry {MOST_WAITING + 1} says that 7 entries were lost before it"
    ]


def measures(log: AuditLog) -> dict[str, float]:
    return {family.name.removeprefix("abstractgateway_audit_"): family.samples[0][1] for family in log.families()}


def test_what_a_full_disk_costs_is_measured_and_logged(tmp_path, caplog):
    disk = FullDisk()
    log = log_of(tmp_path, disk)
    log.note({"path": "/0"})
    assert log.flush()
    before = measures(log)

    disk.is_full = True
    for _ in range(MOST_WAITING + 7):
        log.note({"path": "/"})
    with log._lock:
        assert log._lock.wait_for(lambda: measures(log)["failing"], 5)
    during = measures(log)
    disk.is_full = False
    assert log.flush()
    log.close()

    assert before == {"entries_total": 1, "entries_lost_total": 0, "entries_waiting": 0, "failing": 0}
    assert during == {"entries_total": 1, "entries_lost_total": 7, "entries_waiting": MOST_WAITING, "failing": 1}
    assert measures(log) == {
        "entries_total": MOST_WAITING + 1,
        "entries_lost_total": 7,
        "entries_waiting": 0,
        "failing": 0,
    }
    said = caplog.text
    assert "the audit log cannot be written: [Errno 28] No space left on device" in said
    assert f"{MOST_WAITING} entries wait for the audit log; further ones are lost, and counted" in said
    assert "7 entries of the audit log were lost; the log says so" in said
    assert "the audit log can be written again" in said


def test_what_was_never_written_is_told_at_the_end(tmp_path, caplog):
    disk = FullDisk()
    disk.is_full = True
    log = log_of(tmp_path, disk)
    log.note({"path": "/"})
    assert disk.was_tried.wait(5)

    log.close()

    assert "1 entries of the audit log were never written" in caplog.text


class UnsureDisk(Disk):
    """A disk that cannot sync for a while."""

    def __init__(self) -> None:
        self.is_broken = True
        self.was_tried = threading.Event()

    def sync_path(self, path: Path) -> None:
        if self.is_broken:
            self.was_tried.set()
            raise OSError(errno.EIO, "Input/output error")
        super().sync_path(path)


def test_a_log_that_could_not_be_synced_is_no_problem_once_it_was(tmp_path):
    disk = UnsureDisk()
    config = GatewayConfig(data_dir=tmp_path, audit_log_required=True)
    log = AuditLog.of(config, disk=disk)
    log.note({"path": "/"})
    assert disk.was_tried.wait(5)
    with log._lock:
        assert log._lock.wait_for(lambda: log.problem() == "Input/output error", 5)

    disk.is_broken = False

    with log._lock:
        assert log._lock.wait_for(lambda: log.problem() is None, 5)
    log.close()


def write_until_it_fails(directory: Path, disk: FaultyDisk, known: list[str]) -> None:
    """Write numbered entries in small files; `known` gets those that were accepted."""
    file = ChainFile(directory, max_bytes=350, rotations=2, clock=ManualClock(), disk=disk)
    for number in range(5):
        try:
            file.append([{"path": f"/{number}"}])
            known.append(f"/{number}")
        except (OSError, PowerLoss):
            return


def paths_in(directory: Path) -> list[str]:
    files = [*rotated_files(directory), directory / "audit_log.jsonl"]
    lines = [line for file in files if file.exists() for line in file.read_bytes().splitlines()]
    return [entry["path"] for entry in map(json.loads, lines) if "path" in entry]


@pytest.mark.parametrize("mode", ["crash", "torn", "short", "enospc", "eio"])
def test_wherever_the_disk_fails_or_the_process_dies_the_chain_goes_on(tmp_path, mode):
    for fail_at in range(1, 1_000):
        place = tmp_path / str(fail_at)
        place.mkdir()
        accepted: list[str] = []
        disk = FaultyDisk(fail_at, mode)
        write_until_it_fails(place, disk, accepted)
        assert findings(place) == [], f"after operation {fail_at}"

        ChainFile(place, max_bytes=350, rotations=2, clock=ManualClock(), disk=Disk()).append([{"path": "/after"}])

        kept = paths_in(place)
        assert findings(place) == [], f"after operation {fail_at} and a restart"
        assert kept[-1] == "/after"
        assert len(kept) == len(set(kept))
        assert set(accepted[-3:]) <= set(kept)
        if not disk.has_failed:
            break
    else:
        pytest.fail("there is no end of operations")
    assert fail_at > 20


@pytest.mark.parametrize("mode", ["short", "enospc", "eio"])
def test_wherever_the_disk_fails_the_same_process_goes_on_when_it_is_well(tmp_path, mode):
    for fail_at in range(1, 1_000):
        place, disk = tmp_path / str(fail_at), FaultyDisk(fail_at, mode)
        place.mkdir()
        file = ChainFile(place, max_bytes=350, rotations=2, clock=ManualClock(), disk=disk)
        failed = 0
        for number in range(5):
            try:
                file.append([{"path": f"/{number}"}])
            except OSError:
                failed += 1
                file.append([{"path": f"/{number}"}])

        kept = paths_in(place)
        assert findings(place) == [], f"after operation {fail_at}"
        assert kept == [f"/{number}" for number in range(5)][-len(kept) :]
        assert len(kept) >= 3
        if not disk.has_failed:
            break
    else:
        pytest.fail("there is no end of operations")


def test_an_entry_that_is_far_too_long_is_shortened(tmp_path):
    log = log_of(tmp_path)
    log.note({"path": "/", "about": {"x": "y" * 100_000}})
    log.close()

    (line,) = (tmp_path / "audit_log.jsonl").read_bytes().splitlines()
    assert json.loads(line)["shortened"] is True
    assert findings(tmp_path) == []


def test_a_tail_has_whole_lines(tmp_path):
    lines = written(tmp_path, 9)
    log = log_of(tmp_path)

    part, whole = log.tail(len(lines[-1]) + len(lines[-2]) + 5), log.tail(400_000)

    assert part == {
        "ok": True,
        "bytes": len(lines[-1]) + len(lines[-2]),
        "truncated": True,
        "content": (lines[-2] + lines[-1]).decode(),
    }
    assert (whole["truncated"], whole["content"].encode()) == (False, b"".join(lines))


@pytest.mark.parametrize(
    ("settings", "is_on"),
    [
        ({}, True),
        ({"security": False}, False),
        ({"security": False, "audit_log": True}, True),
        ({"audit_log": False}, False),
        ({"store_backend": "memory"}, False),
    ],
)
def test_there_is_a_log_where_there_is_security_unless_the_settings_say_otherwise(tmp_path, settings, is_on):
    assert log_of(tmp_path, **settings).is_on is is_on


def test_queries_keep_their_names_only():
    assert query_names("limit=5&token=s3cret&x") == "limit=<redacted>&token=<redacted>&x=<redacted>"


def test_headers_with_secrets_are_never_copied():
    headers = {"authorization": "Bearer x", "cookie": "x", "x-api-key": "x", "x-client-id": "ui"}

    assert copied_headers(headers, headers.get) == {"x-client-id": "ui"}
