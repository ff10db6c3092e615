"""The kernel's part of a filter: runs a program on a system call, for any architecture, on any machine."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from enclave_broker.runtime.hardening.seccomp import ALLOW, ERRNO, KILL, Instruction

LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
WORD = 0xFFFFFFFF

VERDICTS = {ALLOW: "allow", KILL: "kill", ERRNO | errno.EPERM: "EPERM", ERRNO | errno.ENOSYS: "ENOSYS"}


def verdict(code: Sequence[Instruction], audit: int, number: int, arguments: Sequence[int] = ()) -> str:
    """What `code` answers; raises on an operation, jump or answer that it shouldn't have."""
    halves = [half for value in [*arguments, 0, 0, 0, 0, 0, 0][:6] for half in (value & WORD, value >> 32 & WORD)]
    data = [number & WORD, audit, 0, 0, *halves]
    at, accumulator = 0, 0
    while True:
        operation, jt, jf, k = code[at]
        at += 1
        if operation == LOAD:
            accumulator = data[k // 4]
        elif operation == AND:
            accumulator &= k
        elif operation == EQUAL:
            at += jt if accumulator == k else jf
        elif operation == AT_LEAST:
            at += jt if accumulator >= k else jf
        elif operation == RETURN:
            return VERDICTS[k]
        else:
            raise ValueError(f"operation {operation:#x}")
