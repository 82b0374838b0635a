from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.cli import doctor
from abstractgateway.cli.config import main as config_main
from abstractgateway.runner import RunnerLock
from tests.commands import Said, said_by, without_settings

TOKEN = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def ag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs command lines in an empty directory, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)

    def run(*arguments: str) -> Said:
        return said_by(capsys, *arguments)

    return run


def sourced(path: Path) -> dict[str, str]:
    """Return what a shell has in its environment after reading a file of settings."""
    command = f"set -a; . {path}; set +a; env -0"
    printed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, env={}).stdout.decode()
    return dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)


def test_a_file_of_settings_is_written_that_a_shell_and_a_gateway_can_read(ag, tmp_path):
    said = ag("config", "init", "--store-backend", "sqlite", "--provider", "ollama", "--no-runner")

    path = tmp_path / ".env"
    config = GatewayConfig.from_env(sourced(path))
    assert said.code == 0 and "Wrote .env" in said.out
    assert path.stat().st_mode & 0o777 == 0o600
    assert (config.store_backend, config.provider, config.runner_enabled) == ("sqlite", "ollama", False)
    assert str(config.db_path) == "runtime/gateway/gateway.sqlite3"
    (token,) = config.auth_tokens
    assert len(token) == 43


@pytest.mark.parametrize("token", ['it\'s $HOME "`id`" # \\', "a b;c"])
def test_values_that_a_shell_would_change_arrive_as_they_are(ag, tmp_path, token):
    ag("config", "init", "--auth-token", token)

    assert sourced(tmp_path / ".env")["ABSTRACTGATEWAY_AUTH_TOKEN"] == token


def test_a_file_that_is_there_is_left_alone_unless_forced(ag, tmp_path):
    ag("config", "init")
    before = (tmp_path / ".env").read_text()

    refused, forced = ag("config", "init"), ag("config", "init", "--force", "--env-file", ".env")

    assert (refused.code, "--force" in refused.err) == (1, True)
    assert forced.code == 0
    assert (tmp_path / ".env").read_text() != before


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (("--store-backend", "paper"), "'paper' is not one of", 2),
        (("--tool-mode", "never"), "TOOL_MODE", 2),
        (("--auth-token", " "), "--auth-token: is blank", 2),
        (("--env-file", "no/such/place"), "cannot be written", 1),
        (("--store-backend", "sqlite", "--db-path", "/elsewhere"), "must point to a file under", 2),
    ],
)
def test_settings_that_cannot_work_are_not_written(ag, tmp_path, arguments, text, code):
    said = ag("config", "init", *arguments)

    assert (said.code, said.out) == (code, "")
    assert text in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_status_shows_what_is_set_and_by_what_and_no_secret(ag, monkeypatch):
    monkeypatch.setenv("ABSTRACTFLOW_GATEWAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", "sqlite")

    text, as_json, everything = ag("config"), ag("config", "status", "--json"), ag("config", "status", "--all")

    assert "store_backend" in text.out and "ABSTRACTGATEWAY_STORE_BACKEND" in text.out
    assert "effect_workers" not in text.out and "effect_workers" in everything.out
    assert TOKEN not in text.out + as_json.out + everything.out
    assert "sk-secret" not in text.out + as_json.out + everything.out
    told = json.loads(as_json.out)
    assert told["gateway"]["auth_configured"] is True
    assert told["settings"]["auth_tokens"] == {"is_set": True, "from": "ABSTRACTFLOW_GATEWAY_AUTH_TOKEN"}
    assert told["settings"]["store_backend"] == {"value": "sqlite", "from": "ABSTRACTGATEWAY_STORE_BACKEND"}
    assert told["packages"]["werkzeug"]["installed"] is True


def test_it_has_a_command_of_its_own(ag, capsys):
    assert config_main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gateway"]["store_backend"] == "file"


def test_a_doctor_finds_a_gateway_well(ag, monkeypatch, tmp_path):
    monkeypatch.setenv("ABSTRACTGATEWAY_AUTH_TOKEN", TOKEN)

    said = ag("doctor")

    assert said.code == 0
    assert "problem" not in said.out and TOKEN not in said.out
    assert list(tmp_path.iterdir()) == []


def findings(about: str, host: str = "127.0.0.1", **settings: object) -> list[tuple[str, str]]:
    found = doctor.examine(GatewayConfig(**{"auth_tokens": (TOKEN,), **settings}), host)
    return [(finding.level, finding.text) for finding in found if finding.about == about]


@pytest.mark.parametrize(
    ("about", "level", "text", "host", "settings"),
    [
        ("security", "problem", "Missing gateway auth token", "127.0.0.1", {"auth_tokens": ()}),
        ("security", "problem", "weak auth token", "0.0.0.0", {"auth_tokens": ("short",)}),
        ("security", "warning", "put a TLS proxy in front", "0.0.0.0", {}),
        ("security", "warning", "admits pages from anywhere", "127.0.0.1", {"allowed_origins": ("*",)}),
        ("security", "warning", "no token, origin, host or size is checked", "127.0.0.1", {"security": False}),
        ("durability", "warning", "power loss", "127.0.0.1", {"durability": "relaxed"}),
        ("data", "warning", "nothing survives", "127.0.0.1", {"store_backend": "memory"}),
        ("tools", "warning", "nobody is asked", "127.0.0.1", {"tool_mode": "local"}),
        ("tools", "warning", "CODE_UNSANDBOXED", "127.0.0.1", {"code_unsandboxed": True}),
        ("flows", "warning", "does not exist yet", "127.0.0.1", {"flows_dir": "/nowhere"}),
    ],
)
def test_what_is_wrong_is_found(about, level, text, host, settings):
    assert any(found == level and text in said for found, said in findings(about, host, **settings))


def test_a_data_directory_that_others_may_write_or_read_is_found(tmp_path):
    tmp_path.chmod(0o777)

    found = findings("data", data_dir=tmp_path)

    assert ("warning", f"other users may write to {tmp_path}; take the right away: chmod go-w {tmp_path}") in found
    tmp_path.chmod(0o700)
    assert {level for level, _ in findings("data", data_dir=tmp_path)} == {"ok"}


def test_a_broken_bundle_is_found(tmp_path):
    (tmp_path / "bad.flow").write_bytes(b"no zip")

    assert ("warning") in [level for level, text in findings("flows", flows_dir=tmp_path) if "bad.flow" in text]


def test_a_runner_at_work_is_seen(tmp_path):
    lock = RunnerLock(tmp_path / "gateway_runner.lock")
    lock.try_acquire()

    during = findings("runner", data_dir=tmp_path)
    lock.release()

    assert "a process drives the runs now" in during[0][1]
    assert "no process drives" in findings("runner", data_dir=tmp_path)[0][1]


@pytest.mark.parametrize(
    ("version", "is_broken"),
    [((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False)],
)
def test_versions_of_sqlite_that_can_damage_a_database_are_known(version, is_broken):
    assert doctor.is_broken_sqlite(version) is is_broken


def completed(ag: Callable[..., Said], *words: str) -> list[str]:
    """Return what bash would offer for a command line."""
    given = " ".join(f"'{word}'" for word in ("abstractgateway", *words))
    code = f"{ag('completion', 'bash').out}\ncompopt() {{ :; }}\nCOMP_WORDS=({given}); COMP_CWORD={len(words)}\n"
    code += '_abstractgateway; printf "%s\\n" "${COMPREPLY[@]}"'
    return subprocess.run(["bash", "-c", code], capture_output=True, check=True, text=True).stdout.split()


def test_bash_completes_commands_and_options(ag):
    assert {"serve", "runner", "runs", "migrate", "config", "doctor"} <= set(completed(ag, ""))
    assert completed(ag, "runs", "wa") == ["watch"]
    assert completed(ag, "runs", "watch", "latest", "--de") == ["--deltas"]
    assert completed(ag, "completion", "") == ["bash", "zsh", "--help"]
    assert completed(ag, "serve", "--no") == ["--no-runner"]


def test_zsh_is_given_the_same_words(ag):
    said = ag("completion", "zsh")

    assert said.out.startswith("#compdef abstractgateway")
    assert '" runs watch") compadd -- --help' in said.out
