"""Which walls this machine lets a worker have: a child enters them and reports, and is looked at from outside.

For `enclave-broker doctor`. The child is this module as a program: it has a worker's descriptors and number of
threads, but no engine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import msgspec

from enclave_broker.runtime.hardening import Report, Wall, enter, missing
from enclave_broker.runtime.hardening.report import LINUX_ONLY

__all__ = ["inspect_walls"]

_SECONDS = 15.0
"""For the child to start, enter and answer."""
_REPORT_BYTES = 1 << 16
_THREADS = 3
"""Reader, burner and ticker."""


def inspect_walls() -> Report:
    """What stands around a child that has entered the walls. Blocks for about a tenth of a second."""
    if sys.platform != "linux":
        return LINUX_ONLY
    ours, theirs = socket.socketpair()
    image = os.open(__file__, os.O_RDONLY)  # whatever can be read stands for the image
    with ours, theirs:
        words = (theirs.fileno(), image, os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", __name__, *map(str, words)],
            env={},
            cwd="/",
            pass_fds=words[:2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(image)
        theirs.close()
        text = _heard(ours)
        outside = missing(child.pid, _THREADS) if text else []
        if text or text is None:
            child.kill()
        last_words = child.communicate()[1].decode("utf-8", "replace").strip().splitlines()
    if not text:
        reason = last_words[-1] if last_words else "it said nothing"
        detail = f"not tried: the child that enters it ended with {child.returncode}: {reason}"
        return Report(
            [Wall(wall.name, ok=False, required=wall.name == "seccomp", detail=detail) for wall in LINUX_ONLY.walls]
        )
    return msgspec.json.decode(text, type=Report).without(outside, "not seen from outside")


def _heard(channel: socket.socket) -> bytes | None:
    """What the child says: nothing when it ended without a word, None when it is too slow."""
    channel.settimeout(_SECONDS)
    try:
        return channel.recv(_REPORT_BYTES)
    except TimeoutError:
        return None


def _main(channel: int, image: int, parent: int) -> None:
    stay = threading.Lock()
    stay.acquire()

    def start_threads() -> None:
        for _ in range(_THREADS - 1):
            threading.Thread(target=stay.acquire, daemon=True).start()

    talk = socket.socket(fileno=channel)
    report = enter(channel=channel, image=image, parent=parent, start_threads=start_threads, weak=True)
    talk.sendall(msgspec.json.encode(report))
    talk.recv(1)  # until the parent has looked
    os._exit(0)  # finalisation would write to sealed pages


if __name__ == "__main__":
    _main(*(int(word) for word in sys.argv[1:4]))
