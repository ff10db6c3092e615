"""The program that tests start: runs each probe in a process of its own behind the walls it is told; prints JSON.

As `python -I -c BOOT ROOT WALLS`: fresh, so that nothing of pytest's threads or descriptors is in it.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypedDict

import msgspec

from enclave_broker.runtime.hardening import enter, landlock, privileges, seccomp
from enclave_broker.runtime.hardening.syscalls import machine
from tests.runtime.hardening.probes import PROBES, Probe, Stage

ROOT = Path(__file__).parents[3]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tests.runtime.hardening.{module} import main; main()"

BROKEN = 255
"""Exit code of a probe that ended in no way that says anything."""
UNBUILT = 254
"""Exit code of a process that could not build the wall."""


class Outcome(TypedDict):
    built: bool
    detail: str
    ended: dict[str, str]


def program(module: str, *words: str) -> list[str]:
    """The command of one of these child programs."""
    return [sys.executable, "-I", "-c", BOOT.format(module=module), str(ROOT), *words]


@cache
def outcome(walls: str) -> Outcome:
    """How each probe ends behind `walls`: one child for all probes."""
    ran = subprocess.run(program("child", walls), capture_output=True, timeout=50, check=False, env={})
    assert ran.returncode == 0, ran.stderr.decode()
    return msgspec.json.decode(ran.stdout, type=Outcome)


# -- the child ---------------------------------------------------------------------------------------------------------


def _filter(stage: Stage) -> str:
    here = machine()
    assert here is not None
    privileges.forbid_new_privileges()
    code = seccomp.program(
        here, channel=stage.channel.fileno(), images=[stage.image, stage.image_again], pid=os.getpid()
    )
    seccomp.install(code)
    return ""


def _landlock(stage: Stage) -> str:
    privileges.forbid_new_privileges()
    version = landlock.abi()
    if not version:
        raise OSError(errno.ENOSYS, "no Landlock")
    return landlock.restrict(version)


def _root(stage: Stage) -> str:
    try:
        privileges.separate_namespaces()
    except OSError as error:
        return privileges.empty_root(str(error))
    return privileges.empty_root()


def _capabilities(stage: Stage) -> str:
    privileges.drop_bounding_set()
    return privileges.drop_capabilities()


def _descriptors(stage: Stage) -> str:
    kept = {2, stage.channel.fileno(), stage.image}
    privileges.close_descriptors(kept)
    privileges.forbid_descriptors(kept)
    return ""


def _memory(stage: Stage) -> str:
    if not privileges.forbid_executable_memory():
        raise OSError(errno.EINVAL, "no MDWE")
    return ""


def _all(stage: Stage) -> str:
    report = enter(
        channel=stage.channel.fileno(), image=stage.image, parent=stage.parent, start_threads=lambda: None, weak=False
    )
    return "\n".join(report.lines)


WALLS: dict[str, Callable[[Stage], str]] = {
    "bare": lambda _: "",
    "all": _all,
    "seccomp": _filter,
    "landlock": _landlock,
    "root": _root,
    "capabilities": _capabilities,
    "descriptors": _descriptors,
    "memory": _memory,
    "limits": lambda _: privileges.forbid_writing(),
}


def _perform(probe: Probe | None, walls: str, where: str, channel: socket.socket) -> int:
    """In the process of its own: the exit code. Without a probe, the walls' detail goes over the channel."""
    with tempfile.TemporaryFile(dir=where, buffering=0) as image:
        image.truncate(4096)
        stage = Stage(channel, image.fileno(), where)
        try:
            detail = WALLS[walls](stage)
        except OSError as error:
            channel.sendall(f"{error}\n".encode())
            os._exit(UNBUILT)
        if probe is None:
            channel.sendall(f"{detail}\n".encode())
            os._exit(0)
        try:
            probe.run(stage)
        except OSError as error:
            os._exit(error.errno or BROKEN)
        except RuntimeError:
            os._exit(errno.EAGAIN)  # "can't start new thread"
        os._exit(0)


def _attempt(probe: Probe | None, walls: str, where: str) -> tuple[str, str]:
    """How it ended, and what it said over the channel."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Path(where).joinpath("sent").open("w") as sent:
        socket.send_fds(ours, [b"x"], [sent.fileno()])  # for the probes that receive
        pid = os.fork()
        if pid == 0:
            try:
                _perform(probe, walls, where, theirs)
            except BaseException:  # noqa: BLE001 - the edge of a process
                traceback.print_exc()
            finally:
                os._exit(BROKEN)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = ours.recv(1 << 16).decode().strip() if probe is None else ""
    if status < 0:
        return signal.Signals(-status).name, said
    return {0: "ok", BROKEN: "broken", UNBUILT: "unbuilt"}.get(status, errno.errorcode.get(status, str(status))), said


def main() -> None:
    walls = sys.argv[2]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as where:
        ended, detail = _attempt(None, walls, where)
        result = Outcome(built=ended == "ok", detail=detail, ended={})
        for probe in PROBES:
            result["ended"][probe.name] = _attempt(probe, walls, where)[0]
    sys.stdout.buffer.write(json.dumps(result).encode())
