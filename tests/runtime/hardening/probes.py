"""Ways out of a worker: what each does, how it ends within the walls, and which single wall stops it as well.

A probe must succeed without walls, else its end within them proves nothing. `root` marks those that only root may do
there; `weak` gives the reason why some kernels, processors or containers refuse even bare.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from enclave_broker.runtime.hardening.syscalls import X86_64, call, machine, must, raw

PAGE = mmap.PAGESIZE
READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, ANONYMOUS = 1, 2, 0x20
AT_CWD = -100
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x20000, 0x4000000, 0x10000000
INT_80_GETPID = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret

CONTAINER = "container filters forbid it"
PTRACE = "Yama or a container may forbid it"
ALONE = "the root of a user namespace may be alone in it"
CONFIGURED = "a matter of the kernel's configuration"

FILES = MappingProxyType({"landlock": "EACCES", "root": "ENOENT"})
OPEN = MappingProxyType({**FILES, "descriptors": "EMFILE"})
NEW_DESCRIPTOR = MappingProxyType({"descriptors": "EMFILE"})
OF_ROOT = MappingProxyType({"capabilities": "EPERM"})
SCOPES = MappingProxyType({"landlock scopes": "EPERM"})
TRACED = MappingProxyType({"landlock": "EPERM"})
MEMORY = MappingProxyType({"memory": "EACCES"})


class Stage:
    """What a probe finds: made in its own process before the walls are entered, in the folder `where`."""

    def __init__(self, channel: socket.socket, image: int, where: str) -> None:
        self.channel = channel
        self.image = image
        self.image_again = os.open(f"/proc/self/fd/{image}", os.O_RDONLY)  # as an engine does
        self.parent = os.getppid()
        if os.geteuid() == 0 and call("unshare", CLONE_NEWNS) == 0:  # no mount of a probe reaches the machine
            call("mount", b"none", b"/", None, 0x4000 | 0x40000, None)
        self.listener = socket.socket(socket.AF_UNIX)
        self.address = b"\0probe-%d" % os.getpid()
        self.listener.bind(self.address)
        self.listener.listen()
        self.client = socket.socket(socket.AF_UNIX)
        self.stream = socket.socket(socket.AF_INET)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.pair = socket.socketpair()
        self.pair[0].send(b"x")
        self.namespace = os.open("/proc/self/ns/uts", os.O_RDONLY)
        self.pidfd = os.pidfd_open(self.parent)
        self.victim = Path(where, f"victim-{os.getpid()}")
        self.victim.write_bytes(b"x")
        self.file = os.open(self.victim, os.O_RDONLY)
        self.new = Path(where, f"new-{os.getpid()}")
        self.page = must("mmap", raw("mmap", 0, PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0))
        self.foreign = self._machine_code() if machine() is X86_64 else None

    @staticmethod
    def _machine_code() -> Callable[[], int]:
        page = must("mmap", raw("mmap", 0, PAGE, READ | WRITE | EXEC, PRIVATE | ANONYMOUS, -1, 0))
        ctypes.memmove(page, INT_80_GETPID, len(INT_80_GETPID))
        return ctypes.CFUNCTYPE(ctypes.c_int)(page)

    def call_foreign(self) -> None:
        assert self.foreign is not None
        self.foreign()


@dataclass(frozen=True)
class Probe:
    name: str
    run: Callable[[Stage], object]
    within: str
    alone: Mapping[str, str] = field(default_factory=dict[str, str])
    root: bool = False
    weak: str = ""


def _text(value: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(value, len(value))


def _of_kernel(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    return must(name, raw(name, *arguments))


def _of_libc(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    return must(name, call(name, *arguments))


def _fork(stage: Stage) -> None:
    if os.fork() == 0:
        os._exit(0)


def _clone3(stage: Stage) -> None:
    if _of_kernel("clone3", _text(struct.pack("<8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)), 64) == 0:
        os._exit(0)


def _read_memory_of_parent(stage: Stage) -> None:
    held = _text(bytes(8))
    vector = _text(struct.pack("@PN", ctypes.addressof(held), 8))
    _of_kernel("process_vm_readv", stage.parent, vector, 1, vector, 1, 0)


def _take_descriptor(stage: Stage) -> None:
    stage.channel.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)


def _shared_segment(stage: Stage) -> None:
    _of_libc("shmctl", _of_kernel("shmget", 0, PAGE, 0o600), 0, None)  # IPC_PRIVATE; IPC_RMID


def _message_queue(stage: Stage) -> None:
    _of_libc("msgctl", _of_kernel("msgget", 0, 0o600), 0, None)


def _perf_event(stage: Stage) -> None:
    user_only = 1 << 5 | 1 << 6  # exclude_kernel, exclude_hv
    attributes = struct.pack("<IIQQQQQ", 1, 112, 0, 0, 0, 0, user_only).ljust(112, b"\0")
    _of_kernel("perf_event_open", _text(attributes), 0, -1, -1, 0)


def _keep_priority_of_parent(stage: Stage) -> None:
    os.setpriority(os.PRIO_PROCESS, stage.parent, os.getpriority(os.PRIO_PROCESS, stage.parent))


def _map(stage: Stage, protection: int, flags: int, file: int) -> int:
    return _of_kernel("mmap", 0, PAGE, protection, flags, file, 0)


FOREIGN: list[Probe] = [
    Probe("call as a 32-bit program", Stage.call_foreign, "SIGSYS", weak="kernels without IA-32 emulation"),
    Probe(
        "call by the x32 table",
        lambda _: _of_libc("syscall", 0x40000000 | 39),
        "SIGSYS",
        weak="kernels without x32",
    ),
]

IN_FILES: list[Probe] = [
    Probe("open a file", lambda s: os.open(s.victim, os.O_RDONLY), "SIGSYS", OPEN),
    Probe(
        "open a file by openat2",
        lambda s: _of_kernel("openat2", AT_CWD, os.fsencode(s.victim), _text(bytes(24)), 24),
        "SIGSYS",
        OPEN,
    ),
    Probe("make a file", lambda s: os.open(s.new, os.O_CREAT | os.O_WRONLY), "SIGSYS", OPEN),
    Probe("list a directory", lambda s: list(s.victim.parent.iterdir()), "SIGSYS", OPEN),
    Probe("look at a file", lambda s: s.victim.stat(), "EPERM", {"root": "ENOENT"}),
    Probe("make a directory", lambda s: s.new.mkdir(), "EPERM", FILES),
    Probe("remove a file", lambda s: s.victim.unlink(), "EPERM", FILES),
    Probe("rename a file", lambda s: s.victim.rename(s.new), "EPERM", FILES),
    Probe("make a link", lambda s: s.new.symlink_to("/"), "EPERM", FILES),
    Probe("read a link", lambda _: Path("/proc/self/exe").readlink(), "EPERM", {"root": "ENOENT"}),
    Probe("ask for the working directory", lambda _: os.getcwd(), "EPERM"),  # noqa: PTH109 - the call is the point
    Probe("change the working directory", lambda s: os.chdir(s.victim.parent), "EPERM", {"root": "ENOENT"}),
    Probe("change the root", lambda _: os.chroot("/"), "SIGSYS", OF_ROOT, root=True, weak=CONTAINER),
    Probe("read the environment of the parent", lambda s: os.open(f"/proc/{s.parent}/environ", 0), "SIGSYS", OPEN),
    Probe(
        "open the memory of the parent",
        lambda s: os.open(f"/proc/{s.parent}/mem", 0),
        "SIGSYS",
        OPEN,
        weak=PTRACE,
    ),
    Probe("read an open descriptor", lambda s: os.read(s.image, 1), "EPERM"),
    Probe("write to the image", lambda s: os.write(s.image, b"x"), "EPERM", {"limits": "EFBIG"}),
    Probe("truncate the image", lambda s: os.ftruncate(s.image, 0), "EPERM"),
    Probe("map the image shared", lambda s: _map(s, READ | WRITE, SHARED, s.image), "EPERM"),
    Probe("map another file", lambda s: _map(s, READ, PRIVATE, s.file), "EPERM"),
    Probe(
        "get a handle of a file",
        lambda s: _of_kernel(
            "name_to_handle_at",
            AT_CWD,
            os.fsencode(s.victim),
            _text(struct.pack("<Ii", 128, 0).ljust(136)),
            _text(bytes(4)),
            0,
        ),
        "SIGSYS",
        {"root": "ENOENT"},
        weak="not every file system has handles",
    ),
    Probe("watch a directory", lambda _: _of_kernel("inotify_init1", 0), "SIGSYS", NEW_DESCRIPTOR),
    Probe("watch all files", lambda _: _of_kernel("fanotify_init", 0, 0), "SIGSYS", OF_ROOT, root=True, weak=CONTAINER),
    Probe("duplicate a descriptor", lambda s: _of_kernel("dup", s.image), "SIGSYS", NEW_DESCRIPTOR),
    Probe("duplicate over a descriptor", lambda s: os.dup2(s.image, 2), "SIGSYS"),
    Probe("duplicate by fcntl", lambda s: fcntl.fcntl(s.image, fcntl.F_DUPFD, 0), "EPERM", NEW_DESCRIPTOR),
    Probe("control a device", lambda s: fcntl.ioctl(s.image, termios.FIONREAD, bytes(4)), "EPERM"),
    Probe("make a pipe", lambda _: os.pipe(), "EPERM", NEW_DESCRIPTOR),
    Probe("make an event descriptor", lambda _: _of_libc("eventfd", 0, 0), "EPERM", NEW_DESCRIPTOR),
    Probe("make an epoll descriptor", lambda _: select.epoll(), "EPERM", NEW_DESCRIPTOR),
]
ON_THE_NETWORK: list[Probe] = [
    Probe("make a TCP socket", lambda _: socket.socket(socket.AF_INET), "SIGSYS", NEW_DESCRIPTOR),
    Probe("make a UNIX socket", lambda _: socket.socket(socket.AF_UNIX), "SIGSYS", NEW_DESCRIPTOR),
    Probe(
        "make a netlink socket",
        lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "SIGSYS",
        NEW_DESCRIPTOR,
        weak=CONTAINER,
    ),
    Probe("make a pair of sockets", lambda _: socket.socketpair(), "SIGSYS", NEW_DESCRIPTOR),
    Probe("connect", lambda s: s.client.connect(s.address), "SIGSYS", SCOPES),
    Probe("bind", lambda s: s.stream.bind(("127.0.0.1", 0)), "SIGSYS", {"landlock tcp": "EACCES"}),
    Probe("listen", lambda s: s.listener.listen(2), "SIGSYS"),
    Probe("send to an address", lambda s: s.udp.sendto(b"x", ("127.0.0.1", 9)), "EPERM", weak="needs a loopback"),
    Probe("send through another socket", lambda s: s.pair[0].send(b"x"), "EPERM"),
    Probe("receive from another socket", lambda s: s.pair[1].recv(1), "EPERM"),
    Probe("send out of band", lambda s: s.channel.send(b"x", socket.MSG_OOB), "EPERM", weak="since Linux 5.15"),
    Probe("pass a descriptor", lambda s: socket.send_fds(s.channel, [b"x"], [s.file]), "SIGSYS"),
    Probe("take a descriptor", _take_descriptor, "SIGSYS"),
    Probe("write to the channel by write", lambda s: os.write(s.channel.fileno(), b"x"), "EPERM"),
    Probe("shut the channel down", lambda s: s.channel.shutdown(socket.SHUT_WR), "EPERM"),
    Probe("ask a socket option", lambda s: s.channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12), "EPERM"),
]
AT_PROCESSES: list[Probe] = [
    Probe("fork", _fork, "SIGSYS"),
    Probe("clone by clone3", _clone3, "SIGSYS", weak=CONTAINER),
    Probe("start a thread", lambda _: threading.Thread(target=int).start(), "SIGSYS"),
    Probe("start a program", lambda _: os.posix_spawn("/bin/true", ["true"], {}), "SIGSYS", FILES),
    Probe("become a program", lambda _: os.execve("/bin/true", ["true"], {}), "SIGSYS", FILES),
    Probe(
        "become a program by execveat",
        lambda _: _of_kernel("execveat", AT_CWD, b"/bin/true", None, None, 0),
        "SIGSYS",
        FILES,
    ),
    Probe("signal the parent", lambda s: os.kill(s.parent, 0), "SIGSYS", SCOPES),
    Probe("signal a thread of the parent", lambda s: _of_kernel("tgkill", s.parent, s.parent, 0), "SIGSYS", SCOPES),
    Probe("open the parent", lambda s: os.pidfd_open(s.parent), "SIGSYS", NEW_DESCRIPTOR),
    Probe("signal the parent by descriptor", lambda s: signal.pidfd_send_signal(s.pidfd, 0), "SIGSYS", SCOPES),
    Probe(
        "take a descriptor of the parent",
        lambda s: _of_kernel("pidfd_getfd", s.pidfd, 2, 0),
        "SIGSYS",
        TRACED,
        weak=PTRACE,
    ),
    Probe("trace the parent", lambda s: _of_kernel("ptrace", 0x4206, s.parent, 0, 0), "SIGSYS", TRACED, weak=PTRACE),
    Probe("read the memory of the parent", _read_memory_of_parent, "SIGSYS", TRACED, weak=PTRACE),
    Probe(
        "compare with the parent",
        lambda s: _of_kernel("kcmp", os.getpid(), s.parent, 1, 0, 0),
        "SIGSYS",
        TRACED,
        weak=CONFIGURED,
    ),
    Probe("ask for the limits of the parent", lambda s: resource.prlimit(s.parent, resource.RLIMIT_CORE), "EPERM"),
    Probe("change the parent's priority", _keep_priority_of_parent, "EPERM"),
    Probe("choose processors", lambda _: os.sched_setaffinity(0, os.sched_getaffinity(0)), "EPERM"),
    Probe("begin a session", lambda _: os.setsid(), "EPERM"),
    Probe("ask for the parent's id", lambda _: _of_kernel("getppid"), "EPERM"),
]
IN_IDENTITY: list[Probe] = [
    Probe("set the user", lambda _: os.setuid(os.getuid()), "SIGSYS"),
    Probe("set the group", lambda _: os.setgid(12345), "SIGSYS", OF_ROOT, root=True, weak=ALONE),
    Probe("set the groups", lambda _: os.setgroups([]), "SIGSYS", OF_ROOT, root=True, weak=ALONE),
    Probe("set capabilities", lambda _: _of_libc("capset", struct.pack("<Ii", 0x20080522, 0), bytes(24)), "SIGSYS"),
    Probe("be dumpable again", lambda _: _of_libc("prctl", 4, 1, 0, 0, 0), "EPERM"),
    Probe("ask for the personality", lambda _: _of_kernel("personality", 0xFFFFFFFF), "SIGSYS", weak=CONTAINER),
    Probe("ask about filters", lambda _: _of_kernel("seccomp", 2, 0, _text(struct.pack("<I", 0x7FFF0000))), "SIGSYS"),
    Probe("ask about Landlock", lambda _: _of_kernel("landlock_create_ruleset", None, 0, 1), "EPERM", weak=CONFIGURED),
]
IN_MEMORY: list[Probe] = [
    Probe("make executable memory", lambda s: _map(s, READ | WRITE | EXEC, PRIVATE | ANONYMOUS, -1), "SIGSYS", MEMORY),
    Probe("make memory executable", lambda s: _of_kernel("mprotect", s.page, PAGE, READ | EXEC), "SIGSYS", MEMORY),
    Probe(
        "map the image executable",
        lambda s: _map(s, READ | EXEC, PRIVATE, s.image),
        "SIGSYS",
        weak="needs a folder without noexec",
    ),
    Probe("make a file in memory", lambda _: os.memfd_create("probe"), "SIGSYS", NEW_DESCRIPTOR),
    Probe("make a secret file", lambda _: _of_kernel("memfd_secret", 0), "SIGSYS", NEW_DESCRIPTOR, weak=CONFIGURED),
    Probe("make a shared segment", _shared_segment, "SIGSYS"),
    Probe("make a message queue", _message_queue, "SIGSYS"),
    Probe("handle page faults", lambda _: _of_kernel("userfaultfd", 1), "SIGSYS", NEW_DESCRIPTOR, weak=CONTAINER),
    Probe(
        "take a protection key", lambda _: _of_kernel("pkey_alloc", 0, 0), "SIGSYS", weak="not every processor has them"
    ),
    Probe("lock memory", lambda s: _of_libc("mlock", s.page, PAGE), "EPERM"),
]
AT_THE_KERNEL: list[Probe] = [
    Probe(
        "make an io_uring",
        lambda _: _of_kernel("io_uring_setup", 1, _text(bytes(120))),
        "SIGSYS",
        NEW_DESCRIPTOR,
        weak=CONTAINER,
    ),
    Probe("make an AIO context", lambda _: _of_kernel("io_setup", 1, _text(bytes(8))), "SIGSYS", weak=CONFIGURED),
    Probe(
        "make a BPF map",
        lambda _: _of_kernel("bpf", 0, _text(struct.pack("<4I", 2, 4, 4, 1).ljust(120, b"\0")), 120),
        "SIGSYS",
        root=True,
        weak=CONTAINER,
    ),
    Probe("open a performance counter", _perf_event, "SIGSYS", NEW_DESCRIPTOR, weak=CONTAINER),
    Probe("find a keyring", lambda _: _of_kernel("keyctl", 0, -2, 1), "SIGSYS", weak=CONTAINER),
    Probe("add a key", lambda _: _of_kernel("add_key", b"user", b"probe", b"x", 1, -2), "SIGSYS", weak=CONTAINER),
    Probe("make a user namespace", lambda _: _of_libc("unshare", CLONE_NEWUSER), "SIGSYS", weak=CONTAINER),
    Probe(
        "make a mount namespace",
        lambda _: _of_libc("unshare", CLONE_NEWNS),
        "SIGSYS",
        OF_ROOT,
        root=True,
        weak=CONTAINER,
    ),
    Probe(
        "enter a namespace",
        lambda s: _of_libc("setns", s.namespace, CLONE_NEWUTS),
        "SIGSYS",
        OF_ROOT,
        root=True,
        weak=CONTAINER,
    ),
    Probe(
        "mount",
        lambda s: _of_libc("mount", b"none", os.fsencode(s.victim.parent), b"tmpfs", 0, None),
        "SIGSYS",
        {"landlock": "EPERM", "capabilities": "EPERM"},
        root=True,
        weak=CONTAINER,
    ),
    Probe("open a mount", lambda _: _of_kernel("open_tree", AT_CWD, b"/", 0), "SIGSYS", NEW_DESCRIPTOR, weak=CONTAINER),
    Probe(
        "configure a mount", lambda _: _of_kernel("fsopen", b"tmpfs", 0), "SIGSYS", OF_ROOT, root=True, weak=CONTAINER
    ),
    Probe("read the kernel's log", lambda _: _of_libc("klogctl", 10, None, 0), "EPERM", root=True, weak=CONTAINER),
    Probe("ask for the machine's name", lambda _: os.uname(), "EPERM"),
    Probe("ask for the machine's load", lambda _: _of_libc("sysinfo", _text(bytes(256))), "EPERM"),
    Probe("make a call that no kernel has", lambda _: _of_libc("syscall", 500), "ENOSYS", weak="no kernel has it"),
]
NEEDED: list[Probe] = [
    Probe("send on the channel", lambda s: s.channel.sendall(b"x"), "ok"),
    Probe("receive on the channel", lambda s: s.channel.recv(1), "ok"),
    Probe("write to stderr", lambda _: os.write(2, b""), "ok"),
    Probe("make memory", lambda s: _map(s, READ | WRITE, PRIVATE | ANONYMOUS, -1), "ok"),
    Probe("map the image privately", lambda s: _map(s, READ | WRITE, PRIVATE, s.image), "ok"),
    Probe("map the image by another descriptor", lambda s: _map(s, READ | WRITE, PRIVATE, s.image_again), "ok"),
    Probe("sleep", lambda _: time.sleep(0), "ok"),
    Probe("ask for its processor time", lambda _: time.thread_time_ns(), "ok"),
    Probe("wait for a lock", lambda _: threading.Lock().acquire() and threading.Event().wait(0.001), "ok"),
    Probe("signal itself", lambda _: _of_kernel("tgkill", os.getpid(), threading.get_native_id(), 0), "ok"),
    Probe("get random bytes", lambda _: os.getrandom(8), "ok"),
]
"""What a worker does."""

PROBES = [
    *IN_FILES,
    *ON_THE_NETWORK,
    *AT_PROCESSES,
    *IN_IDENTITY,
    *IN_MEMORY,
    *AT_THE_KERNEL,
    *NEEDED,
    *(FOREIGN if machine() is X86_64 else []),
]
