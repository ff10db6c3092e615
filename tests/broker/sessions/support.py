"""A loop whose clock jumps, brokers on it, an engine that is moved by hand, and what tests ask of a log."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import selectors
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import msgspec

from enclave_broker import Broker, Session
from enclave_broker.broker.sessions.host import Sources
from enclave_broker.broker.store.records import Ended, Record
from enclave_broker.runtime.memory import MemoryRuntime
from enclave_broker.runtime.runtime import Key, Listener, StepTaken
from enclave_broker.types.events import Event, FinalEvent, ToolResultAppliedEvent
from enclave_broker.types.messages import Verdict

T = TypeVar("T")
P = ParamSpec("P")

EPOCH = 1_700_000_000.0
LATE = 1e-6
"""Seconds: no timer rings exactly on time."""


class Clock:
    """Seconds that pass only when a loop has nothing else to do."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the clock to it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self._clock.now += timeout + LATE
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which every wait for time is over at once, and no time passes otherwise."""

    def __init__(self, now: float = 1000.0) -> None:
        self.clock = Clock(now)
        super().__init__(_JumpingSelector(self.clock))

    def time(self) -> float:
        return self.clock.now


def run_jumping(make: Callable[[], Coroutine[Any, Any, T]], now: float = 1000.0) -> T:
    """What `make` makes, in a loop whose clock jumps."""
    with asyncio.Runner(loop_factory=lambda: JumpingLoop(now)) as runner:
        return runner.run(make())


def jumping(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """An async test that runs in a loop whose clock jumps."""

    @functools.wraps(test)
    def run(*args: P.args, **options: P.kwargs) -> None:
        run_jumping(lambda: test(*args, **options))

    return run


class Chance:
    """Bytes that are the same in every run."""

    def __init__(self, seed: str = "seed") -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed}{self._count}".encode()).digest(size)


def loop_sources(seed: str = "seed") -> Sources:
    """The epoch moves with the running loop's clock; chance is always the same."""
    return Sources(now=lambda: EPOCH + asyncio.get_running_loop().time(), random=Chance(seed))


@asynccontextmanager
async def twin_broker(**options: Any) -> AsyncGenerator[Broker]:
    """A broker on the in-process twin of the worker: right for a loop whose clock jumps."""
    options.setdefault("sources", loop_sources())
    async with Broker(runtimes=[MemoryRuntime()], **options) as broker:
        yield broker


@asynccontextmanager
async def twin_session(**options: Any) -> AsyncGenerator[Session]:
    """A session of such a broker."""
    async with twin_broker(**options) as broker, await broker.create_session() as session:
        yield session


class HandRun:
    """A run whose steps the test makes."""

    def __init__(self, listener: Listener) -> None:
        self.listener: Listener | None = listener
        self.delivered = 0
        self.cancelled = False
        self.started = False

    def deliver(self, body: bytes, /) -> None:
        self.delivered += 1

    def flush(self) -> None:
        pass

    def cancel(self, spent: Callable[[int], None] | None = None, /) -> None:
        self.cancelled = True
        self.listener = None

    def step(self, effects: list[list[Any]], *, ended: bool = False, verdict: Verdict = Verdict.NONE) -> None:
        """One step that consumes all that was delivered, as a runtime would hand it over."""
        listener = self.listener
        if listener is None or (self.started and not self.delivered):
            return
        inputs, self.delivered = self.delivered if self.started else 0, 0 if self.started else self.delivered
        self.started = True
        if ended or verdict:
            self.listener = None
        listener.stepped(StepTaken(msgspec.json.encode(effects), 1, ended or verdict != 0, verdict, inputs))

    def lost(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.lost("the worker process ended")


class HandRuntime:
    """A Runtime without engine: each run waits for what the test says it does."""

    def __init__(self) -> None:
        self.engines: Mapping[str, str] = {"javascript": "made by hand"}
        self.runs: list[HandRun] = []

    async def start(self) -> None:
        pass

    def run(self, body: bytes, key: Key, listener: Listener) -> HandRun:
        self.runs.append(HandRun(listener))
        return self.runs[-1]

    def abandon(self) -> None:
        self.runs.clear()

    async def aclose(self) -> None:
        for run in self.runs:
            run.lost()


async def turns(count: int = 10) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Until it is true; each look lets the loop turn."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 what is looked at has no event
            await asyncio.sleep(0.001)


async def within(work: Awaitable[T], seconds: float = 20.0) -> T:
    """What a broken broker would never give, or TimeoutError."""
    async with asyncio.timeout(seconds):
        return await work


def events_of(session: Session) -> list[Event]:
    return [record.public for record in session.log.records if record.public is not None]


def finals(records: list[Record]) -> list[FinalEvent]:
    return [record.public for record in records if isinstance(record.public, FinalEvent)]


def check_log(records: list[Record], executions: int = 1) -> None:
    """What holds of every log: dense numbers, `session_init` first, one final an execution, nothing after the last."""
    assert [record.index for record in records] == list(range(len(records)))
    public = [record.public for record in records if record.public is not None]
    assert [event.seq for event in public] == list(range(1, len(public) + 1))
    assert [event.type for event in public].index("session_init") == 0
    assert sum(event.type == "session_init" for event in public) == 1
    assert len(finals(records)) == sum(isinstance(record.fact, Ended) for record in records) == executions
    assert isinstance(records[-1].public, FinalEvent)
    settled = [event.call_id for event in public if isinstance(event, ToolResultAppliedEvent)]
    assert len(settled) == len(set(settled))
