"""How fast sessions and calls are, in process: `broker.execute` with real workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from figures import Figure

from enclave_broker import Broker, SessionLimits
from enclave_broker.broker.sessions.log import Batch, Log
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.runtime.pool import ProcessPool

LIMITS = SessionLimits(max_tool_calls=100_000, max_concurrent_calls=1000, timeout=600, cpu_time=600)
SEQUENTIAL = 'for (let i = 0; i < {n}; i++) await callTool("add", {{ a: i, b: 1 }}); return "done"'


@contextlib.asynccontextmanager
async def started(workers: int) -> AsyncIterator[Broker]:
    """A broker with so many workers, all of them up, and one typed tool."""
    pool = ProcessPool(workers=workers, max_workers=workers)
    broker = Broker(limits=LIMITS, runtimes=[pool], sessions=SessionManager(max_concurrent_sessions=5000))

    @broker.tool("add", effect="read")
    async def add(a: int, b: int) -> int:
        return a + b

    async with broker:
        while len(pool.pids) < workers:
            await asyncio.gather(*(broker.execute("await sleep(1)") for _ in range(16)))
        yield broker


async def one_by_one(broker: Broker, count: int) -> list[float]:
    """Microseconds from create to final of `return 1+1`, one after the other."""
    took: list[float] = []
    for _ in range(count):
        before = time.perf_counter()
        await broker.execute("return 1+1")
        took.append((time.perf_counter() - before) * 1e6)
    return took[count // 10 :]


async def many(broker: Broker, count: int, at_once: int = 32) -> float:
    """Sessions a second with so many at once."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await broker.execute("return 1+1")

    before = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return count / (time.perf_counter() - before)


async def sequential_calls(broker: Broker, calls: int, rounds: int) -> list[float]:
    """Microseconds of a call that waits for the one before it."""
    took: list[float] = []
    for _ in range(rounds):
        before = time.perf_counter()
        result = await broker.execute(SEQUENTIAL.format(n=calls))
        took.append((time.perf_counter() - before) / calls * 1e6)
        result.raise_for_error()
    return took[1:]


async def crowd(broker: Broker, scripts: int, calls: int) -> float:
    """Microseconds a call with so many scripts of so many calls each."""
    before = time.perf_counter()
    results = await asyncio.gather(*(broker.execute(SEQUENTIAL.format(n=calls)) for _ in range(scripts)))
    took = time.perf_counter() - before
    for result in results:
        result.raise_for_error()
    return took / (scripts * calls) * 1e6


async def all_at_once(broker: Broker, rounds: int) -> list[float]:
    """Milliseconds of a script with 100 calls in one Promise.all."""
    code = 'return (await Promise.all([...Array(100).keys()].map((a) => callTool("add", { a, b: 1 })))).length'
    took: list[float] = []
    for _ in range(rounds):
        before = time.perf_counter()
        result = await broker.execute(code)
        took.append((time.perf_counter() - before) * 1e3)
        assert result.value == 100, result.error
    return took[1:]


@contextlib.contextmanager
def null_log() -> Iterator[None]:
    """Logs keep nothing but their last record, from which results are made."""
    append = Log.append

    def forget(self: Log, batch: Batch) -> None:
        self.records.clear()
        append(self, batch)

    Log.append = forget  # type: ignore[method-assign]
    try:
        yield
    finally:
        Log.append = append  # type: ignore[method-assign]


async def log_share(broker: Broker, count: int, rounds: int) -> list[float]:
    """Per cent more sessions a second with a log that keeps nothing, pair by pair."""
    gains: list[float] = []
    for _ in range(rounds):
        kept = await many(broker, count)
        with null_log():
            gains.append((await many(broker, count) / kept - 1) * 100)
    return gains


async def measure(floor: float, *, pinned: bool, quick: bool) -> list[Figure]:
    n = 1 if quick else 4
    async with started(1) as broker:
        await one_by_one(broker, 200)
        one = Figure(
            name="create → final of `return 1+1`",
            values=await one_by_one(broker, 500 * n),
            unit="µs",
            bar=500,
            floor=floor,
        )
        rate = [await many(broker, 2000 * n) for _ in range(3)]
        single = Figure(name="sessions/s, 32 at once, one worker", values=rate, unit="/s", bar=3000, at_least=True)
        calls = Figure(
            name=f"sequential call, {'one CPU' if pinned else 'free'}",
            values=await sequential_calls(broker, 500, 3 * n),
            unit="µs",
            bar=90 if pinned else 160,
            floor=floor,
        )
        wide = Figure(name="100 calls in Promise.all", values=await all_at_once(broker, 20 * n), unit="ms", bar=3.5)
        share = Figure(
            name="more sessions/s with a log that keeps nothing",
            values=await log_share(broker, 1000 * n, 5),
            unit="%",
            bar=15,
        )
        busy = [await crowd(broker, 32, 200) for _ in range(3)]
    figures = [one, single, calls, wide, share]
    figures.append(Figure(name="a call with 32 scripts × 200 calls, one worker", values=busy, unit="µs", bar=45))
    if not pinned:
        async with started(2) as broker:
            rate = [await many(broker, 2000 * n) for _ in range(3)]
            busy = [await crowd(broker, 32, 200) for _ in range(3)]
        figures.append(
            Figure(name="sessions/s, 32 at once, two workers", values=rate, unit="/s", bar=4500, at_least=True)
        )
        figures.append(Figure(name="a call with 32 scripts × 200 calls, two workers", values=busy, unit="µs", bar=45))
    return figures
