from __future__ import annotations

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime.effects.memory.recall import LEVELS, Bound, Effort, recall_level


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_name_is_no_level(value: str | None) -> None:
    assert recall_level(value) is None


def test_a_level_is_named_in_any_case() -> None:
    assert recall_level(" Deep ") is LEVELS["deep"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(Invalid, match="'lazy' is not one of urgent, standard, deep"):
        recall_level("lazy")


def test_a_higher_level_never_gives_less() -> None:
    urgent, standard, deep = LEVELS.values()

    for lower, higher in ((urgent, standard), (standard, deep)):
        for name in ("spans", "messages", "rehydrated", "kg_limit", "kg_tokens"):
            low, high = getattr(lower, name), getattr(higher, name)
            assert low.default <= high.default
            assert low.most <= high.most
            assert high.default <= high.most
        assert lower.kg_score_floor >= higher.kg_score_floor
        assert lower.kg_score_default >= higher.kg_score_default
        assert lower.deep_spans <= higher.deep_spans


@pytest.mark.parametrize(("wish", "given", "is_cut"), [(None, 5, False), (8, 8, False), (9, 8, True), (-1, 8, True)])
def test_a_number_is_cut_to_the_most(wish: int | None, given: int, is_cut: bool) -> None:
    effort = Effort(LEVELS["standard"])

    assert effort.number("n", wish, Bound(5, 8), otherwise=3) == given
    assert bool(effort.warnings) is is_cut


def test_without_a_level_nothing_is_cut_and_no_effort_is_told() -> None:
    effort = Effort(None)

    assert effort.number("n", 10_000, None, otherwise=3) == 10_000
    assert effort.switch("s", True, None, otherwise=False) is True
    assert (effort.warnings, effort.to_dict()) == ([], None)


@pytest.mark.parametrize(("wish", "is_told"), [(True, True), (None, False), (False, False)])
def test_a_switch_that_the_level_forbids_is_off_and_said_only_where_it_was_wished(
    wish: bool | None, is_told: bool
) -> None:
    effort = Effort(LEVELS["urgent"])

    assert effort.switch("deep", wish, False, otherwise=True) is False
    assert bool(effort.warnings) is is_told
