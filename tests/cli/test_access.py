"""Tokens and the audit log on the command line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.cli import doctor
from abstractgateway.service.audit import AuditLog
from tests.commands import Said, said_by, without_settings


@pytest.fixture
def ag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs command lines in an empty directory, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)

    def run(*arguments: str) -> Said:
        return said_by(capsys, *arguments)

    return run


def test_a_created_token_is_printed_alone_and_never_again(ag):
    made = ag("token", "create", "ci", "--scope", "run", "--scope", "read", "--expires", "90d")

    listed = ag("token", "list")

    assert made.code == 0 and made.out.startswith("agw_") and made.out.count("\n") == 1
    assert "It may: read, run." in made.err
    assert made.out.strip() not in listed.out
    assert "ci" in listed.out and "read,run" in listed.out and "until 20" in listed.out


def test_json_has_the_token_when_it_is_made_and_no_digest_ever(ag):
    made = json.loads(ag("token", "create", "ci", "--scope", "command", "--session", "s-1", "--json").out)
    (listed,) = json.loads(ag("token", "list", "--json").out)

    assert made == {**listed, "token": made["token"]}
    assert (listed["scopes"], listed["session_id"], listed["expires_at"]) == (["command"], "s-1", None)
    assert "sha256" not in listed


def test_a_revoked_token_is_gone(ag):
    ag("token", "create", "ci", "--scope", "read")

    assert ag("token", "revoke", "ci").out == "The token 'ci' is revoked.\n"
    assert ag("token", "revoke", "ci").err == "abstractgateway: there is no token 'ci'\n"
    assert ag("token", "list").out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scope", "admin", "--session", "s"), "'admin' reaches every session"),
        (("--scope", "read", "--expires", "2020-01-01"), "is over"),
        (("--scope", "read", "--expires", "soon"), "'soon' is not an ISO 8601 time"),
        (("--scope", "read", "--expires", "99999d"), None),
    ],
)
def test_a_token_that_makes_no_sense_is_refused_with_a_reason(ag, arguments, said):
    answer = ag("token", "create", "ci", *arguments)

    assert answer.code == (1 if said else 0)
    assert (said or "") in answer.err


def test_verify_counts_the_entries_of_a_sound_log_and_fails_for_another(ag, tmp_path):
    log = AuditLog.of(GatewayConfig(data_dir=tmp_path / "runtime"))
    for number in range(3):
        log.note({"path": f"/{number}"})
    log.close()
    path = tmp_path / "runtime" / "audit_log.jsonl"

    sound = ag("audit", "verify")
    path.write_bytes(path.read_bytes().replace(b"/1", b"/X"))
    broken, as_json = ag("audit", "verify"), ag("audit", "verify", "--json")

    assert (sound.code, sound.out) == (0, "3 entries in 1 files, each as it was written\n")
    assert broken.code == 1
    assert "audit_log.jsonl:2: the entry was changed, or is none" in broken.err
    assert json.loads(as_json.out)["ok"] is False
    assert '"/2"' in ag("audit", "tail").out


def test_verify_without_a_data_directory_says_so(ag):
    assert "there is no data directory" in ag("audit", "verify").err


@pytest.mark.parametrize(
    ("expires", "text"),
    [(None, "never expires"), ("1d", None)],
)
def test_doctor_warns_of_tokens_without_an_end(ag, tmp_path, expires, text):
    ag("token", "create", "ci", "--scope", "read", *(("--expires", expires) if expires else ()))

    told = [finding.text for finding in doctor.examine(GatewayConfig(data_dir=tmp_path / "runtime"), "127.0.0.1")]

    assert any("never expires" in line for line in told) is (text is not None)
    assert not any("Missing gateway auth token" in line for line in told)
    assert any(line.startswith("tokens: 0 plain, 1 named") for line in told)


def test_doctor_warns_of_files_that_others_may_open(ag, tmp_path):
    ag("token", "create", "ci", "--scope", "read", "--expires", "9d")
    (tmp_path / "runtime" / "gateway_tokens.json").chmod(0o644)

    findings = doctor.examine(GatewayConfig(data_dir=tmp_path / "runtime"), "127.0.0.1")

    assert any(f.level == "warning" and "chmod 600" in f.text for f in findings)


def test_commands_log_no_secrets(ag, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(written)])
    ag("token", "list")

    logging.getLogger("abstractgateway.test").warning("sent Authorization: Bearer %s", "a-secret-of-somebody")

    assert "a-secret-of-somebody" not in written.getvalue()
    assert "WARNING abstractgateway.test: sent Authorization: [redacted]" in written.getvalue()
