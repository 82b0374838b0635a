from __future__ import annotations

import struct

import pytest

from abstractgateway.visualflow.sandbox.seccomp import seccomp_filter

ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
WRITE = {"x86_64": 1, "aarch64": 64}
MMAP = {"x86_64": 9, "aarch64": 222}
DANGEROUS = {
    "x86_64": {"read": 0, "open": 2, "mprotect": 10, "socket": 41, "clone": 56, "fork": 57, "execve": 59, "kill": 62}
    | {"ptrace": 101, "prctl": 157, "openat": 257, "prlimit64": 302, "memfd_create": 319, "clone3": 435},
    "aarch64": {"read": 63, "openat": 56, "mprotect": 226, "socket": 198, "clone": 220, "execve": 221, "kill": 129}
    | {"ptrace": 117, "prctl": 167, "prlimit64": 261, "memfd_create": 279, "clone3": 435},
}
NEEDED = {"x86_64": (11, 12, 25, 28, 60, 202, 231), "aarch64": (215, 214, 216, 233, 93, 98, 94)}


def decide(rules: bytes, number: int, arch: int, *arguments: int) -> int:
    """Do what the kernel does with a filter."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", rules, 8 * position)
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            holds = accumulator == value if code == 0x15 else bool(accumulator & value)
            position += if_true if holds else if_false


@pytest.fixture(params=sorted(ARCH))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rules_of(machine: str) -> bytes:
    rules = seccomp_filter(machine, output=1)
    assert rules is not None
    return rules


def test_what_computing_needs_is_allowed(machine: str) -> None:
    decisions = {decide(rules_of(machine), number, ARCH[machine]) for number in NEEDED[machine]}

    assert decisions == {ALLOWED}


def test_whatever_reaches_outside_is_refused(machine: str) -> None:
    decisions = {name: decide(rules_of(machine), number, ARCH[machine]) for name, number in DANGEROUS[machine].items()}

    assert decisions == dict.fromkeys(DANGEROUS[machine], REFUSED)


def test_only_the_result_may_be_written(machine: str) -> None:
    decisions = [decide(rules_of(machine), WRITE[machine], ARCH[machine], fd) for fd in (0, 1, 2, 3, 0xFFFFFFFF)]

    assert decisions == [REFUSED, ALLOWED, REFUSED, REFUSED, REFUSED]


def test_memory_that_can_be_executed_is_refused(machine: str) -> None:
    decisions = [decide(rules_of(machine), MMAP[machine], ARCH[machine], 0, 4096, rights) for rights in (1, 3, 4, 5, 7)]

    assert decisions == [ALLOWED, ALLOWED, REFUSED, REFUSED, REFUSED]


def test_another_instruction_set_ends_the_process(machine: str) -> None:
    other = ARCH["aarch64" if machine == "x86_64" else "x86_64"]

    assert decide(rules_of(machine), NEEDED[machine][0], other) == KILLED


def test_the_second_table_of_calls_of_x86_64_is_refused() -> None:
    assert decide(rules_of("x86_64"), 0x40000000 | 1, ARCH["x86_64"], 1) == REFUSED


def test_few_calls_are_allowed_in_all(machine: str) -> None:
    allowed = [number for number in range(600) if decide(rules_of(machine), number, ARCH[machine]) == ALLOWED]

    assert len(allowed) == 13


def test_there_is_no_filter_for_other_machines() -> None:
    assert seccomp_filter("vax", output=1) is None
