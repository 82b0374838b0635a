"""Heads that two servers in a row could understand differently, and other things that are not quite HTTP."""

from __future__ import annotations

import pytest

from tests.attacks.target import API, HEALTH, Target, head, statuses

JSON = "Content-Type: application/json"
BODY = b'{"runs":[]}'
CHUNKED = b"b\r\n" + BODY + b"\r\n0\r\n\r\n"
SMUGGLED = head("GET", "/smuggled")


def post(*headers: str, version: str = "HTTP/1.1") -> bytes:
    return head("POST", f"{API}/runs/ledger/batch", JSON, *headers, version=version)


AMBIGUOUS = {
    "length before chunks": post("Content-Length: 4", "Transfer-Encoding: chunked") + CHUNKED,
    "chunks before length": post("Transfer-Encoding: chunked", "Content-Length: 11") + CHUNKED,
    "two equal lengths": post("Content-Length: 11", "Content-Length: 11") + BODY,
    "two lengths": post("Content-Length: 11", "Content-Length: 5") + BODY,
    "a list of lengths": post("Content-Length: 11, 11") + BODY,
    "a signed length": post("Content-Length: +11") + BODY,
    "a negative length": post("Content-Length: -1") + BODY,
    "a length in hex": post("Content-Length: 0xb") + BODY,
    "a length with a blank": post("Content-Length: 1 1") + BODY,
    "a length of thousands of digits": post("Content-Length: " + "9" * 5_000) + BODY,
    "a length in other digits": post("Content-Length: \xb2") + BODY,
    "chunks in HTTP/1.0": post("Connection: keep-alive", "Transfer-Encoding: chunked", version="HTTP/1.0") + CHUNKED,
    "chunks twice": post("Transfer-Encoding: chunked, chunked") + CHUNKED,
    "chunks in two headers": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + CHUNKED,
    "chunks after nothing": post("Transfer-Encoding: ,chunked") + CHUNKED,
    "chunks behind a control character": post("Transfer-Encoding: \x0bchunked") + CHUNKED,
    "chunks behind a blank in the name": post("Transfer-Encoding : chunked") + CHUNKED,
    "chunks in a folded line": post("Transfer-Encoding:\r\n chunked") + CHUNKED,
    "a folded line": post("X-One: a\r\n\tb", "Content-Length: 11") + BODY,
    "a chunk size in 0x": post("Transfer-Encoding: chunked") + b"0x" + CHUNKED,
    "a negative chunk size": post("Transfer-Encoding: chunked") + b"-" + CHUNKED,
    "a bare line feed in a chunk": post("Transfer-Encoding: chunked") + CHUNKED.replace(b"b\r\n", b"b;x=\n\r\n", 1),
    "a chunk that is too long": post("Transfer-Encoding: chunked") + CHUNKED.replace(b"\r\n0", b"XX0"),
    "a bare carriage return": head("GET", HEALTH, "X: a\rY: b"),
    "a zero byte": head("GET", HEALTH, "X: a\0b"),
    "no Host": f"GET {HEALTH} HTTP/1.1\r\n\r\n".encode(),
    "HTTP/0.9": f"GET {HEALTH}\r\n\r\n".encode(),
    "HTTP/1.2": post("Transfer-Encoding: chunked", version="HTTP/1.2") + CHUNKED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": head("get", HEALTH),
    "tabs": head("GET", HEALTH).replace(b" ", b"\t", 2),
    "brackets around no address": head("GET", "http://[::1/x"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_understood_in_two_ways_is_refused_and_the_connection_ends(target: Target, name: str) -> None:
    answers = target.exchange(AMBIGUOUS[name] + SMUGGLED)

    assert statuses(answers) == [400]
    assert b'"code": "bad_request"' in answers
    assert "Traceback" not in target.output
    assert "uncaptured" not in target.output


def test_other_codings_are_not_implemented(target: Target) -> None:
    answers = target.exchange(post("Transfer-Encoding: gzip") + CHUNKED + SMUGGLED)

    assert statuses(answers) == [501]


def test_a_header_with_an_underscore_frames_nothing(target: Target) -> None:
    answers = target.exchange(post("Transfer_Encoding: chunked", "Content-Length: 11", "Connection: close") + BODY)

    assert statuses(answers) == [200]


def test_chunks_alone_and_a_length_alone_are_served(target: Target) -> None:
    chunked = post("Transfer-Encoding: chunked") + CHUNKED
    plain = post("Content-Length: 11", "Connection: close") + BODY

    assert statuses(target.exchange(chunked + plain)) == [200, 200]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("GET", f"http://evil.example{HEALTH}", "Connection: close"), 403),
        (head("GET", f"http://user@127.0.0.1{HEALTH}", "Connection: close"), 403),
        (head("GET", f"http://127.0.0.1{HEALTH}", "Connection: close"), 200),
        (head("GET", "//evil.example" + HEALTH, "Connection: close"), 404),
        (head("CONNECT", "127.0.0.1:80", "Connection: close"), 404),
        (head("CONNECT", "127.0.0.1:80", "Connection: close", token=None), 401),
        (head("TRACE", HEALTH, "Connection: close"), 405),
        (head("GET", HEALTH, "Host: evil.example", "Connection: close"), 403),
        (head("GET", HEALTH, "Connection: close", "Upgrade: h2c"), 200),
    ],
)
def test_other_forms_of_targets(target: Target, request_head: bytes, status: int) -> None:
    answers = target.exchange(request_head)

    assert statuses(answers) == [status]


@pytest.mark.parametrize("size", [20_000, 100_000, 5_000_000])
def test_an_enormous_target_is_refused(target: Target, size: int) -> None:
    answers = target.exchange(head("GET", f"{HEALTH}?{'a' * size}", "Connection: close"))

    # What is sent after the refusal meets a closed socket, and its reset may overtake the refusal.
    assert statuses(answers) in ([414], [431], [])


def test_a_head_without_end_is_refused(target: Target) -> None:
    answers = target.exchange(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000)

    assert statuses(answers) in ([431], [])


def test_no_header_of_an_answer_can_be_set_by_a_path(target: Target) -> None:
    answers = target.exchange(head("GET", f"{API}/runs/%0d%0aX-Evil:%20y/", "Connection: close"))

    assert b"\r\nX-Evil" not in answers
