"""The list of system calls that are left to code, as a program for the kernel's seccomp filter.

See seccomp(2) and linux/filter.h. What is on the list lets an interpreter compute, ask for memory, write its result to
one file descriptor and end; everything else fails with EPERM, and another instruction set ends the process.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LOAD_WORD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_KILL_PROCESS, _FAIL_WITH_EPERM, _ALLOW = 0x80000000, 0x00050001, 0x7FFF0000
_NUMBER_AT, _ARCH_AT = 0, 4
_FIRST_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 16, 32  # the low words, on little-endian machines
_PROT_EXEC = 4


@dataclass(frozen=True)
class _Machine:
    audit_arch: int
    write: int
    mmap: int
    others: Mapping[str, int]


_MACHINES = {
    "x86_64": _Machine(
        audit_arch=0xC000003E,
        write=1,
        mmap=9,
        others={
            "munmap": 11,
            "brk": 12,
            "rt_sigreturn": 15,
            "sched_yield": 24,
            "mremap": 25,
            "madvise": 28,
            "exit": 60,
            "gettimeofday": 96,
            "futex": 202,
            "restart_syscall": 219,
            "clock_gettime": 228,
            "exit_group": 231,
        },
    ),
    "aarch64": _Machine(
        audit_arch=0xC00000B7,
        write=64,
        mmap=222,
        others={
            "exit": 93,
            "exit_group": 94,
            "futex": 98,
            "clock_gettime": 113,
            "sched_yield": 124,
            "restart_syscall": 128,
            "rt_sigreturn": 139,
            "gettimeofday": 169,
            "brk": 214,
            "munmap": 215,
            "mremap": 216,
            "madvise": 233,
        },
    ),
}


def seccomp_filter(machine: str, *, output: int) -> bytes | None:
    """Return the filter for a machine as `platform.machine()` names it, or None when there is none for it.

    `output` is the only file descriptor that may be written to. The bytes are an array of `struct sock_filter`.
    """
    known = _MACHINES.get(machine)
    if known is None:
        return None
    return b"".join(
        [
            _load(_ARCH_AT),
            _jump(_JUMP_EQUAL, known.audit_arch, if_true=1),
            _return(_KILL_PROCESS),
            _load(_NUMBER_AT),
            *_allowed(known.others.values()),
            *_guarded(known.write, _FIRST_ARGUMENT_AT, _JUMP_EQUAL, output, is_allowed=True),
            *_guarded(known.mmap, _THIRD_ARGUMENT_AT, _JUMP_ANY_BIT, _PROT_EXEC, is_allowed=False),
            _return(_FAIL_WITH_EPERM),
        ]
    )


def _allowed(numbers: object) -> list[bytes]:
    found: list[bytes] = []
    for number in numbers:  # type: ignore[attr-defined]
        found += [_jump(_JUMP_EQUAL, number, if_false=1), _return(_ALLOW)]
    return found


def _guarded(number: int, argument_at: int, test: int, value: int, *, is_allowed: bool) -> list[bytes]:
    """Decide about one call by one of its arguments: allow it if the test holds, or unless it holds."""
    yes, no = (_ALLOW, _FAIL_WITH_EPERM) if is_allowed else (_FAIL_WITH_EPERM, _ALLOW)
    return [
        _jump(_JUMP_EQUAL, number, if_false=4),
        _load(argument_at),
        _jump(test, value, if_false=1),
        _return(yes),
        _return(no),
    ]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD_WORD, 0, 0, offset)


def _jump(test: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", test, if_true, if_false, value)


def _return(action: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, action)
