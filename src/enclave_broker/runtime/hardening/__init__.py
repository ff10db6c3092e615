"""What a worker gives up before its first script, and how its parent sees that it did.

enter() is called once in the worker, after every import and warm-up, while it has one thread; missing() in the broker,
which places sessions only when it is empty. seccomp, no_new_privs, dumpable 0 and no capability are required, Landlock
where the kernel has it; the rest is best effort. `inspect` beside this is the doctor's view. Only Linux has the walls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from enclave_broker.runtime.hardening import landlock, privileges, quiet, seccomp
from enclave_broker.runtime.hardening.report import LINUX_ONLY, Report, Wall, WallsMissingError
from enclave_broker.runtime.hardening.syscalls import machine, raw

__all__ = ["Report", "Wall", "WallsMissingError", "enter", "missing"]


def enter(
    *,
    channel: int,
    image: int,
    parent: int,
    start_threads: Callable[[], None],
    weak: bool = False,
    uid: int | None = None,
) -> Report:
    """Put this process behind every wall that the machine has; there is no way back.

    Open stay the socket `channel`, stderr, and every descriptor of the file `image`: the engine has its own. `parent`
    is the pid of the broker; the process ends with the thread there that spawned it, and now if that is gone already.
    `start_threads` is called when all that binds single threads stands, before the filter; it returns when its threads
    need no more than the filter allows.
    As root the process becomes the user `uid`, or one that nothing else uses. Off Linux only the threads are started.

    Raises WallsMissingError when a required wall can't be built, unless `weak`; RuntimeError when there are threads,
    since Landlock and capabilities wouldn't bind them. Whatever it raises, the process must end.
    """
    if sys.platform != "linux":
        start_threads()
        return LINUX_ONLY
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise RuntimeError("the walls must be entered by the only thread of the process")
    images = _descriptors_of(image)
    quiet.silence()
    sealed = _wall("no executable memory", _seal)
    before = _before_threads({2, channel, *images}, parent, uid)
    _demand(before, weak=weak)
    start_threads()
    filtered = _wall("seccomp", lambda: _filter(channel, images), required=True)
    walls = [filtered, *before, _no_executable_memory(filtered, sealed)]
    _demand(walls, weak=weak)
    return Report(walls)


def _descriptors_of(image: int) -> set[int]:
    """All that are of this file: an engine that loaded it by name maps each new instance by a descriptor of its own."""
    wanted = os.fstat(image)
    found: set[int] = set()
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one of this very listing is gone again
            if os.path.samestat(wanted, os.fstat(int(name.name))):
                found.add(int(name.name))
    return found


def _before_threads(kept: set[int], parent: int, uid: int | None) -> list[Wall]:
    """The walls that bind a thread, or need what later ones take away: the order is the point."""
    limits = _wall("limits", privileges.forbid_writing)
    namespaces = _wall("namespaces", privileges.separate_namespaces)
    root = _wall("empty root", lambda: privileges.empty_root("" if namespaces.ok else namespaces.detail))
    privileges.drop_bounding_set()
    user = _wall("uid", lambda: privileges.own_uid(uid))
    capabilities = _wall("capabilities", privileges.drop_capabilities, required=True)
    hidden = _wall("dumpable", privileges.hide, required=True)
    privileges.tie_to(parent)
    descriptors = _wall("descriptors", lambda: privileges.close_descriptors(kept))
    no_new_privileges = _wall("no_new_privs", privileges.forbid_new_privileges, required=True)
    version = landlock.abi()
    files = _wall("landlock", lambda: _landlock(version), required=version > 0)
    if descriptors.ok:
        privileges.forbid_descriptors(kept)
    return [files, no_new_privileges, hidden, capabilities, user, namespaces, root, descriptors, limits]


def _wall(name: str, build: Callable[[], str], *, required: bool = False) -> Wall:
    try:
        return Wall(name, ok=True, required=required, detail=build())
    except OSError as error:
        return Wall(name, ok=False, required=required, detail=error.strerror or str(error))


def _demand(walls: list[Wall], *, weak: bool) -> None:
    report = Report(walls)
    if report.missing_required and not weak:
        raise WallsMissingError(report)


def _landlock(version: int) -> str:
    if not version:
        raise OSError(errno.ENOSYS, f"needs Linux {landlock.SINCE} with landlock among its security modules")
    return landlock.restrict(version)


def _filter(channel: int, images: set[int]) -> str:
    here = machine()
    if here is None:
        raise OSError(errno.ENOSYS, f"has no list of system calls for {os.uname().machine} of this word size")
    code = seccomp.program(here, channel=channel, images=images, pid=os.getpid())
    seccomp.install(code)
    if raw("getppid") != -errno.EPERM:
        raise OSError(errno.ENOTSUP, "the kernel took the filter and doesn't ask it")
    return f"ok ({len(code)} instructions, kill)"


def _seal() -> str:
    quiet.seal_closures()
    return "MDWE" if privileges.forbid_executable_memory() else ""


def _no_executable_memory(filtered: Wall, sealed: Wall) -> Wall:
    """No page is writable and executable, and none can be made by either of two means."""
    if not sealed.ok:
        return sealed
    means = [*(["filter"] if filtered.ok else []), *([sealed.detail] if sealed.detail else [])]
    return Wall(sealed.name, ok=bool(means), required=False, detail=", ".join(means) or "MDWE needs Linux 6.3")


def missing(pid: int, threads: int) -> list[str]:
    """Which required walls process `pid`, a child with `threads` threads, is seen to lack. Needs no privilege.

    Landlock doesn't show from outside: the child's own report says. Off Linux none can be demanded.
    Raises OSError when there is no such process.
    """
    if sys.platform != "linux":
        return []
    own_filters = int(_status("self").get("Seccomp_filters", "0"))  # a container's filter is no wall of ours
    wrong: set[str] = set()
    tasks = [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
    for task in tasks:
        status = _status(f"{pid}/task/{task}")
        if status["Seccomp"] != "2" or int(status.get("Seccomp_filters", own_filters + 1)) <= own_filters:
            wrong.add("seccomp")
        if status["NoNewPrivs"] != "1":
            wrong.add("no_new_privs")
        if any(int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")):
            wrong.add("capabilities")
    if len(tasks) != threads:
        wrong.add("threads")
    # What can be dumped belongs to its user, what can't to root. For a worker that had to stay root this can't be seen.
    owner = Path(f"/proc/{pid}/environ").stat().st_uid
    if owner != 0 and owner == int(_status(str(pid))["Uid"].split()[0]):
        wrong.add("dumpable")
    return sorted(wrong)


def _status(task: str) -> dict[str, str]:
    text = Path(f"/proc/{task}/status").read_text(encoding="utf-8", errors="replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
