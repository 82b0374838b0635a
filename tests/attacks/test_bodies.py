"""Bodies, forms and the client's reader of streams, with whatever hypothesis comes up with."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abstractgateway import jsonvalue
from abstractgateway.client.events import MAX_LINE_BYTES, frames
from abstractgateway.errors import GatewayError, Invalid
from abstractgateway_http.fields import Field, ValidationFailed, json_object, read_body, text, whole
from abstractgateway_http.render import error_body

FAST = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FIELDS = (Field("a", text, required=True), Field("n", whole(0, 10)), Field("o", json_object, default=dict))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ano") | st.text(), inner),
    max_leaves=20,
)


def checked(raw: bytes) -> None:
    """Read a body; a refusal has to be an error that can be sent."""
    try:
        read_body(FIELDS, raw)
    except ValidationFailed as failure:
        strict = json.loads(error_body("c", failure.problems, "r"), parse_constant=lambda name: pytest.fail(name))
        assert strict["detail"]


@FAST
@given(JSON)
def test_a_body_of_any_json_is_read_or_refused(value: Any) -> None:
    checked(json.dumps(value).encode("utf-8", "surrogatepass"))


@FAST
@given(st.binary(max_size=300))
def test_a_body_of_any_bytes_is_read_or_refused(raw: bytes) -> None:
    checked(raw)


@pytest.mark.parametrize("depth", [1, 99, 100, 101, 300, 500, 900, 990, 1_500, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("place", [b'{"a":%b}', b'{"b":%b}', b'{"o":%b}', b"%b"])
def test_a_body_of_any_depth_is_read_or_refused(depth: int, opening: bytes, closing: bytes, place: bytes) -> None:
    checked(place % (opening * depth + b"1" + closing * depth))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 4_300, "9" * 5_000])
def test_numbers_that_json_or_we_lack_are_refused_in_json(number: str) -> None:
    checked(b'{"a": %b, "n": %b}' % (number.encode(), number.encode()))


def test_a_refusal_quotes_what_json_cannot_spell_as_text() -> None:
    with pytest.raises(ValidationFailed) as refusal:
        read_body(FIELDS, b'{"a": [1e999]}')

    assert refusal.value.problems[0]["input"] == ["inf"]


@FAST
@given(st.text(alphabet='[]{}",:0123456789eE+-.\\utrfalsn \x00\ud800é', max_size=60))
def test_a_text_is_strict_json_or_refused(source: str) -> None:
    try:
        value = jsonvalue.loads(source)
    except Invalid:
        return
    assert not (isinstance(value, float) and math.isnan(value))


LINES = st.lists(
    st.sampled_from([b"event: step\n", b"data: x\n", b"data\n", b"id: 7\n", b"id: a\0b\n", b"\n", b"\r\n", b": c\n"])
    | st.builds(lambda digits: b"retry: " + digits + b"\n", st.text("0123456789٣²", max_size=9).map(str.encode))
    | st.binary(max_size=20)
)


@FAST
@given(LINES)
def test_a_stream_of_any_bytes_is_read_to_its_end(lines: list[bytes]) -> None:
    for frame in frames(io.BytesIO(b"".join(lines))):
        assert frame.retry_s is None or 0 <= frame.retry_s < math.inf


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5_000])
def test_a_pause_of_thousands_of_digits_is_not_taken(digits: str) -> None:
    [frame] = frames(io.BytesIO(f"retry: {digits}\ndata: x\n\n".encode()))

    assert (frame.data, frame.retry_s) == ("x", None)


class Endless:
    """A stream of short lines of data that never ends."""

    def __init__(self) -> None:
        self.given = 0

    def readline(self, limit: int = -1, /) -> bytes:
        self.given += 1_000_006
        return b"data: " + b"x" * 1_000_000 + b"\n"


def test_a_frame_that_never_ends_is_given_up() -> None:
    source = Endless()

    with pytest.raises(GatewayError, match="bytes"):
        next(frames(source))

    assert source.given <= MAX_LINE_BYTES + 2_000_012
