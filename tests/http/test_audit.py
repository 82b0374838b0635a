from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import pytest

from abstractgateway.service.access import Access
from abstractgateway.service.audit import AuditLog
from abstractgateway.service.audit_files import verify
from abstractgateway.stores.disk import Disk
from tests.cli.processes import Client, environment, port_of, serve
from tests.cli.test_split_sharing import wait_until
from tests.http.conftest import TOKEN, packed

API = "/api/gateway"


@pytest.fixture
def live(go_live):
    gateway = go_live(store_backend="file", lockout_base_s=0.0)
    gateway.upload(packed())
    return gateway


def entries(live):
    content = live.ask("GET", "/audit/tail").json["content"]
    return [json.loads(line) for line in content.splitlines()]


def test_a_write_is_told_with_who_what_and_its_outcome(live):
    answer = live.ask(
        "POST", "/runs/start", "X-Request-Id: r-1", "User-Agent: test/1", "X-Client-Id: ui", body={"bundle_id": "echo"}
    )

    entry = entries(live)[-1]
    run_id = answer.json["run_id"]
    assert entry.pop("ts") and entry.pop("duration_ms") >= 0 and entry.pop("hash") and entry.pop("prev")
    assert entry == {
        "seq": 2,
        "request_id": "r-1",
        "ip": "127.0.0.1",
        "method": "POST",
        "path": f"{API}/runs/start",
        "query": "",
        "status": 200,
        "auth_required": True,
        "auth_token_fp": entry["auth_token_fp"],
        "user_agent": "test/1",
        "bytes_in": 21,
        "headers": {"x-client-id": "ui"},
        "about": {"bundle_id": "echo", "run_id": run_id},
    }


def test_a_command_is_told_with_its_run_and_type(live):
    live.ask("POST", "/commands", body={"command_id": "c-1", "run_id": "r-9", "type": "cancel", "client_id": "ui"})

    assert entries(live)[-1]["about"] == {"command_id": "c-1", "run_id": "r-9", "type": "cancel", "client_id": "ui"}


def test_a_named_token_is_told_by_its_name(live):
    _, text = live.service.access.tokens.create("nightly build", ["run"], session_id="s-1")

    live.ask("POST", "/runs/start", f"Authorization: Bearer {text}", body={"bundle_id": "echo"})

    entry = entries(live)[-1]
    assert (entry["caller"], entry["caller_session"], entry["about"]["session_id"]) == ("nightly build", "s-1", "s-1")


def test_refusals_are_told_and_reads_are_not(live):
    live.ask("GET", "/runs")
    live.ask("POST", "/runs/start", "Authorization: Bearer wrong-token", body={})
    live.ask("GET", "/runs", "Authorization: Bearer wrong-token")
    live.ask("POST", "/runs/start", body={"bundle_id": "nope"})

    told = [(entry["method"], entry["status"], entry.get("error")) for entry in entries(live)[1:]]

    assert told == [
        ("POST", 401, "unauthorized"),
        ("GET", 401, "unauthorized"),
        ("POST", 404, "bundle_not_found"),
    ]


def test_no_secret_is_in_the_log(live):
    live.ask(
        "POST",
        "/runs/start?token=secret-in-the-query",
        "Cookie: secret-in-a-cookie",
        "Authorization: Bearer secret-in-a-header",
        body={"bundle_id": "echo", "input_data": {"key": "secret-in-a-body"}},
    )
    live.ask("POST", "/runs/start", body={"bundle_id": "echo", "input_data": {"key": "secret-in-a-body"}})

    written = live.ask("GET", "/audit/tail").body.decode()

    assert "secret-in" not in written
    assert TOKEN not in written
    assert "token=<redacted>" in written


def test_the_log_of_a_gateway_in_use_is_whole(live):
    for _ in range(20):
        live.ask("POST", "/runs/start", body={"bundle_id": "echo"})
    live.service.access.audit.flush()

    found = verify(live.service.access.audit._file.path.parent)

    assert (found.entries, found.findings) == (21, ())


@pytest.mark.parametrize(("query", "status"), [("max_bytes=1023", 422), ("max_bytes=400001", 422), ("", 200)])
def test_the_tail_is_bounded(live, query, status):
    assert live.ask("GET", f"/audit/tail?{query}").status == status


class FullDisk(Disk):
    is_full = False

    def write_at(self, fd: int, offset: int, data: bytes) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_at(fd, offset, data)


@pytest.fixture
def full(make_gateway, tmp_path):
    """A stand-in gateway whose audit log is on a disk that can be full."""
    disk = FullDisk()

    def make(**settings):
        gateway = make_gateway(**settings)
        config = make_gateway(store_backend="file", data_dir=tmp_path / "data", **settings).config
        gateway.access = Access(audit=AuditLog.of(config, disk=disk))
        return gateway

    yield disk, make
    disk.is_full = False


@pytest.mark.parametrize("is_required", [True, False])
def test_a_full_disk_refuses_writes_where_the_log_is_required(full, serve_gateway, connect_to, is_required):
    disk, make = full
    gateway = make(audit_log_required=is_required)
    server = serve_gateway(gateway)

    def start():
        body = b'{"bundle_id":"ask"}'
        return (
            connect_to(server).send("POST", f"{API}/runs/start", "Content-Type: application/json", body=body).answer()
        )

    assert start().status == 200
    assert gateway.access.audit.flush()
    disk.is_full = True
    start()
    log = gateway.access.audit
    with log._lock:
        assert log._lock.wait_for(lambda: log._failure is not None, 5)
    begun = len(gateway.calls)
    refused, read = start(), connect_to(server).send("GET", f"{API}/runs").answer()
    did = [name for name, _ in gateway.calls[begun:]]
    shown = connect_to(server).send("GET", "/metrics").answer().body.decode()
    disk.is_full = False
    assert log.flush()

    assert did == (["runs.list"] if is_required else ["runs.start", "runs.list"])
    assert "\nabstractgateway_audit_failing 1\n" in shown
    assert "\nabstractgateway_audit_entries_waiting 2\n" in shown
    assert refused.status == (503 if is_required else 200)
    if is_required:
        assert refused.json["code"] == "audit_unavailable"
        assert "No space left on device" in refused.json["detail"]
        assert refused.headers["retry-after"] == "1"
    assert read.status == 200
    assert start().status == 200
    log.close()
    assert verify(log._file.path.parent)[:3] == (4, 1, ())
    assert "\nabstractgateway_audit_failing 0\n" in connect_to(server).send("GET", "/metrics").answer().body.decode()


def test_a_process_that_is_killed_while_it_writes_leaves_a_log_that_goes_on(tmp_path):
    env, log = environment(tmp_path, "file", AUDIT_LOG="1"), tmp_path / "audit_log.jsonl"
    with serve(env=env) as process:
        client = Client(port_of(process))
        for _ in range(5):
            client.start(bundle_id="hello")
        wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") == 5)  # it is written beside the requests
        process.end(signal.SIGKILL)
    with log.open("ab") as file:
        file.write(b'{"seq":99,"ts":"2026')  # as a kill in the middle of a write leaves it
    check = [sys.executable, "-m", "abstractgateway", "audit", "verify"]

    before = subprocess.run(check, env=env, capture_output=True, text=True)
    with serve(env=env) as process:
        Client(port_of(process)).start(bundle_id="hello")
        process.end()
    after = subprocess.run(check, env=env, capture_output=True, text=True)

    assert (before.returncode, after.returncode) == (0, 0), before.stderr + after.stderr
    assert "a crash left 20 bytes of an entry here" in before.stdout
    assert "says that a crash had left 20 bytes of an entry before it" in after.stdout
    assert "each as it was written" in after.stdout
