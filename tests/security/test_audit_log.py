from __future__ import annotations

import errno
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
from abstractgateway.testing import ManualClock


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

    after = written(tmp_path, 1)

    assert len(after) == 4
    assert findings(tmp_path) == []


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
    assert verify(tmp_path) == (0, 0, ())


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
