"""The worker processes of one broker: placement by key, growth, reaping, replacement, back-pressure.

A process serves one key (engine, tenant) until it is empty. Up to as many processes as there are CPUs share one key's
runs; more are started only for other keys, up to `max_workers`. What finds no place, or no memory while others are
inside a step, waits in order; what finds no room to wait is refused. Called by the broker; runtime/process.py is one
process, runtime/budget.py says what memory there is.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from enclave_broker.runtime.budget import default_budget, memory_of
from enclave_broker.runtime.image import engine_hash, open_image
from enclave_broker.runtime.process import WorkerProcess
from enclave_broker.runtime.run import ProcessRun
from enclave_broker.runtime.runtime import Key, Listener
from enclave_broker.types.errors import ClosedError, EnclaveError, OverloadedError, RuntimeLostError

__all__ = ["ProcessPool"]

log = logging.getLogger("enclave_broker.runtime")

CAPACITY = 1000
"""Runs of one process: each has some address space, and the engine's pool is laid out at the start."""
MAX_WAITING = 1000
IDLE_SECONDS = 60.0
"""An empty process beyond the first ends after this."""
RETRY_AFTER = 1.0
TOGETHER = 16
"""So many frames are rather written to one process than spread: each write costs a wake-up."""
LOOK_SECONDS = 0.1
"""How old what is known of the processes' memory may be when something is placed."""
SPAWN_TRIES = 3
"""A process that ends before it is ready is tried anew so often; one that can't be built isn't."""


class ProcessPool:
    """A Runtime of local processes.

    `workers` is how many may share one key's load (default: the CPUs), `max_workers` how many there may be in all
    (default: four times that, at least 16), `memory_bytes` what they may take together (default: 60 % of the machine's
    memory or the control group's; without limit where that can't be known).
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        max_workers: int | None = None,
        memory_bytes: int | None = None,
        weak_sandbox: bool = False,
    ) -> None:
        self._workers = workers or len(
            os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        )
        self._max_workers = max_workers or max(16, 4 * self._workers)
        self._weak = weak_sandbox
        self.memory_bytes = memory_bytes or default_budget()
        """What the processes may take together; None is without limit."""
        self._held = 0
        """Bytes that the processes had when they were looked at last."""
        self._looked_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._ready: list[WorkerProcess] = []
        self._spawning = 0
        self._waiting: deque[ProcessRun] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._image = -1
        self._closed = False
        self._reaper: asyncio.TimerHandle | None = None
        self.engines: Mapping[str, str] = {"javascript": engine_hash()}

    async def start(self) -> None:
        self._image = await asyncio.to_thread(open_image)
        self._spawning += 1
        await self._spawn()

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        """The processes that are ready."""
        return tuple(self._ready)

    @property
    def spawning(self) -> int:
        """How many more are on their way."""
        return self._spawning

    @property
    def pids(self) -> list[int]:
        """Of the processes that are ready."""
        return [worker.pid for worker in self._ready]

    @property
    def inside_bytes(self) -> int:
        """What may come to their memory before any script that is inside a step has left it."""
        return sum(worker.inside_bytes for worker in self._ready)

    # -- placement -------------------------------------------------------------------------------------------------

    def run(self, body: bytes, key: Key, listener: Listener) -> ProcessRun:
        if self._closed:
            raise ClosedError("the runtime is closed")
        run = ProcessRun(listener, body, key)
        left = self._left()
        if left < run.max_bytes:
            raise OverloadedError(
                f"the workers hold so much memory that a session of {run.max_bytes} bytes (max_memory_bytes) finds no "
                "place beside them",
                retry_after=RETRY_AFTER,
            )
        worker = self._choose(key)
        if worker is not None and not self._waiting and self.inside_bytes + run.max_bytes <= left:
            worker.key = key
            worker.place(run)
        elif len(self._waiting) >= MAX_WAITING:
            raise OverloadedError("every worker is taken and no room to wait is left", retry_after=RETRY_AFTER)
        else:
            self._waiting.append(run)
            if worker is not None:
                self._drain()
        self._grow(key, placed=worker is not None)
        return run

    def _choose(self, key: Key) -> WorkerProcess | None:
        """The least busy process that may take a run of this key."""
        best: WorkerProcess | None = None
        lowest = (math.inf, 0)
        shared = 0
        for worker in self._ready:
            if worker.load and worker.key != key:
                continue
            if worker.load:
                shared += 1
            rank = (worker.busy - (TOGETHER if worker.is_writing else 0), worker.load)
            if worker.load < CAPACITY and rank < lowest:
                best, lowest = worker, rank
        if best is not None and best.load == 0 and shared >= self._workers:
            # Leave the empty ones to other keys: more processes than CPUs don't make one key faster.
            mine = [w for w in self._ready if w.load and w.key == key and w.load < CAPACITY]
            best = min(mine, key=lambda w: (w.busy, w.load), default=best)
        return best

    def _grow(self, key: Key, *, placed: bool) -> None:
        """Start one more process if this key can use it."""
        total = len(self._ready) + self._spawning
        if placed:
            if total >= self._workers or any(worker.busy <= 1 for worker in self._ready):
                return
            mine = sum(1 for worker in self._ready if worker.key == key or not worker.load)
            if mine + self._spawning >= self._workers:
                return
        elif total >= self._max_workers or self._spawning >= len(self._waiting):
            return
        self._spawning += 1
        self._own(self._spawn_more())

    def _drain(self) -> None:
        """Place what waits, in order, as far as there are places; one key's lack doesn't hold up another's."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        kept: deque[ProcessRun] = deque()
        full: set[Key] = set()
        left = self._left()
        while self._waiting:
            run = self._waiting[0]
            if not run.cancelled and self.inside_bytes + run.max_bytes > left:
                self._retry = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._drain)
                break
            self._waiting.popleft()
            if run.cancelled:
                continue
            worker = None if run.key in full else self._choose(run.key)
            if worker is None:
                full.add(run.key)
                kept.append(run)
            else:
                worker.key = run.key
                worker.place(run)
        self._waiting.extendleft(reversed(kept))

    def _left(self) -> float:
        """Bytes of the budget that the processes don't hold yet."""
        if self.memory_bytes is None:
            return math.inf
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at, self._held = now, memory_of(self.pids)
        return self.memory_bytes - self._held

    # -- processes -------------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        worker = WorkerProcess(self._freed, self._ended)
        try:
            await worker.spawn(self._image, self.engines["javascript"], weak=self._weak, capacity=CAPACITY + 200)
        finally:
            self._spawning -= 1
        if self._closed or worker.ended:
            worker.kill("the pool is closed")
            return
        self._ready.append(worker)
        worker.idle_since = asyncio.get_running_loop().time()
        self._drain()
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._reap_idle)

    async def _spawn_more(self, tries: int = SPAWN_TRIES) -> None:
        try:
            await self._spawn()
        except (EnclaveError, OSError) as error:
            log.error("a worker process could not be started: %s", error)
            if isinstance(error, RuntimeLostError) and tries > 1 and not self._closed:
                self._spawning += 1
                await self._spawn_more(tries - 1)
            elif not self._ready and not self._spawning:
                waiting, self._waiting = self._waiting, deque()
                for run in waiting:
                    run.lost(f"no worker process could be started: {error}")

    def _freed(self, worker: WorkerProcess) -> None:
        if self._waiting:
            self._drain()

    def _ended(self, worker: WorkerProcess, displaced: list[ProcessRun]) -> None:
        if worker in self._ready:
            self._ready.remove(worker)
        self._own(worker.reap())
        if self._closed or self._image < 0:
            for run in displaced:
                run.lost("the broker is closed")
            return
        self._waiting.extendleft(reversed(displaced))
        self._drain()
        if not self._spawning and (self._waiting or not self._ready):  # the replacement
            self._spawning += 1
            self._own(self._spawn_more())

    def _reap_idle(self) -> None:
        loop = asyncio.get_running_loop()
        self._reaper = loop.call_later(IDLE_SECONDS, self._reap_idle)
        idle = [w for w in self._ready if not w.load and loop.time() - w.idle_since >= IDLE_SECONDS]
        for worker in idle[: len(self._ready) - 1]:
            worker.kill("it was idle")

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def abandon(self) -> None:
        """Its event loop is over: kill and reap what is there."""
        self._closed = True
        for worker in self._ready:
            worker.abandon()
        self._ready.clear()
        if self._image >= 0:
            os.close(self._image)
            self._image = -1

    async def aclose(self) -> None:
        """End every run (their listeners hear `lost`) and every process. Idempotent."""
        self._closed = True
        for timer in (self._reaper, self._retry):
            if timer is not None:
                timer.cancel()
        waiting, self._waiting = self._waiting, deque()
        for run in waiting:
            run.lost("the broker is closed")
        for worker in list(self._ready):
            worker.kill("the broker is closed")
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._image >= 0:
            os.close(self._image)
            self._image = -1
