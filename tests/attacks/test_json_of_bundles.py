"""JSON of bundles that another reader would read otherwise, or not at all: refused, and nothing is installed."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attacks.target import API, Target, attacked, head, statuses
from tests.cli.processes import SAMPLES

SAMPLE = next(iter(sorted(SAMPLES.glob("*.flow"))))
ODD = {
    "a key twice": b'{"id": "x", "id": "y"}',
    "a key twice, once escaped": b'{"id": "x", "\\u0069d": "y"}',
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "a number beyond any": b"1e999",
    "thousands of digits": b"9" * 5_000,
    "half a character": b'"\\ud800"',
    "half a character as a key": b'{"\\udfff": 1}',
    "no UTF-8": b'"\xff\xfe"',
    "deep lists": b"[" * 5_000 + b"]" * 5_000,
    "endless lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "two values": b"1} {",
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    place = tmp_path_factory.mktemp("attacked")
    (place / "flows").mkdir()
    shutil.copy(SAMPLE, place / "flows")
    with attacked(place, FLOWS_DIR=place / "flows") as target:
        yield target


def with_odd(name: str, place: str) -> bytes:
    """Return a bundle that is in order but for the metadata of its manifest, or a member of each of its flows."""
    target = io.BytesIO()
    with zipfile.ZipFile(SAMPLE) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.namelist():
            content = source.read(member)
            is_meant = member == "manifest.json" if place == "manifest" else member.startswith("flows/")
            archive.writestr(member, _odd(content, ODD[name], place) if is_meant else content)
    return target.getvalue()


def _odd(content: bytes, value: bytes, place: str) -> bytes:
    whole: dict[str, Any] = json.loads(content)
    if place == "manifest":
        whole = {key: kept for key, kept in whole.items() if key != "metadata"} | {"bundle_id": "odd"}
    key = b"metadata" if place == "manifest" else b"odd"
    return json.dumps(whole).encode()[:-1] + b', "%b": {"odd": %b}}' % (key, value)


def upload(target: Target, content: bytes) -> tuple[int, Any]:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.flow"\r\n\r\n' + content + b"\r\n--b--\r\n"
    kind = "Content-Type: multipart/form-data; boundary=b"
    sent = head("POST", f"{API}/bundles/upload", kind, f"Content-Length: {len(body)}", "Connection: close") + body
    answer = target.exchange(sent)
    return statuses(answer)[0], json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("place", ["manifest", "flow"])
@pytest.mark.parametrize("name", ODD)
def test_a_bundle_with_odd_json_is_refused_and_nothing_is_installed(target: Target, name: str, place: str) -> None:
    before = target.ask(f"{API}/bundles")[1]

    status, answer = upload(target, with_odd(name, place))

    assert (status, answer["code"]) in [(400, "json_invalid"), (400, "invalid"), (400, "flow_invalid")], answer
    assert target.ask(f"{API}/bundles")[1] == before
    assert "Traceback" not in target.output
