"""Server processes that are measured from outside: started, asked for their CPU time and memory, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path

FOLDER = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 15.0


class Served:
    """A process that has said where it listens."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port

    @property
    def workers(self) -> list[int]:
        """The processes that it has started, the oldest first."""
        return sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path) == self.pid)

    def cpu(self) -> float:
        """Seconds, its own only."""
        return cpu_seconds(self.pid)

    def workers_cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.workers)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads."""
    fields = _stat(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / TICKS


def _parent(folder: Path) -> int:
    try:
        return int(_stat(folder)[1])
    except OSError:  # it has ended meanwhile
        return 0


def _stat(folder: Path) -> list[str]:
    """What stands behind the name, which may hold anything: state, parent, …"""
    return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


@contextlib.asynccontextmanager
async def serve(app: str) -> AsyncGenerator[Served]:
    """`enclave-broker serve` of an application in bench/apps."""
    command = ["-m", "enclave_broker", "serve", "--port", "0", str(FOLDER / "apps" / app)]
    async with _listening(command) as served:
        yield served


@contextlib.asynccontextmanager
async def bare(lines: list[bytes]) -> AsyncGenerator[Served]:
    """The floor: http_floor.py with the lines that it answers."""
    command = [str(FOLDER / "http_floor.py"), *(line.decode() for line in lines)]
    async with _listening(command) as served:
        yield served


@contextlib.asynccontextmanager
async def _listening(command: list[str]) -> AsyncGenerator[Served]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ENCLAVE_BROKER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=DEVNULL, stderr=PIPE, cwd=FOLDER, env=environ
    )
    assert process.stderr is not None
    said = b""
    try:
        while (found := re.search(rb"serving at http://127\.0\.0\.1:(\d+)", said)) is None:
            line = await process.stderr.readline()
            if not line:
                raise RuntimeError(f"{command} did not start: {said.decode()}")
            said += line
        reading = asyncio.ensure_future(process.stderr.read())  # a full pipe would block it
        yield Served(process, int(found[1]))
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        reading.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
