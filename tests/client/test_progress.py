from __future__ import annotations

import io
import threading

import pytest

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
