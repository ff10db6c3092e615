"""The system-call filter: what a worker may still ask of the kernel, as a classic BPF program, and its installation.

An allow-list: a few calls with rules for their arguments, a few without, the dangerous ones end the process, numbers
newer than the list answer ENOSYS, all else EPERM. Making a program needs no kernel, so that each architecture's can be
checked anywhere. A process enters it with every thread that it has; later it can start neither thread nor process.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from enclave_broker.runtime.hardening.syscalls import NEWEST, X86_64, Machine, must, number, raw

__all__ = ["ALLOW", "ERRNO", "KILL", "Instruction", "install", "program"]


class Instruction(NamedTuple):
    """struct sock_filter: operation, how far to jump when a test holds and when not, operand."""

    code: int
    jt: int
    jf: int
    k: int


# BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_ALU|AND|K, BPF_RET|K
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06

# What a program returns: SECCOMP_RET_*.
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
KILL: Final = 0x80000000

_WORD = 0xFFFFFFFF
_X32 = 0x40000000
"""Numbers from here on are x86_64's second table, with 32-bit pointers."""

_YES = Instruction(_RETURN, 0, 0, ALLOW)
_NO = Instruction(_RETURN, 0, 0, ERRNO | errno.EPERM)
_UNKNOWN = Instruction(_RETURN, 0, 0, ERRNO | errno.ENOSYS)
_DEAD = Instruction(_RETURN, 0, 0, KILL)

_ALLOWED = """
    brk madvise mremap munmap
    clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time
    exit exit_group getpid getrandom gettid membarrier restart_syscall sched_getaffinity sched_yield
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
    rseq set_robust_list set_tid_address
    close
""".split()  # noqa: SIM905 - a hundred words read better without quotation marks
"""Memory, time, signals of its own, and what a C library does for a thread that began just before the filter."""

_DEADLY = """
    clone clone3 execve execveat fork vfork
    accept accept4 bind connect listen recvmmsg recvmsg sendmmsg sendmsg socket socketpair
    creat fanotify_init inotify_init inotify_init1 name_to_handle_at open open_by_handle_at openat openat2
    dup dup2 dup3
    kcmp kill pidfd_getfd pidfd_open pidfd_send_signal process_madvise process_vm_readv process_vm_writev ptrace
    rt_sigqueueinfo rt_tgsigqueueinfo tkill
    bpf io_setup io_uring_enter io_uring_register io_uring_setup perf_event_open userfaultfd
    memfd_create memfd_secret pkey_alloc pkey_mprotect remap_file_pages
    mq_open msgget semget shmat shmget
    chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root umount2
    setns unshare
    capset setfsgid setfsuid setgid setgroups setregid setresgid setresuid setreuid setuid
    landlock_restrict_self personality seccomp
    add_key keyctl request_key
    delete_module finit_module init_module ioperm iopl kexec_file_load kexec_load modify_ldt reboot
""".split()  # noqa: SIM905 - the same
"""Nothing that a worker does leads here: only code that has taken it over. The others answer EPERM."""


def _argument(index: int, *, high: bool = False) -> Instruction:
    """Load one half of an argument. struct seccomp_data: number at 0, architecture at 4, arguments from 16, 8 each."""
    return Instruction(_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _demand(
    index: int, *values: int, mask: int = _WORD, high: bool = False, otherwise: Instruction = _NO
) -> list[Instruction]:
    """Go on when the masked half of an argument is one of `values`, else end with `otherwise`."""
    masked = [] if mask == _WORD else [Instruction(_AND, 0, 0, mask)]
    tests = [Instruction(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index, high=high), *masked, *tests, otherwise]


def _rules(channel: int, images: Collection[int], pid: int) -> dict[str, list[Instruction]]:
    """What the calls with rules for their arguments must satisfy. Each body ends in a return.

    File descriptors, flags and operations are 32 bits wide in the kernel, so the low half is all that counts;
    a pointer that must be NULL has two halves.
    """
    not_executable = _demand(2, 0, mask=0x4, otherwise=_DEAD)
    return {
        # MSG_DONTWAIT, MSG_WAITALL; MSG_DONTWAIT, MSG_NOSIGNAL. Above all no MSG_OOB, an old source of kernel errors.
        "recvfrom": [*_demand(0, channel), *_demand(3, 0, mask=_WORD ^ 0x140), _YES],
        "sendto": [
            *_demand(0, channel),
            *_demand(3, 0, mask=_WORD ^ 0x4040),
            *_demand(4, 0),
            *_demand(4, 0, high=True),
            _YES,
        ],
        # WAIT, WAKE, REQUEUE (musl), WAIT_BITSET, WAKE_BITSET, each also private or by the real-time clock. No PI.
        "futex": [*_demand(1, 0, 1, 3, 9, 10, mask=_WORD ^ 0x180), _YES],
        "mprotect": [*not_executable, _YES],
        # Anonymous, or the image for itself alone: MAP_PRIVATE, so that no write reaches what other workers map.
        "mmap": [
            *not_executable,
            _argument(4),
            Instruction(_EQUAL, 0, 1, _WORD),
            _YES,
            *_demand(4, *images),
            *_demand(3, 0x2, mask=0xF),
            _YES,
        ],
        "write": [*_demand(0, 2), _YES],  # last words, a fatal error's stack
        "tgkill": [*_demand(0, pid, otherwise=_DEAD), _YES],  # abort()
        "prctl": [*_demand(0, 15), _YES],  # PR_SET_NAME: newer Pythons name their threads
    }


def program(machine: Machine, *, channel: int, images: Collection[int], pid: int) -> list[Instruction]:
    """The filter for process `pid`, which may talk on the socket `channel` and map the files `images`.

    What is asked most stands first; the kernel answers calls without rules from a bitmap (Linux 5.11).
    """
    code = [
        Instruction(_LOAD, 0, 0, 4),
        Instruction(_EQUAL, 1, 0, machine.audit),
        _DEAD,
        Instruction(_LOAD, 0, 0, 0),
    ]
    if machine is X86_64:
        code += [Instruction(_AT_LEAST, 0, 1, _X32), _DEAD]
    cases = _rules(channel, images, pid)
    cases |= {name: [_YES] for name in _ALLOWED}
    cases |= {name: [_DEAD] for name in _DEADLY}
    for name, body in cases.items():
        value = number(name, machine)
        if value is not None:
            code += [Instruction(_EQUAL, 0, len(body), value), *body]
    return [*code, Instruction(_AT_LEAST, 0, 1, NEWEST + 1), _UNKNOWN, _NO]


def install(code: list[Instruction]) -> None:
    """Put every thread of this process under the filter, for ever. Raises OSError when one can't be.

    Needs no_new_privs (or CAP_SYS_ADMIN).
    """
    filters = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    held = ctypes.create_string_buffer(filters, len(filters))
    sock_fprog = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(held)))
    refused_by = must("seccomp", raw("seccomp", 1, 1, sock_fprog))  # SET_MODE_FILTER, FLAG_TSYNC
    if refused_by:
        raise OSError(errno.EACCES, f"thread {refused_by} stands under another filter")
