"""What bad neighbours cost, and how soon a run ends that is told to."""

from __future__ import annotations

import asyncio
import time

from figures import Figure
from speed import one_by_one, started

from enclave_broker import Broker

LONG_BUILT_IN = "const a = Array.from({ length: 3e6 }, (_, i) => 'x' + (i * 7919) % 3e6); for (;;) a.slice().sort()"


async def beside_loops(broker: Broker, loops: int, count: int) -> list[float]:
    """Milliseconds of `return 1+1` beside so many endless loops."""
    tasks = [asyncio.ensure_future(broker.execute("for (;;) {}")) for _ in range(loops)]
    await one_by_one(broker, 20)
    took = [micro / 1000 for micro in await one_by_one(broker, count)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return took


async def cancel_times(broker: Broker, code: str, rounds: int) -> list[float]:
    """Milliseconds from `cancel` until the run is gone from its worker."""
    took: list[float] = []
    pool = broker._parts.runtimes[0]
    for _ in range(rounds):
        session = await broker.create_session()
        task = asyncio.ensure_future(session.execute(code))
        await asyncio.sleep(0.3)
        before = time.perf_counter()
        await session.cancel("bench")
        await task
        while any(worker.load for worker in pool.workers):  # type: ignore[attr-defined]
            await asyncio.sleep(0.0005)
        took.append((time.perf_counter() - before) * 1e3)
        await broker.sessions.destroy(session.id)
    return took


async def measure(*, quick: bool) -> list[Figure]:
    n = 1 if quick else 3
    figures: list[Figure] = []
    async with started(2) as broker:
        for loops, bar in ((1, 5.0), (16, 40.0)):
            values = await beside_loops(broker, loops, 300 * n)
            figures.append(
                Figure(
                    name=f"`return 1+1` beside {loops} × `for(;;)` (p99)", values=values, unit="ms", bar=bar, use="p99"
                )
            )
        for name, code, bar in (("for(;;)", "for (;;) {}", 50), ("a long built-in (sort)", LONG_BUILT_IN, 200)):
            values = await cancel_times(broker, code, 3 * n)
            figures.append(
                Figure(name=f"cancel of {name}, until the worker is rid of it", values=values, unit="ms", bar=bar)
            )
    return figures
