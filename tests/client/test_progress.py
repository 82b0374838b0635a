from __future__ import annotations

import io
import threading

import pytest

from abstractgateway.cli.printable import columns_of, fitted, padded
from abstractgateway.cli.progress import Progress, step_line
from abstractgateway.client import Entry


class Terminal(io.StringIO):
    """A terminal that tells when something moved on it."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "asking" in text:
            self.moved.set()
        return super().write(text)


def test_on_a_terminal_a_line_moves_and_gives_way_to_what_stays() -> None:
    terminal = Terminal()

    with Progress(terminal) as progress:
        progress.say("asking a model")
        assert terminal.moved.wait(10)
        progress.print("done")

    shown = terminal.getvalue()
    assert "asking a model  0." in shown
    assert "\r\033[Kdone\n" in shown
    assert shown.endswith("\r\033[K")


def test_elsewhere_nothing_moves() -> None:
    output = io.StringIO()

    with Progress(output) as progress:
        progress.say("asking")
        progress.print("done")

    assert output.getvalue() == "done\n"


def test_text_that_comes_in_pieces_is_ended_before_a_line() -> None:
    output = io.StringIO()

    with Progress(output) as progress:
        progress.stream("Hel")
        progress.stream("lo")
        progress.print("done")

    assert output.getvalue() == "Hello\ndone\n"


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"status": "started"}, None),
        (
            {"ended_at": "2026-01-01T00:00:02+00:00", "effect": {"type": "llm_call"}},
            "    7  completed  think                     llm_call            2.0 s",
        ),
        (
            {"ended_at": "2026-01-01T00:00:00.005+00:00", "status": "failed", "error": "no key"},
            "    7  failed     think                                         5 ms  no key",
        ),
        ({"ended_at": None, "status": "waiting"}, "    7  waiting    think"),
    ],
)
def test_a_record_is_one_line(record: dict[str, object], line: str | None) -> None:
    begun = {"status": "completed", "node_id": "think", "started_at": "2026-01-01T00:00:00+00:00", **record}

    assert step_line(Entry(7, begun)) == line


def test_the_line_that_moves_is_never_longer_than_the_terminal(monkeypatch) -> None:
    monkeypatch.setattr("abstractgateway.cli.progress.terminal_columns", lambda output: 20)
    terminal = Terminal()

    with Progress(terminal) as progress:
        progress.say("asking " + "很" * 40)
        assert terminal.moved.wait(10)

    frames = [frame for frame in terminal.getvalue().split("\r\033[K") if frame]
    assert frames
    assert all(columns_of(frame) <= 19 and frame.endswith("…") for frame in frames)


def test_text_of_models_cannot_steer_the_terminal() -> None:
    output = io.StringIO()

    with Progress(output) as progress:
        progress.stream("a\x1b]0;title\x07\tb\n")
        progress.print("\x1b[1mdone")

    assert output.getvalue() == "a\\x1b]0;title\\x07\tb\n\n\\x1b[1mdone\n"


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("很很", 4, "很很"),
        ("很很", 3, "很…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_a_line_is_cut_where_the_terminal_ends(text: str, columns: int, shown: str) -> None:
    assert fitted(text, columns) == shown
    assert columns_of(padded(shown, columns)) == columns
