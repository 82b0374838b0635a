from __future__ import annotations

from datetime import timedelta

import pytest

from abstractgateway.config import GatewayConfig
from abstractgateway.errors import Invalid
from abstractgateway.security import Allow, Guard, NamedToken, RequestFacts, scope_denial
from abstractgateway.security.scopes import SCOPES, Caller
from abstractgateway.security.tokens import fingerprint, new_token
from abstractgateway.testing import ManualClock

PLAIN = "a-plain-token-of-some-length"


def make(name: str = "ci", scopes=("read",), **given):
    return new_token(name, scopes, now=ManualClock().now(), **given)


def test_a_token_is_long_random_and_recognisable_and_only_its_hash_is_kept():
    token, text = make()
    other, other_text = make()

    assert text != other_text
    assert text.startswith(f"agw_{token.id}_") and len(text) == 56
    assert text.split("_", 2)[2] not in str(token.to_dict())
    assert len(token.sha256) == 64


def test_a_stored_token_is_read_back_as_it_was():
    token, _ = make(scopes=("command", "read"), session_id="s-1")

    assert NamedToken.of(token.to_dict()) == token
    assert token.scopes == ("read", "command")


@pytest.mark.parametrize(
    "damage",
    [
        {"sha256": "zz"},
        {"sha256": "00"},
        {"scopes": ["everything"]},
        {"scopes": []},
        {"scopes": 5},
        {"expires_at": "soon"},
        {"id": ""},
        {"name": ""},
        {"more": 1},
        {"scopes": ["admin"], "session_id": "s"},
    ],
)
def test_a_damaged_row_is_refused(damage):
    token, _ = make()

    with pytest.raises(Invalid):
        NamedToken.of({**token.to_dict(), **damage})


@pytest.mark.parametrize(
    ("name", "scopes", "more"),
    [
        ("", ("read",), {}),
        ("two\nlines", ("read",), {}),
        ("x" * 101, ("read",), {}),
        ("x", (), {}),
        ("x", ("write",), {}),
        ("x", ("read",), {"session_id": " "}),
        ("x", ("admin",), {"session_id": "s"}),
        ("x", ("read",), {"expires_at": ManualClock().now()}),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(name, scopes, more):
    with pytest.raises(Invalid):
        make(name, scopes, **more)


def decide(clock: ManualClock, named, authorization: str):
    guard = Guard(GatewayConfig(auth_tokens=(PLAIN,)), clock, lambda: named)
    return guard.decide(RequestFacts("GET", "/api/gateway/runs", authorization=f"Bearer {authorization}"))


def test_a_named_token_says_who_calls_and_the_plain_one_may_do_everything():
    clock = ManualClock()
    token, text = make("ci", ("run",), session_id="s-1")

    assert decide(clock, (token,), text) == Allow(Caller("ci", frozenset({"run"}), "s-1"))
    assert decide(clock, (token,), PLAIN).caller == Caller("", frozenset(SCOPES), None)


def test_a_token_stops_at_the_moment_it_expires():
    clock = ManualClock()
    token, text = make(expires_at=clock.now() + timedelta(seconds=10))

    clock.move(9.9)
    before = decide(clock, (token,), text)
    clock.move(0.1)
    after = decide(clock, (token,), text)

    assert isinstance(before, Allow)
    assert after.status == 401


def test_tokens_that_come_and_go_are_noticed_at_once():
    clock, named = ManualClock(), []
    token, text = make()
    guard = Guard(GatewayConfig(auth_tokens=(PLAIN,)), clock, lambda: named[-1] if named else ())
    facts = RequestFacts("GET", "/api/gateway/runs", authorization=f"Bearer {text}")

    seen = [guard.decide(facts)]
    named.append((token,))
    seen.append(guard.decide(facts))
    named.append(())
    seen.append(guard.decide(facts))

    assert [isinstance(decision, Allow) for decision in seen] == [False, True, False]


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes_contain_nothing_else_except_admin(scope):
    caller = Caller("x", frozenset({scope}))

    allowed = {wanted for wanted in SCOPES if scope_denial(caller, wanted) is None}

    assert allowed == ({scope} if scope != "admin" else set(SCOPES))


def test_a_missing_scope_is_named_as_the_standard_for_bearer_tokens_says():
    denial = scope_denial(Caller("x", frozenset({"read"})), "run")

    assert (denial.status, denial.code) == (403, "scope_missing")
    assert dict(denial.headers)["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="run"'


def test_a_fingerprint_tells_tokens_apart_and_no_token():
    assert fingerprint(f"Bearer {PLAIN}") == fingerprint(f"bearer  {PLAIN}")
    assert fingerprint(f"Bearer {PLAIN}") != fingerprint("Bearer other")
    assert fingerprint("Basic x") is None
    assert len(fingerprint(f"Bearer {PLAIN}")) == 12
