"""The life of what a broker runs: started once, in the loop it then belongs to, ended once, whoever asks from wherever.

Owns the loop, the start under way and the thread of `execute_sync`. What is started is the broker's (`Running`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from enclave_broker.broker.loop_thread import LoopThread
from enclave_broker.broker.sessions.host import Host, hand_over, wait_in_thread
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.broker.store.committer import Committer
from enclave_broker.runtime.runtime import Runtime
from enclave_broker.types.errors import ClosedError

__all__ = ["Lifecycle", "Running"]

T = TypeVar("T")

EXIT_SECONDS = 2.0
"""How long the interpreter's exit waits for a clean end; the workers end with their channels in any case."""


class Running:
    """What exists between a start and its end, all of one loop."""

    def __init__(
        self, host: Host, runtime: Runtime, sessions: SessionManager, committer: Committer | None = None
    ) -> None:
        self.host = host
        self._committer = committer
        self._runtime = runtime
        self._sessions = sessions
        self._endings: list[Callable[[], object]] = []
        sessions.attach(host)

    def on_end(self, ending: Callable[[], object]) -> None:
        """Call it when this has ended, or its loop has."""
        self._endings.append(ending)

    def _finish(self) -> None:
        for ending in self._endings:
            ending()
        self._endings.clear()

    async def end(self, drain: float) -> None:
        """End every session (what runs gets `drain` seconds first), call, observer and process."""
        await self._sessions.aclose(drain=drain)
        await self.host.runner.aclose()
        await self.host.observers.aclose()
        if self._committer is not None:
            await self._committer.aclose()
        await self._runtime.aclose()
        self.host.wheel.close()
        self._finish()

    def abandon(self) -> None:
        """Its loop is over: nothing of it can be awaited any more."""
        self._sessions.detach()
        self._runtime.abandon()
        self._finish()


class Lifecycle:
    """`make` builds what is to run; it is called in the loop that it will belong to."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Running]]) -> None:
        self._make = make
        self.running: Running | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[Running] | None = None
        self._ending = False
        self._closed = False
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            forget = weakref.WeakMethod(self._forget_in_child)
            os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def _forget_in_child(self) -> None:
        """After a fork: loop, threads and workers are the parent's; this process starts its own."""
        atexit.unregister(self._at_exit)
        self.running = self._loop = self._starting = self._thread = None
        self._ending = False
        self._lock = threading.Lock()

    def owner(self) -> asyncio.AbstractEventLoop | None:
        """The running loop that everything belongs to, if there is one."""
        loop = self._loop
        if loop is not None and not loop.is_running():
            running, self.running = self.running, None
            self._loop = self._starting = None
            self._ending = False
            if running is not None:
                running.abandon()
            return None
        return loop

    async def ready(self) -> Running:
        """What runs, started if need be; only in the owner's loop. Cancelling this leaves the start alone.

        Raises ClosedError, and what the start raises.
        """
        if self.running is not None:
            return self.running
        if self._closed or self._ending:
            raise ClosedError("the broker is closed; `async with broker` starts it again")
        if self._starting is None:
            self._loop = asyncio.get_running_loop()
            self._starting = self._loop.create_task(self._start())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    async def _start(self) -> Running:
        running = await self._make()
        if self._closed:
            await running.end(0.0)
            raise ClosedError("the broker was closed while it started")
        self.running = running
        return running

    def _started(self, task: asyncio.Task[Running]) -> None:
        if self._starting is task:
            self._starting = None
        if task.cancelled() or task.exception() is not None:
            self._loop = None

    async def enter(self) -> None:
        """`async with`: start here, unless another running loop has it: then it is joined there."""
        self._closed = False
        owner = self.owner()
        if owner is None or owner is asyncio.get_running_loop():
            await self.ready()
        elif self._thread is not None and owner is self._thread.loop:
            await self._end_thread()
            await self.ready()
        else:
            await hand_over(owner, self.ready)

    async def leave(self, drain: float) -> None:
        """The end of `async with`; whoever only joined ends nothing."""
        if self.owner() is asyncio.get_running_loop():
            await self._end(drain)

    async def close(self) -> None:
        """End everything, for good unless somebody enters. Idempotent."""
        self._closed = True
        owner = self.owner()
        if owner is not None and (self._thread is None or owner is not self._thread.loop):
            await hand_over(owner, lambda: self._end(0.0))
        await self._end_thread()

    async def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self._at_exit)
            if self.owner() is thread.loop:
                await hand_over(thread.loop, lambda: self._end(0.0))
            await asyncio.to_thread(thread.stop)

    async def _end(self, drain: float) -> None:
        if self._starting is not None:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._starting)
        running, self.running = self.running, None
        if running is None:
            return
        self._ending = True
        try:
            await running.end(drain)
        finally:
            self._ending = False
            self._loop = None

    async def here(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what `make` makes in the loop that everything belongs to, or in this one if there is none yet."""
        owner = self.owner()
        return await (make() if owner is None else hand_over(owner, make))

    def run_sync(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The same without a loop: in a thread of its own if nothing runs yet.

        Raises RuntimeError in the owner's loop, which would wait for itself, and ClosedError.
        """
        with self._lock:
            owner = self.owner()
            if owner is None:
                if self._closed:
                    raise ClosedError("the broker is closed; `async with broker` starts it again")
                if self._thread is None:
                    self._thread = LoopThread()
                    atexit.register(self._at_exit)
                owner = self._thread.loop
        if _running_loop() is owner:
            raise RuntimeError("the broker runs in this event loop: use `await broker.execute(...)`")
        return wait_in_thread(asyncio.run_coroutine_threadsafe(make(), owner), owner)

    def _at_exit(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            if self.owner() is thread.loop:
                ending = asyncio.run_coroutine_threadsafe(self._end(0.0), thread.loop)
                with contextlib.suppress(Exception):  # a handler that blocks the loop must not hold up the exit
                    ending.result(timeout=EXIT_SECONDS)
            thread.stop()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
