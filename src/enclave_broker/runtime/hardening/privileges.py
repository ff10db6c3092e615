"""What a process gives up by itself: identity, capabilities, namespaces, its root, descriptors, limits, visibility.

Each function is one wall: it returns what stands, for a person to read, and raises OSError with the reason when it
can't be built. They are called once, by enter(), in the order that they need (some take away what others use).
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
from pathlib import Path

from enclave_broker.runtime.hardening.syscalls import call, must, raw

if sys.platform != "win32":
    import resource

__all__ = [
    "close_descriptors",
    "drop_bounding_set",
    "drop_capabilities",
    "empty_root",
    "forbid_descriptors",
    "forbid_executable_memory",
    "forbid_new_privileges",
    "forbid_writing",
    "hide",
    "own_uid",
    "separate_namespaces",
    "tie_to",
]

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x40000000,
)
_MS_READ_ONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2

_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64
"""More than any kernel has; the first unknown one ends the loop."""

_LAST_DESCRIPTOR = 0x7FFFFFFF

_UNUSED_UIDS = 0x70000000
"""From here to 0x7FFFFFFF systemd's list of uid ranges names no user. With the pid added, each worker has its own."""
_UNUSED_SMALL_UIDS = range(60578, 61184)
"""The same for a container whose ids end at 65535."""


def forbid_writing() -> str:
    """No core file, no byte written to a file, no locked memory or queue; the first to go when memory is short."""
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(limit, (0, 0))
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    return "core 0, file size 0, locked memory 0, oom_score_adj 1000"


def separate_namespaces() -> str:
    """Mounts, network, IPC and host name of its own, unprivileged by a user namespace. Needs one thread and /proc.

    No PID namespace: it would let no thread start.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    if uid == 0:
        must("unshare", call("unshare", flags))
        return "mount, net, ipc, uts"
    must("unshare", call("unshare", flags | _CLONE_NEWUSER))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(text, encoding="utf-8")
    return "user, mount, net, ipc, uts"


def empty_root(obstacle: str = "") -> str:
    """A root with nothing in it: a tmpfs to pivot to or, where an `obstacle` forbids that, a removed directory."""
    if not obstacle:
        try:
            return _pivot()
        except OSError as error:
            obstacle = error.strerror or "pivot_root"
    try:
        _unlinked_root()
    except OSError as error:
        raise OSError(error.errno, obstacle) from error
    return f"chroot only ({obstacle})"


def _pivot() -> str:
    must("mount", call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    flags = _MS_READ_ONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    must("mount", call("mount", b"none", b"/tmp", b"tmpfs", flags, b"size=4k,nr_inodes=1,mode=555"))
    os.chdir("/tmp")  # noqa: S108 - nothing is put there: an empty file system now lies over it
    must("pivot_root", raw("pivot_root", b".", b"."))
    must("umount2", call("umount2", b".", _MNT_DETACH))  # the old root
    os.chdir("/")
    return "pivot_root"


def _unlinked_root() -> None:
    where = Path(f"/tmp/.empty-{os.getpid()}-{os.urandom(8).hex()}")  # noqa: S108 - mkdir fails on what is there already
    where.mkdir(mode=0o500)
    try:
        os.chdir(where)
    finally:
        where.rmdir()
    must("chroot", call("chroot", b"."))


def own_uid(uid: int | None) -> str:
    """As root, become a user that nothing else runs as: `uid`, or one made of the pid. Else the broker's stays."""
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "shared with the broker")
    small = _UNUSED_SMALL_UIDS[os.getpid() % len(_UNUSED_SMALL_UIDS)]
    choices = (_UNUSED_UIDS + os.getpid(), small) if uid is None else (uid,)
    reason = ""
    for choice in choices:
        try:
            os.setgroups([])
            os.setresgid(choice, choice, choice)
            os.setresuid(choice, choice, choice)
        except OSError as error:
            reason = error.strerror or "refused"
        else:
            return str(choice)
    raise OSError(errno.EPERM, f"shared with the broker: {reason}")


def drop_bounding_set() -> None:
    """What no exec could ever give back. Needs CAP_SETPCAP; without it no_new_privs says the same."""
    for capability in range(_CAPABILITIES):
        if call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            return


def drop_capabilities() -> str:
    """Empty all sets of the calling thread."""
    call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    must("capset", call("capset", struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), bytes(24)))
    return "none"


def hide() -> str:
    """No core, no ptrace, no /proc/PID/mem, fd or environ for the same user. A later change of ids would undo it."""
    must("dumpable", call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0))
    if call("prctl", _PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(errno.EINVAL, "it doesn't stay")
    return "0"


def tie_to(parent: int) -> None:
    """Die with the thread of `parent` that spawned this process, or now. A later change of ids would undo it."""
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def close_descriptors(kept: set[int]) -> str:
    """Close all but `kept`, stderr among them; holes below the highest become stderr too, see forbid_descriptors."""
    top = max(kept)
    for descriptor in set(range(top)) - kept:
        os.dup2(2, descriptor, inheritable=False)
    if raw("close_range", top + 1, _LAST_DESCRIPTOR, 0) < 0:
        os.closerange(top + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return "channel, image, stderr"


def forbid_descriptors(kept: set[int]) -> None:
    """No number is free below the limit, so that each new descriptor is EMFILE."""
    limit = max(kept) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def forbid_new_privileges() -> str:
    """No exec gives more than there is; what lets an unprivileged process put up Landlock and the filter."""
    must("no_new_privs", call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return ""


def forbid_executable_memory() -> bool:
    """No page that was writable becomes executable, nor both at once. False before Linux 6.3.

    A fresh executable mapping of a file stays possible: the filter forbids that.
    """
    return call("prctl", _PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
