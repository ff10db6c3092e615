"""The threads in which `def` handlers run.

Daemon threads, so that a handler that hangs can't hold up the interpreter's exit (those of asyncio and anyio are joined
there). A caller that is cancelled stops waiting at once; its thread is counted as abandoned until the handler returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from enclave_broker.types.errors import ClosedError, ToolError

__all__ = ["HandlerThreads"]

T = TypeVar("T")

_IDLE_SECONDS = 30.0  # after which a thread without work ends


class _Job:
    """One handler's run. Its thread hands over `(True, value)` or `(False, exception)`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[tuple[bool, Any]] = self.loop.create_future()
        self.running = False
        self.given_up = False

    def run(self) -> None:
        try:
            outcome = True, self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 a thread's boundary: SystemExit and all go to whoever waits
            outcome = False, error
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.settle, outcome)

    def settle(self, outcome: tuple[bool, Any]) -> None:
        if not self.done.done():
            self.done.set_result(outcome)


class HandlerThreads:
    """At most `max_threads` threads; more work waits in order, each piece at most as long as its caller does.

    One is shared by all loops of its owner. `aclose` isn't needed to exit, only to let idle threads go.
    """

    def __init__(self, max_threads: int = 64) -> None:  # 64: handlers wait for files and databases, they don't compute
        self.max_threads = max_threads
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0
        self._closed = False

    @property
    def abandoned(self) -> int:
        """How many threads run a handler that nobody waits for any more."""
        return self._abandoned

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns in a thread, in a copy of the caller's context variables.

        Raises what it raises, BaseExceptions too. Cancelling is safe: a function that hasn't begun never does, one that
        has is abandoned. Raises ToolError if every thread is abandoned, since it would wait for ever.
        """
        job = _Job(function)
        self._submit(job)
        try:
            ok, value = await job.done
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        if ok:
            return value
        raise value

    def close(self) -> None:
        """Let idle threads end; those at work end with their work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _submit(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise ClosedError("the broker has been closed")
            if self._abandoned >= self.max_threads:
                raise ToolError(f"no thread is free: all {self.max_threads} run tools that don't return")
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._threads < self.max_threads:
                self._start(job)

    def _start(self, job: _Job) -> None:
        thread = threading.Thread(target=self._work, name="enclave-broker-handler", daemon=True)
        self._threads += 1
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads; those that are there take the job
            self._threads -= 1
            if not self._threads:
                self._jobs.remove(job)
                raise

    def _give_up(self, job: _Job) -> None:
        with self._changed:
            if job.running:
                job.given_up = True
                self._abandoned += 1
            elif job in self._jobs:
                self._jobs.remove(job)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            with self._changed:
                job.running = False
                self._abandoned -= job.given_up
            del job  # an idle thread must not keep a handler's arguments and result alive

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._jobs:
                self._idle += 1
                woken = not self._closed and self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not woken and not self._jobs:
                    self._threads -= 1
                    return None
            job = self._jobs.popleft()
            job.running = True
            return job
