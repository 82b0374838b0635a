from __future__ import annotations

import pytest

BODY = {"bundle_id": "echo", "input_data": {"prompt": "hi"}}


def test_a_run_is_started_with_limits_and_says_what_it_has_used(live):
    started = live.ask("POST", "/runs/start", body={**BODY, "limits": {"tokens": 5000, "wall_s": 2.5}})

    run = live.ask("GET", f"/runs/{started.json['run_id']}").json

    assert run["budget"]["tokens"] == {"limit": 5000, "used": 0}
    assert run["budget"]["wall_s"]["limit"] == 2.5
    assert (run["usage"]["tokens"], run["usage"]["model_calls"], run["usage"]["tool_calls"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("limits", "status", "detail"),
    [
        ({"cents": 5}, 400, "limits.cents: is not a limit; known: tokens, model_calls, tool_calls, wall_s"),
        ({"tokens": "many"}, 400, "limits.tokens: 'many' is not a whole number from 1 to 9007199254740992"),
        ([], 422, None),
    ],
)
def test_limits_that_make_no_sense_are_refused(live, limits, status, detail):
    answer = live.ask("POST", "/runs/start", body={**BODY, "limits": limits})

    assert answer.status == status
    assert detail is None or answer.json["detail"] == detail
    assert live.ask("GET", "/runs").json["items"] == []
