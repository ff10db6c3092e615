"""`serve --reload`: a process that serves, and a new one whenever a Python file of the app has changed.

The socket stays open between two of them, so that a request in between waits instead of failing. For developing only:
files are looked at, several times a second.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from enclave_broker.cli.failure import OK
from enclave_broker.cli.screen import Screen

__all__ = ["run_again_on_change"]

_LOOK_SECONDS = 0.25
_END_SECONDS = 5.0
"""A server ends its streams and itself in two."""
_MAX_FILES = 5_000
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "venv"}

Snapshot = dict[str, tuple[int, int]]


def run_again_on_change(command: Sequence[str], folder: Path, listener: socket.socket, screen: Screen) -> int:
    """Run `command`, which is handed `listener`, until SIGINT or SIGTERM; anew when a file below `folder` changes."""
    ended = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    child: subprocess.Popen[bytes] | None = None
    try:
        while not ended.is_set():
            seen = _snapshot(folder)
            child = subprocess.Popen(command, pass_fds=[listener.fileno()])
            changed = _wait_for_change(folder, seen, ended)
            _end(child)
            if changed:
                screen.note(f"{changed} has changed: starting again")
    finally:
        if child is not None:
            _end(child)
        for number, handler in before.items():
            signal.signal(number, handler)
    return OK


def _wait_for_change(folder: Path, seen: Snapshot, ended: threading.Event) -> str:
    """The file that has changed, "" if it is to end. A process that ended by itself waits for a change, too."""
    while not ended.wait(_LOOK_SECONDS):
        now = _snapshot(folder)
        if now != seen:
            path = next(iter(dict(set(now.items()) ^ set(seen.items()))))
            return str(Path(path).relative_to(folder))
    return ""


def _snapshot(folder: Path) -> Snapshot:
    found: Snapshot = {}
    for path in _python_files(folder):
        try:
            stat = path.stat()
        except OSError:
            continue  # gone since it was listed
        found[str(path)] = (stat.st_mtime_ns, stat.st_size)
        if len(found) == _MAX_FILES:
            break
    return found


def _python_files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith(".")]
        for name in files:
            if name.endswith(".py"):
                yield Path(root, name)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
