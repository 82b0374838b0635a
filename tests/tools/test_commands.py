"""Commands: their words, what they are told, and that nothing of them outlasts its time."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.tools import commands
from abstractgateway.tools.commands import words_of
from abstractgateway.tools.process import ToolFailed
from tests.tools.toolbox import Desk, StopNow


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, or does within seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(process, select.POLLIN)
    has_ended = bool(poll.poll(10_000))
    os.close(process)
    return has_ended


def test_a_command_runs_in_the_workspace(desk: Desk) -> None:
    desk.put("a/b.txt", "x")

    found = desk.call("execute_command", command="ls 'b.txt' nothing", working_directory="a")

    assert (found["stdout"], found["success"], found["truncated"]) == ("b.txt\n", False, False)
    assert found["exit_code"] != 0 and "nothing" in found["stderr"]


def test_a_workspace_is_made_for_the_first_command(desk: Desk) -> None:
    desk.run.vars = {}

    where = desk.call("execute_command", command="pwd")["stdout"].strip()

    assert where.endswith(f"workspaces/{desk.run.run_id}")
    with pytest.raises(NotFound):
        desk.call("execute_command", command="pwd", working_directory="nowhere")


def test_a_command_knows_nothing_of_the_gateways_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("ABSTRACTGATEWAY_AUTH_TOKEN", "secret")

    names = {line.partition("=")[0] for line in desk.call("execute_command", command="env")["stdout"].splitlines()}

    assert names == {"PATH", "HOME", "LANG", "TERM"}


def test_a_command_has_no_open_files_of_the_gateway(desk: Desk, tmp_path: Path) -> None:
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        listed = desk.call("execute_command", command="ls -l /proc/self/fd")["stdout"]

    assert str(tmp_path / "open") not in listed
    assert str(desk.top) not in listed


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls -l", ["ls", "-l"]),
        ("echo 'a; b' \"c | d\" e\\>f", ["echo", "a; b", "c | d", "e>f"]),
        ("echo $HOME `id` $(id", None),
        ("git commit -m '# not a comment'", ["git", "commit", "-m", "# not a comment"]),
        ("echo # a", ["echo", "#", "a"]),
        ("make CFLAGS=-O2 ~/x *.c", ["make", "CFLAGS=-O2", "~/x", "*.c"]),
        ("ls; id", None),
        ("ls;id", None),
        ("ls && id", None),
        ("ls | wc", None),
        ("ls > x", None),
        ("ls < x", None),
        ("ls & id", None),
        ("ls\nid", None),
        ("", None),
        ("'unclosed", None),
        ("a\0b", None),
    ],
)
def test_a_command_is_words_or_needs_a_shell(command: str, words: list[str] | None) -> None:
    if words is not None:
        assert words_of(command) == words
        return
    with pytest.raises(Invalid):
        words_of(command)


def test_words_are_not_interpreted(desk: Desk) -> None:
    desk.put("a.txt")

    assert desk.call("execute_command", command="echo $HOME '$(id)' '`id`' *.txt")["stdout"] == (
        "$HOME $(id) `id` *.txt\n"
    )


def test_a_shell_is_used_when_it_is_asked_for(desk: Desk) -> None:
    found = desk.call("execute_command", command="echo one | tr a-z A-Z; exit 3", shell=True)

    assert (found["stdout"], found["exit_code"]) == ("ONE\n", 3)


def test_a_program_that_is_missing_says_so(desk: Desk) -> None:
    found = desk.call("execute_command", command="no-such-program x")

    assert found["exit_code"] == 127
    assert found["stderr"] == "'no-such-program' cannot be started: No such file or directory"


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(desk: Desk) -> None:
    with pytest.raises(ToolFailed, match="took longer than"):
        desk.call("execute_command", command="sleep 60 & echo $! > pid; sleep 60", shell=True, timeout=1)

    assert is_gone(int((desk.top / "pid").read_text()))


def test_the_time_of_the_effect_counts_too(desk: Desk) -> None:
    with pytest.raises(ToolFailed, match="took longer than 0.2 s"):
        desk.call("execute_command", command="sleep 60", timeout=60, timeout_s=0.2)


def test_what_a_command_leaves_in_the_background_is_killed(desk: Desk) -> None:
    found = desk.call("execute_command", command="sleep 60 & echo $!", shell=True)

    assert is_gone(int(found["stdout"]))


def test_a_command_whose_result_is_not_wanted_is_killed(desk: Desk) -> None:
    stop = StopNow()
    os.mkfifo(desk.top / "begun")

    def stop_when_it_runs() -> None:
        (desk.top / "begun").read_text()
        stop.set()

    watcher = threading.Thread(target=stop_when_it_runs)
    watcher.start()
    with pytest.raises(ToolFailed, match="was stopped"):
        desk.call("execute_command", command="echo $$ > pid; echo > begun; sleep 60", shell=True, stop=stop)
    watcher.join()

    assert is_gone(int((desk.top / "pid").read_text()))


def test_output_is_kept_as_far_as_it_may_be(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "KEEP_BYTES", 10)

    found = desk.call("execute_command", command="head -c 100000 /dev/zero | tr '\\0' x; echo done >&2", shell=True)

    assert (found["stdout"], found["stderr"], found["truncated"]) == ("x" * 10, "done\n", True)


def test_a_command_that_writes_without_end_is_killed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST_OUTPUT_BYTES", 1_000_000)

    with pytest.raises(ToolFailed, match="wrote more than 1000000 bytes and was killed; its output begins: y"):
        desk.call("execute_command", command="yes")


def test_a_command_that_dies_of_a_signal_failed(desk: Desk) -> None:
    with pytest.raises(ToolFailed, match="killed by signal 9; why"):
        desk.call("execute_command", command="echo why >&2; kill -9 $$", shell=True)


def test_a_command_that_reads_finds_nothing(desk: Desk) -> None:
    assert desk.call("execute_command", command="cat")["stdout"] == ""
