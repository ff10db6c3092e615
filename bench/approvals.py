"""What sessions weigh that wait for a person, and how long it takes to approve all at once. As bench/memory.py."""

from __future__ import annotations

import asyncio
import gc
import os
import time

from figures import Figure
from memory import private_dirty
from speed import started

from enclave_broker import Broker, Principal

SCRIPT = "return await callTool('refund', {amount: 5})"
BOSS = Principal("bea")


def weigh(broker: Broker) -> float:
    """KiB of this process and the workers."""
    gc.collect()
    return sum(private_dirty(pid) for pid in (os.getpid(), *broker.telemetry.workers()))


async def waiting(broker: Broker, count: int) -> list[asyncio.Future[object]]:
    """So many sessions, each waiting for one approval."""
    runs = [asyncio.ensure_future(broker.execute(SCRIPT)) for _ in range(count)]
    while len(broker.approvals.open()) < count:
        await asyncio.sleep(0.05)
    return runs  # type: ignore[return-value]


async def approve_all(broker: Broker, runs: list[asyncio.Future[object]]) -> float:
    """Seconds until all have ended."""
    begun = time.perf_counter()
    await broker.approvals.approve(*[each.id for each in broker.approvals.open()], by=BOSS)
    await asyncio.gather(*runs)
    return time.perf_counter() - begun


async def measure(*, quick: bool) -> list[Figure]:
    count = 200 if quick else 1000
    async with started(1) as broker:

        @broker.tool("refund", requires_approval=True)
        async def refund(amount: int) -> int:
            return amount

        await approve_all(broker, await waiting(broker, 50))
        try:
            before = weigh(broker)
            runs = await waiting(broker, count)
            weight = (weigh(broker) - before) / count
        except (PermissionError, FileNotFoundError) as error:
            print(f"memory is not measured: {error}")
            return []
        seconds = await approve_all(broker, runs)
    return [
        Figure(name=f"memory of a session that waits for a person, at {count}", values=[weight], unit="KiB", bar=220),
        Figure(name=f"approve {count} at once, to the last end, each", values=[seconds / count * 1e6], unit="µs"),
    ]
