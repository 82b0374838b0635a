from __future__ import annotations

from abstractgateway.security.shares import Shares, Tally


def test_a_place_is_refused_when_all_are_taken_and_free_again_when_one_is_given_back():
    shares = Shares(2)
    shares.take("a")
    shares.take("b")

    refused = shares.take("c")
    shares.give("a")

    assert (refused.status, refused.code, dict(refused.headers)) == (429, "concurrency_limit", {"Retry-After": "1"})
    assert refused.detail == "Too Many Requests (concurrency limit)"
    assert shares.take("c") is None


def test_a_client_cannot_take_the_places_of_others():
    shares = Shares(10, each=2)
    shares.take("a")
    shares.take("a")

    assert shares.take("a").code == "client_busy"
    assert shares.take("b") is None
    shares.give("a")
    assert shares.take("a") is None


def test_a_refusal_for_all_costs_a_client_no_share():
    shares = Shares(1, each=2)
    shares.take("a")

    for _ in range(3):
        assert shares.take("b").code == "concurrency_limit"
    shares.give("a")

    assert shares.take("b") is None


def test_a_tally_counts_up_to_its_limit_and_keeps_nobody_who_left():
    tally = Tally(2)

    assert [tally.add("a") for _ in range(3)] == [True, True, False]
    tally.drop("a")
    tally.drop("a")
    assert tally["a"] == 0
    assert [tally.add("a") for _ in range(3)] == [True, True, False]


def test_a_tally_without_a_limit_counts_nothing():
    tally = Tally(0)

    assert all(tally.add("a") for _ in range(1000))
