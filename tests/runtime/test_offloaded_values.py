from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.jsonvalue import dumps, loads
from abstractgateway.runtime.offloading import MARK, is_offloaded, offload_large_values, rehydrate
from abstractgateway.stores.artifacts import InMemoryArtifactStore

LIMIT = 1000
LONG = "wörter " * 1000
MANY = [{"n": number} for number in range(1000)]


def offloaded(value: Any, artifacts: InMemoryArtifactStore, **options: Any) -> Any:
    given = {"run_id": "r1", "max_inline_bytes": LIMIT, "root_path": "root", **options}
    return offload_large_values(value, artifact_store=artifacts, **given)


def test_what_is_large_leaves_and_what_is_small_stays() -> None:
    artifacts = InMemoryArtifactStore()
    value = {
        "text": LONG,
        "list": [1, [MANY, "x"]],
        "small": {"a": 1},
        "ref": {"$artifact": "mine", "name": "n" * 2000},
    }

    left = offloaded(value, artifacts, base_tags={"source": "here"})

    assert (left["small"], left["ref"], left["list"][0], left["list"][1][1]) == ({"a": 1}, value["ref"], 1, "x")
    assert artifacts.load(left["text"]["$artifact"]) == LONG.encode()
    assert loads(artifacts.load(left["list"][1][0]["$artifact"]) or b"") == MANY
    text, listed = (artifacts.get_metadata(ref["$artifact"]) for ref in (left["text"], left["list"][1][0]))
    assert text is not None
    assert listed is not None
    assert (text.run_id, text.content_type, listed.content_type) == ("r1", "text/plain", "application/json")
    assert text.tags == {"source": "here", "path": "root.text", "kind": "text"}
    assert listed.tags == {"source": "here", "path": "root.list[1][0]", "kind": "json"}
    assert rehydrate(left, artifacts) == value


@pytest.mark.parametrize("length", [LIMIT - 2, LIMIT - 1])
def test_the_limit_itself_is_small(length: int) -> None:
    left = offloaded({"a": "x" * length}, InMemoryArtifactStore())

    assert is_offloaded(left["a"]) is (length + len('""') > LIMIT)


def test_a_container_of_many_parts_leaves_as_one_artifact() -> None:
    artifacts = InMemoryArtifactStore()
    value = {"all": {"long": LONG, "parts": {str(n): "x" * 900 for n in range(9)}}}

    left = offloaded(value, artifacts)

    assert len(dumps(left)) < LIMIT
    assert [item.tags["path"] for item in artifacts.list_by_run("r1")] in (
        [["root.all.parts", "root.all.long"], ["root.all.long", "root.all.parts"]]
    )
    assert rehydrate(left, artifacts) == value


def test_what_leaves_inside_something_that_leaves_is_stored_once() -> None:
    artifacts = InMemoryArtifactStore()
    value = {"all": [LONG, *("x" * 900 for _ in range(9))]}

    left = offloaded(value, artifacts)

    assert [item.tags["path"] for item in artifacts.list_by_run("r1")] == ["root.all"]
    assert rehydrate(left, artifacts) == value


def test_the_root_stays_unless_it_may_leave() -> None:
    artifacts = InMemoryArtifactStore()

    assert offloaded(LONG, artifacts) == LONG
    assert offloaded(MANY, artifacts) == MANY
    assert rehydrate(offloaded(MANY, artifacts, allow_root_replace=True), artifacts) == MANY
    assert is_offloaded(offloaded(MANY, artifacts, allow_root_replace=True))


def test_a_value_that_json_lacks_is_refused_and_nothing_is_stored() -> None:
    artifacts = InMemoryArtifactStore()

    with pytest.raises(Invalid):
        offloaded({"long": LONG, "bad": object()}, artifacts)

    assert artifacts.list_all() == []


NAMES = st.sampled_from(["$artifact", MARK, "a", "b"])
TEXTS = st.sampled_from(["", "text", "json", "0" * 32, "long " * 20, "ü" * 90])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=300)
@given(VALUES, st.booleans())
def test_whatever_leaves_comes_back_as_it_was(value: Any, allow_root_replace: bool) -> None:
    artifacts = InMemoryArtifactStore()
    if not allow_root_replace:
        value = {"root": value}

    left = offloaded(value, artifacts, max_inline_bytes=100, allow_root_replace=allow_root_replace)

    assert rehydrate(left, artifacts) == value


def test_a_reference_whose_artifact_is_gone_is_an_error_unless_it_may_stay() -> None:
    ref = {"$artifact": "0" * 32, MARK: "text"}

    with pytest.raises(Unavailable, match="root.a"):
        rehydrate({"a": ref}, InMemoryArtifactStore(), path="root")

    assert rehydrate({"a": ref}, InMemoryArtifactStore(), is_lenient=True) == {"a": ref}
