"""`enclave-broker serve` as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.cli.terminal import COMMAND, environment
from tests.http.live import SECONDS, Stream

APP = """\
import asyncio
from enclave_broker import Broker

broker = Broker()

@broker.tool("orders:get", effect="read")
async def get(id: int) -> int:
    return VALUE

@broker.tool("wait", timeout=60)
async def wait() -> None:
    await asyncio.Event().wait()

@broker.tool("crash", effect="read")
async def crash() -> None:
    raise ValueError("a bug of the app's")
"""
WAIT = "console.log('begun'); await tools.wait({})"


class Served:
    """What it writes to stderr is read line by line, and kept."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.url = ""
        self.client = httpx.Client(timeout=SECONDS)

    def hear(self, pattern: str) -> re.Match[str]:
        """The next line of stderr that has it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            print(line, end="")  # noqa: T201 shown when the test fails
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without {pattern!r}: {''.join(self.said)}")

    def hear_url(self) -> None:
        self.url = self.hear(r"serving at (http://\S+?),? ")[1]
        self.client.base_url = self.url

    @contextmanager
    def streaming(self, code: str) -> Generator[Stream]:
        with self.client.stream("POST", "/sessions", json={"code": code}) as response:
            yield Stream(response)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        assert self.process.stderr is not None
        self.said += self.process.stderr.readlines()
        return self.process.wait(SECONDS)


@contextmanager
def served(
    folder: Path, *arguments: str, app: str = APP, environ: Mapping[str, str] | None = None
) -> Generator[Served]:
    """Serve `app` from `folder` on a free port, until the block is left."""
    (folder / "app.py").write_text(app.replace("VALUE", "1"), encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=folder,
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Served(process)
    try:
        running.hear_url()
        with running.client:
            yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
