"""The twin of the worker process for tests and replay: the same engine, run in this process by the event loop.

No wall stands around it, so nothing that serves a broker's users may use it. Long steps run a slice a loop turn.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import thread_time_ns

from enclave_broker.core.javascript import Engine, Instance, Step
from enclave_broker.runtime.image import engine_hash, open_image
from enclave_broker.runtime.runtime import Key, Listener, StepTaken
from enclave_broker.types.messages import Verdict, start_budget

__all__ = ["MemoryRuntime"]

TICK = 0.002


class MemoryRun:
    """A run in this process (runtime/runtime.py has the contract)."""

    def __init__(self, runtime: MemoryRuntime, body: bytes, listener: Listener) -> None:
        memory, cpu_ms = start_budget(body)
        self._runtime = runtime
        self._listener: Listener | None = listener
        self._instance: Instance | None = None
        self._memory = memory
        self._budget_ns = cpu_ms * 1_000_000
        self._total_ns = self._step_ns = 0
        self._todo: deque[tuple[bytes, int]] = deque([(body, 0)])
        self._inputs = 0
        self._stepping = False
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)

    def deliver(self, body: bytes) -> None:
        if self._listener is None:
            return
        self._todo.append((body, 1))
        if not self._stepping and len(self._todo) == 1:
            self._loop.call_soon(self._turn)

    def flush(self) -> None:
        """A turn of the loop is all there is."""

    def cancel(self, spent: Callable[[int], None] | None = None, /) -> None:
        self._listener = None
        if spent is not None and self._stepping:
            spent(self._step_ns // 1000)
        self._close()

    def lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        self._close()
        if listener is not None:
            listener.lost(reason)

    def _close(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            if self._stepping:
                instance.stop(Verdict.NONE)
            else:
                instance.close()
        self._runtime.runs.discard(self)

    def _turn(self) -> None:
        if self._listener is None or (not self._stepping and not self._todo):
            return
        before = thread_time_ns()
        step = self._resume() if self._stepping else self._begin()
        used = thread_time_ns() - before
        self._step_ns += used
        self._total_ns += used
        if step is None and self._total_ns > self._budget_ns and self._instance is not None:
            step = self._instance.stop(Verdict.CPU_LIMIT)
        if step is None:
            self._stepping = True
            self._loop.call_soon(self._turn)
            return
        self._stepping = False
        self._answer(step)

    def _begin(self) -> Step | None:
        self._step_ns = 0
        body, self._inputs = self._todo.popleft()
        if self._instance is None:
            self._instance = self._runtime.engine.instantiate(self._memory)
            return self._instance.start(body)
        while self._todo:  # those of one loop turn are one step
            more, count = self._todo.popleft()
            body += more
            self._inputs += count
        return self._instance.deliver(body)

    def _resume(self) -> Step | None:
        assert self._instance is not None
        return self._instance.resume()

    def _answer(self, step: Step) -> None:
        verdict, ended = step.verdict, step.ended
        if not ended and self._total_ns > self._budget_ns:
            verdict, ended = Verdict.CPU_LIMIT, True
        listener = self._listener
        if ended:
            self._listener = None
            self._close()
        elif self._todo:
            self._loop.call_soon(self._turn)
        if listener is not None:
            taken = StepTaken(step.effects, self._step_ns // 1000, ended, Verdict(verdict), self._inputs)
            listener.stepped(taken)


class MemoryRuntime:
    """A Runtime without processes."""

    def __init__(self) -> None:
        self.engines: Mapping[str, str] = {"javascript": engine_hash()}
        self.runs: set[MemoryRun] = set()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "start() first"
        return self._engine

    async def start(self) -> None:
        image = open_image()
        try:
            folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
            self._engine = Engine(f"{folder}/{image}", max_instances=200)
        finally:
            os.close(image)
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        engine = self.engine
        while not self._stop.wait(TICK):
            engine.tick()

    def run(self, body: bytes, key: Key, listener: Listener) -> MemoryRun:
        run = MemoryRun(self, body, listener)
        self.runs.add(run)
        return run

    def abandon(self) -> None:
        self._stop.set()

    async def aclose(self) -> None:
        for run in list(self.runs):
            run.lost("the broker is closed")
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
