"""What this server does otherwise than waitress, for the sake of speed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from abstractgateway_http.handover import HandoverChannel, ServerOfChannel

AT_REST = {"total_outbufs_len": 0, "will_close": False, "close_when_flushed": False}


def test_an_answer_leaves_in_one_piece(server: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    send = HandoverChannel.send

    def spy(channel: HandoverChannel, data: bytes, **options: Any) -> Any:
        sent.append(data)
        return send(channel, data, **options)

    monkeypatch.setattr(HandoverChannel, "send", spy)
    client = connect()

    answers = [client.send("GET", "/api/health").answer() for _ in range(3)]

    assert len(sent) == len(answers)
    assert all(data.startswith(b"HTTP/1.1 200") and data.endswith(b"}") for data in sent)


@pytest.mark.parametrize(
    ("is_listened_to", "state", "is_woken"),
    [
        (True, {}, False),
        (False, {}, True),
        (True, {"total_outbufs_len": 1}, True),
        (True, {"will_close": True}, True),
        (True, {"close_when_flushed": True}, True),
    ],
)
def test_the_loop_is_woken_for_what_it_does_not_wait_for(
    is_listened_to: bool, state: dict[str, Any], is_woken: bool
) -> None:
    woken: list[bool] = []
    noted: list[bool] = []
    channel = SimpleNamespace(is_listened_to=is_listened_to, note_change=lambda: noted.append(True), **AT_REST)
    vars(channel).update(state)
    channel.is_at_rest = HandoverChannel.is_at_rest.fget(channel)
    server = SimpleNamespace(pull_trigger=lambda: woken.append(True))

    ServerOfChannel(channel, server).pull_trigger()  # type: ignore[arg-type]

    assert (bool(woken), bool(noted)) == (is_woken, is_woken)
