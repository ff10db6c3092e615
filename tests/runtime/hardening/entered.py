"""The program that tests start: enters all walls as it is told, says what came of it, and stays to be looked at.

Its options are the JSON of a Told; what it says is the JSON of a Said.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading

import msgspec

from enclave_broker.runtime.hardening import Report, WallsMissingError, enter, missing
from enclave_broker.runtime.hardening.privileges import forbid_new_privileges
from enclave_broker.runtime.hardening.seccomp import ALLOW, ERRNO, Instruction, install
from enclave_broker.runtime.hardening.syscalls import machine, number, raw


class Told(msgspec.Struct):
    weak: bool = False
    uid: int | None = None
    parent: int = 0
    bare: bool = False
    threads_before: int = 0
    forbidden: list[str] = []
    """System calls that a container's filter refuses."""
    platform: str = "linux"
    look_at_child: bool = False
    """Don't enter: fork a bare child and say what it is missing."""


class Said(msgspec.Struct):
    report: Report | None = None
    raised: str = ""
    started: int = 0
    parents_id: int = 0
    """What a thread from before the filter gets for getppid."""
    missing: list[str] = []


def contain(forbidden: list[str]) -> None:
    """Do as a container's filter does: EPERM for `forbidden`."""
    here = machine()
    assert here is not None
    code = [Instruction(0x20, 0, 0, 0)]
    for name in forbidden:
        value = number(name, here)
        assert value is not None
        code += [Instruction(0x15, 0, 1, value), Instruction(0x06, 0, 0, ERRNO | errno.EPERM)]
    forbid_new_privileges()
    install([*code, Instruction(0x06, 0, 0, ALLOW)])


def look_at_child() -> list[str]:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        return missing(pid, 1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def attempt(told: Told, channel: int, image: int) -> Said:
    said = Said()
    go, done, stay = threading.Event(), threading.Event(), threading.Event()

    def ask() -> None:
        go.wait()
        said.parents_id = raw("getppid")
        done.set()
        stay.wait()

    def start_threads() -> None:
        for work in (ask, stay.wait):
            threading.Thread(target=work, daemon=True).start()
            said.started += 1

    for _ in range(told.threads_before):
        threading.Thread(target=stay.wait, daemon=True).start()
    try:
        if told.bare:
            start_threads()
        else:
            parent = told.parent or os.getppid()
            said.report = enter(
                channel=channel, image=image, parent=parent, start_threads=start_threads, weak=told.weak, uid=told.uid
            )
    except WallsMissingError as error:
        said.raised, said.report = str(error), error.report
    except RuntimeError as error:
        said.raised = str(error)
    if said.started:
        go.set()
        done.wait()
    return said


def main() -> None:
    told = msgspec.json.decode(sys.argv[2], type=Told)
    channel = socket.socket(fileno=int(sys.argv[3]))
    sys.platform = told.platform
    if told.forbidden:
        contain(told.forbidden)
    image = int(sys.argv[4])
    said = Said(missing=look_at_child()) if told.look_at_child else attempt(told, channel.fileno(), image)
    channel.sendall(msgspec.json.encode(said))
    channel.recv(1)  # until whoever looks has seen enough
    os._exit(0)
