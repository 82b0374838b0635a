from __future__ import annotations

import json

from abstractgateway.cli import main
from tests.client.conftest import TOKEN


def run(server, monkeypatch, capsys, *arguments):
    monkeypatch.setenv("ABSTRACTGATEWAY_URL", server.url)
    monkeypatch.setenv("ABSTRACTGATEWAY_AUTH_TOKEN", TOKEN)
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_schedule_is_made_and_its_next_times_are_shown(server, monkeypatch, capsys):
    made = run(
        server, monkeypatch, capsys, "runs", "schedule", "ask", "--cron", "0 8 * * *", "--timezone", "Asia/Tokyo"
    )
    code, out, _ = run(server, monkeypatch, capsys, "runs", "next", made[1].strip(), "--count", "2")

    assert (made[0], code) == (0, 0)
    assert out.startswith("TIME (Asia/Tokyo)")
    assert out.count("T08:00:00+09:00") == 2


def test_times_are_printed_as_json(server, monkeypatch, capsys):
    made = run(server, monkeypatch, capsys, "runs", "schedule", "ask:ask", "--interval", "2h", "--json")
    run_id = json.loads(made[1])["run_id"]
    _, out, _ = run(server, monkeypatch, capsys, "runs", "next", run_id, "--json")

    assert len(json.loads(out)["items"]) == 10


def test_what_cannot_be_scheduled_is_refused(server, monkeypatch, capsys):
    unknown = run(server, monkeypatch, capsys, "runs", "schedule", "nothing", "--interval", "1h")
    odd = run(server, monkeypatch, capsys, "runs", "schedule", "ask", "--interval", "sometimes")

    assert (unknown[0], odd[0]) == (1, 1)
    assert "'nothing'" in unknown[2]
    assert "sometimes" in odd[2] or "interval" in odd[2]


def test_an_unknown_run_does_not_pass_for_whole(server, monkeypatch, capsys):
    code, out, err = run(server, monkeypatch, capsys, "ledger", "verify", "nope")

    assert (code, out) == (1, "")
    assert "nope" in err


def test_a_wrong_token_is_told_where_one_is_set(server, monkeypatch, capsys):
    monkeypatch.setenv("ABSTRACTGATEWAY_URL", server.url)
    monkeypatch.setenv("ABSTRACTGATEWAY_AUTH_TOKEN", "another-token-than-the-server-has")

    code = main(("runs", "list"))

    assert code == 1
    assert "ABSTRACTGATEWAY_AUTH_TOKEN" in capsys.readouterr().err
