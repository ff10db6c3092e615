"""The real command for tests: as a process between pipes, or at a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "enclave_broker"]
SHOP = '''\
import asyncio
from enclave_broker import Broker, ToolContext, ToolError

broker = Broker()

@broker.tool("orders:search", effect="read")
async def search(region: str | None = None) -> list[dict[str, int]]:
    """Orders, of one region or of all.

    Newest first."""
    return [{"id": 1, "total": 120}, {"id": 3, "total": 45}]

@broker.tool("orders:get", effect="read")
def get(id: int) -> int:
    """One order."""
    print("looking for", id)
    if id > 3:
        raise ToolError(f"no order {id}", code="NO_SUCH_ORDER")
    return id

@broker.tool("crash")
def crash() -> None:
    raise ValueError("a bug of the app's")

@broker.tool("hang", timeout=60)
async def hang() -> None:
    await asyncio.Event().wait()

@broker.tool("whoami", effect="read")
async def whoami(context: ToolContext) -> list[str]:
    return [context.principal.subject, *sorted(context.principal.roles)]

@broker.tool("talk")
async def talk(context: ToolContext) -> None:
    await context.log("evil \\x1b[2J", level="warn")
'''
AT_A_TERMINAL = f"""
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background has it ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, {COMMAND!r} + sys.argv[1:])
"""


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This one without settings and without what bears on colours."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("ENCLAVE_BROKER_") and k not in {"NO_COLOR", "COLUMNS"}
    }
    return {**kept, "TERM": "xterm", **(more or {})}


def command(*arguments: str, folder: Path, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Finished:
    """Run it in `folder`, to its end, and give back what it wrote to pipes."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(environ), input=stdin, capture_output=True, check=False
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A terminal with the command in it."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self.process = process
        self._bytes = b""

    @property
    def shown(self) -> str:
        return self._bytes.decode(errors="replace")  # the last character may not be whole yet

    def press(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def wait_for(self, text: str) -> None:
        """Read until `text` has been shown. pytest's own limit ends a wait that is in vain."""
        while text not in self.shown:
            if not self._read():
                raise AssertionError(f"ended without {text!r}: {self.shown!r}")

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait()

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, as a terminal makes it of what was sent."""
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[^\x1b]", self.shown):
            if part == "\x1b[K":
                rows[row] = rows[row][:column]
            elif part == "\r":
                column = 0
            elif part == "\n":
                rows.append("")
                row += 1
            elif not part.startswith("\x1b"):
                rows[row] = rows[row][:column] + part + rows[row][column + 1 :]
                column += 1
        return rows[:-1] if not rows[-1] else rows

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self._bytes += data
        return bool(data)


@contextmanager
def terminal(*arguments: str, folder: Path, environ: Mapping[str, str] | None = None) -> Generator[Terminal]:
    """Run it in `folder` with a terminal as its stdin, stdout and stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *arguments],
        cwd=folder,
        env=environment(environ),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
