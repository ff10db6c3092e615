"""The filter's program on both architectures, by an interpreter; no kernel takes part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.runtime.hardening.seccomp import Instruction, program
from enclave_broker.runtime.hardening.syscalls import AARCH64, NEWEST, NUMBERS, X86_64, Machine, number
from tests.runtime.hardening.sim import AND, AT_LEAST, EQUAL, LOAD, RETURN, verdict

CHANNEL, IMAGE, OTHER, PID = 3, 5, 9, 1234
MACHINES = [X86_64, AARCH64]
CODE = {machine: program(machine, channel=CHANNEL, images=[IMAGE, OTHER], pid=PID) for machine in MACHINES}

ANONYMOUS = 0x22  # MAP_PRIVATE|MAP_ANONYMOUS
NO_FILE = 2**64 - 1

CASES: list[tuple[str, tuple[int, ...], str]] = [
    # What a worker does.
    ("recvfrom", (CHANNEL, 1, 1, 0), "allow"),
    ("recvfrom", (CHANNEL, 1, 1, 0x40), "allow"),
    ("sendto", (CHANNEL, 1, 1, 0, 0, 0), "allow"),
    ("sendto", (CHANNEL, 1, 1, 0x4040, 0, 0), "allow"),
    ("write", (2, 1, 1), "allow"),
    ("mmap", (0, 4096, 3, ANONYMOUS, NO_FILE), "allow"),
    ("mmap", (0, 4096, 3, ANONYMOUS, 0xFFFFFFFF), "allow"),
    ("mmap", (0, 4096, 3, 0x12, IMAGE), "allow"),  # MAP_PRIVATE|MAP_FIXED
    ("mmap", (0, 4096, 3, 0x12, OTHER), "allow"),
    ("mprotect", (4096, 4096, 3), "allow"),
    ("futex", (0, 0x80), "allow"),
    ("futex", (0, 0x81), "allow"),
    ("futex", (0, 0x189), "allow"),
    ("futex", (0, 3), "allow"),
    ("tgkill", (PID, PID, 6), "allow"),
    ("prctl", (15,), "allow"),
    *[
        (name, (), "allow")
        for name in (
            *(
                "brk",
                "clock_gettime",
                "clock_nanosleep",
                "close",
                "exit",
                "exit_group",
                "getpid",
                "getrandom",
                "gettid",
            ),
            *(
                "madvise",
                "mremap",
                "munmap",
                "restart_syscall",
                "rseq",
                "rt_sigaction",
                "rt_sigprocmask",
                "rt_sigreturn",
            ),
            *("sched_yield", "set_robust_list", "sigaltstack"),
        )
    ],
    # The same calls, otherwise.
    ("recvfrom", (CHANNEL + 1, 1, 1, 0), "EPERM"),
    ("recvfrom", (CHANNEL, 1, 1, 1), "EPERM"),  # MSG_OOB
    ("sendto", (CHANNEL + 1, 1, 1, 0, 0, 0), "EPERM"),
    ("sendto", (2, 1, 1, 0, 0, 0), "EPERM"),
    ("sendto", (CHANNEL, 1, 1, 1, 0, 0), "EPERM"),  # MSG_OOB
    ("sendto", (CHANNEL, 1, 1, 0x4000000, 0, 0), "EPERM"),  # MSG_ZEROCOPY
    ("sendto", (CHANNEL, 1, 1, 0, 7, 16), "EPERM"),
    ("sendto", (CHANNEL, 1, 1, 0, 1 << 40, 16), "EPERM"),
    ("write", (1, 1, 1), "EPERM"),
    ("write", (CHANNEL, 1, 1), "EPERM"),
    ("mmap", (0, 4096, 1, 2, IMAGE - 1), "EPERM"),
    ("mmap", (0, 4096, 3, 1, IMAGE), "EPERM"),  # MAP_SHARED
    ("mmap", (0, 4096, 3, 3, IMAGE), "EPERM"),  # MAP_SHARED_VALIDATE
    ("mmap", (0, 4096, 7, ANONYMOUS, NO_FILE), "kill"),
    ("mmap", (0, 4096, 5, 2, IMAGE), "kill"),
    ("mmap", (0, 4096, 1 << 32 | 4, ANONYMOUS, NO_FILE), "kill"),
    ("mprotect", (4096, 4096, 5), "kill"),
    ("mprotect", (4096, 4096, 4), "kill"),
    ("futex", (0, 0x86), "EPERM"),  # LOCK_PI
    ("futex", (0, 11), "EPERM"),  # WAIT_REQUEUE_PI
    ("futex", (0, 4), "EPERM"),  # CMP_REQUEUE
    ("futex", (0, 0x200), "EPERM"),
    ("tgkill", (1, 1, 9), "kill"),
    ("prctl", (4, 1), "EPERM"),  # PR_SET_DUMPABLE
    ("prctl", (22, 2), "EPERM"),  # PR_SET_SECCOMP
    # All else.
    *[
        (name, (), "kill")
        for name in (
            *(
                "bpf",
                "chroot",
                "clone",
                "clone3",
                "connect",
                "dup",
                "execve",
                "execveat",
                "finit_module",
                "init_module",
            ),
            *(
                "io_uring_setup",
                "kexec_load",
                "keyctl",
                "kill",
                "memfd_create",
                "mount",
                "openat",
                "openat2",
                "pidfd_open",
            ),
            *(
                "ptrace",
                "recvmsg",
                "seccomp",
                "sendmsg",
                "setns",
                "setresuid",
                "socket",
                "tkill",
                "unshare",
                "userfaultfd",
            ),
        )
    ],
    ("clone", (0x3D0F00,), "kill"),  # a thread
    ("getppid", (), "EPERM"),
    ("capset", (), "kill"),
]


def on(machine: Machine, name: str, arguments: tuple[int, ...]) -> str:
    value = number(name, machine)
    assert value is not None
    return verdict(CODE[machine], machine.audit, value, arguments)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_a_call_gets_its_verdict(machine: Machine, name: str, arguments: tuple[int, ...], expected: str) -> None:
    assert on(machine, name, arguments) == expected


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_another_architecture_kills(machine: Machine) -> None:
    getpid = number("getpid", machine)
    assert getpid is not None
    others = {0x40000003, 0x40000028, X86_64.audit, AARCH64.audit} - {machine.audit}  # i386, arm
    assert {verdict(CODE[machine], audit, getpid) for audit in others} == {"kill"}


def test_the_second_table_of_x86_64_kills() -> None:
    assert verdict(CODE[X86_64], X86_64.audit, 0x40000000 | 39) == "kill"
    assert verdict(CODE[X86_64], X86_64.audit, -1) == "kill"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_newer_calls_answer_that_they_are_unknown(machine: Machine) -> None:
    assert [verdict(CODE[machine], machine.audit, NEWEST + more) for more in (0, 1, 30)] == [
        "EPERM",
        "ENOSYS",
        "ENOSYS",
    ]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_nothing_is_allowed_that_the_table_does_not_name(machine: Machine) -> None:
    named = {number(name, machine) for name in NUMBERS}
    foreign = [value for value in range(NEWEST + 1) if value not in named]
    assert {verdict(CODE[machine], machine.audit, value) for value in foreign} == {"EPERM"}


def test_the_calls_allowed_without_rules_are_few() -> None:
    ruled = {"recvfrom", "sendto", "write", "mmap", "mprotect", "futex", "tgkill", "prctl"}
    free = {name for name in NUMBERS if number(name, X86_64) is not None and on(X86_64, name, ()) == "allow"} - ruled
    assert len(free) <= 27


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_the_program_is_one_that_a_kernel_takes(machine: Machine) -> None:
    code = CODE[machine]
    assert len(code) <= 4096
    assert {instruction.code for instruction in code} == {LOAD, EQUAL, AT_LEAST, AND, RETURN}
    for at, instruction in enumerate(code):
        if instruction.code in (EQUAL, AT_LEAST):
            assert all(0 <= jump < 256 and at + 1 + jump < len(code) for jump in (instruction.jt, instruction.jf))
        if instruction.code == LOAD:
            assert instruction.k % 4 == 0
            assert instruction.k < 64
    assert code[-1].code == RETURN


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_every_call_gets_a_verdict(machine: Machine, value: int, arguments: list[int]) -> None:
    code: list[Instruction] = CODE[machine]
    assert verdict(code, machine.audit, value, arguments) in {"allow", "kill", "EPERM", "ENOSYS"}


@given(
    st.sampled_from(MACHINES),
    st.sampled_from(["mmap", "mprotect"]),
    st.tuples(*[st.integers(0, 2**64 - 1)] * 6),
)
def test_executable_memory_always_kills(machine: Machine, name: str, arguments: tuple[int, ...]) -> None:
    address, length, protection, *rest = arguments
    assert on(machine, name, (address, length, protection | 4, *rest)) == "kill"


@given(st.sampled_from(MACHINES), st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_a_file_is_mapped_only_if_it_is_the_image_and_privately(machine: Machine, arguments: tuple[int, ...]) -> None:
    flags, file = arguments[3:5]
    if on(machine, "mmap", arguments) == "allow" and file & 0xFFFFFFFF != 0xFFFFFFFF:
        assert file & 0xFFFFFFFF in (IMAGE, OTHER)
        assert flags & 0xF == 2
