"""A file that is read again when it has changed, and work that is done off the loop, once at a time.

What the bytes mean is api_keys.py's and jwks.py's, and so is to keep what was there before a change that is broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from enclave_broker.types.errors import ConfigurationError

__all__ = ["CHECK_SECONDS", "Refresh", "WatchedFile"]

CHECK_SECONDS = 1.0
"""How often a file is looked at, at most: for so long what was taken out of it may still hold."""


class WatchedFile:
    """One file, and what was seen of it last. `clock` tells seconds, since whenever."""

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int, clock: Callable[[], float]) -> None:
        self.name = os.fspath(path)
        self._path = Path(path).absolute()
        self._max_bytes = max_bytes
        self._clock = clock
        self._due = clock() + CHECK_SECONDS
        self._seen: tuple[int, ...] | None = None

    def read(self) -> bytes:
        """What it holds. Raises ConfigurationError that begins with its name."""
        try:
            with self._path.open("rb") as file:
                self._seen = _signature(os.fstat(file.fileno()))
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise ConfigurationError(f"{self.name}: {error.strerror or error}") from None
        if len(data) > self._max_bytes:
            raise ConfigurationError(f"{self.name}: it has at most {self._max_bytes:,} bytes")
        return data

    def changed(self) -> bool:
        """Whether it isn't as it was seen last, or has gone. Looks at most once a second, and says so once a change."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + CHECK_SECONDS
        try:
            signature = _signature(self._path.stat())
        except OSError:
            signature = None
        if signature == self._seen:
            return False
        self._seen = signature
        return True


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


class Refresh:
    """Does `work` in a thread, which no interpreter's exit waits for; whoever asks meanwhile waits for the same run.

    `work` raises nothing. It goes on when those who wait are cancelled.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._running: asyncio.Future[None] | None = None

    @property
    def running(self) -> bool:
        running = self._running
        # One of a loop that has closed is never settled.
        return running is not None and not running.done() and running.get_loop() is asyncio.get_running_loop()

    def start(self) -> asyncio.Future[None]:
        """The run that is under way, else a new one. Wait for it by `shield`: it is everybody's."""
        if self._running is None or not self.running:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            threading.Thread(target=self._do, args=(loop, done), name="enclave-broker-keys", daemon=True).start()
            self._running = done
        return self._running

    def _do(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        try:
            self._work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(done.set_result, None)
