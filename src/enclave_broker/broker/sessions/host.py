"""What every session of a broker is given: loop, clocks, randomness, runtime, calls. Made when the broker starts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from enclave_broker.broker.calls.chain import Chain
from enclave_broker.broker.calls.runner import CallRunner
from enclave_broker.broker.calls.shown_arguments import ShownArguments
from enclave_broker.broker.observers import Observers
from enclave_broker.broker.sessions.log import Log
from enclave_broker.broker.telemetry.telemetry import Telemetry
from enclave_broker.broker.wheel import Wheel
from enclave_broker.runtime.runtime import Key, Listener, Run, Runtime
from enclave_broker.types.errors import ClosedError, OverloadedError

__all__ = ["Host", "Sources", "hand_over", "host_without_runtime", "is_running_here", "wait_in_thread"]

T = TypeVar("T")

LOOK_SECONDS = 0.25
"""How often who waits for another loop looks whether it still runs."""
LOOP_ENDED = "the event loop that the broker belonged to has ended; the next call starts it anew"


class SystemRandom:
    """The system's randomness, taken in larger pieces: one system call costs as much as a whole call id."""

    PIECE_BYTES = 4096

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._bytes, self._used = b"", 0

    def __call__(self, count: int) -> bytes:
        start, self._used = self._used, self._used + count
        if self._used > len(self._bytes):
            self._bytes, start, self._used = os.urandom(max(self.PIECE_BYTES, count)), 0, count
        return self._bytes[start : self._used]


_system_random = SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where time and chance come from, so that a test can fix both."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: Callable[[int], bytes] = _system_random


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Shared by all sessions; each belongs to the loop that started the broker."""

    loop: asyncio.AbstractEventLoop
    wheel: Wheel
    runtime: Runtime
    runner: CallRunner
    observers: Observers
    shown: ShownArguments = field(default_factory=ShownArguments)
    """What history shows of a call's arguments."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    make_log: Callable[..., Log] = Log
    """By session id, clock and `store_id`; with a store behind it, if there is one."""

    async def here(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what `make` makes in the broker's loop, from whichever loop this is."""
        return await hand_over(self.loop, make)


def is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs the loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def hand_over(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await what `make` makes in `loop`, a running one; cancelling this cancels it there."""
    if loop is asyncio.get_running_loop():
        return await make()

    async def there() -> T:
        return await make()

    future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))
    try:
        while not (await asyncio.wait({future}, timeout=LOOK_SECONDS))[0]:
            if not loop.is_running():
                raise ClosedError(LOOP_ENDED)
        return future.result()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            future.cancel()
            raise
        raise ClosedError(LOOP_ENDED) from None


def wait_in_thread(future: concurrent.futures.Future[T], loop: asyncio.AbstractEventLoop) -> T:
    """The same for a caller without a loop. An interrupt here (Ctrl-C) cancels it there."""
    try:
        while True:
            try:
                return future.result(timeout=LOOK_SECONDS)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
                if not loop.is_running():
                    raise ClosedError(LOOP_ENDED) from None
            except concurrent.futures.CancelledError:
                raise ClosedError(LOOP_ENDED) from None
    except BaseException:
        future.cancel()
        raise


class _NoRuntime:
    """A Runtime that has no engine."""

    engines: Mapping[str, str] = {}

    async def start(self) -> None: ...

    def run(self, body: bytes, key: Key, listener: Listener) -> Run:
        raise OverloadedError("there is no runtime")

    def abandon(self) -> None: ...

    async def aclose(self) -> None: ...


def host_without_runtime(loop: asyncio.AbstractEventLoop) -> Host:
    """For sessions that no broker runs."""
    runner = CallRunner(Chain())
    return Host(loop=loop, wheel=Wheel(loop), runtime=_NoRuntime(), runner=runner, observers=Observers())
