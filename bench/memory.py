"""What sessions weigh: Private_Dirty of the broker's process and its workers. Linux, and root to look into a worker."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from pathlib import Path

from figures import Figure
from speed import started

from enclave_broker import Broker


def private_dirty(pid: int) -> float:
    """KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def both(broker: Broker) -> tuple[float, float]:
    """KiB of this process, and of the workers."""
    gc.collect()
    pool = broker._parts.runtimes[0]
    return private_dirty(os.getpid()), sum(private_dirty(pid) for pid in pool.pids)  # type: ignore[attr-defined]


async def waiting(count: int) -> Figure:
    """KiB of a session that waits for a call, both processes together."""
    async with started(1) as broker:
        never = asyncio.Event()

        @broker.tool("w")
        async def wait() -> None:
            await never.wait()

        tasks = [asyncio.ensure_future(broker.execute('await callTool("w", {})')) for _ in range(50)]
        await asyncio.sleep(0.2)
        never.set()
        await asyncio.gather(*tasks)
        never.clear()
        before = sum(both(broker))
        tasks = [asyncio.ensure_future(broker.execute('await callTool("w", {})')) for _ in range(count)]
        while sum(s.state == "waiting_for_tool" for s in broker.sessions.list(limit=None)) < count:
            await asyncio.sleep(0.05)
        after = both(broker)
        never.set()
        await asyncio.gather(*tasks)
    value = (sum(after) - before) / count
    return Figure(name=f"memory of a session that waits, at {count}", values=[value], unit="KiB", bar=220)


async def in_a_row(total: int, first: int) -> list[Figure]:
    """MiB by which each process grows from the `first` session to the last."""
    async with started(1) as broker:
        for _ in range(first):
            await broker.execute("return 1+1")
        ours, theirs = both(broker)
        for _ in range(total - first):
            await broker.execute("return 1+1")
        ours_after, theirs_after = both(broker)
    return [
        Figure(
            name=f"growth from {first} to {total} sessions, {who}", values=[(after - before) / 1024], unit="MiB", bar=5
        )
        for who, before, after in (("broker", ours, ours_after), ("worker", theirs, theirs_after))
    ]


async def measure(*, quick: bool) -> list[Figure]:
    try:
        return [await waiting(1000), *await in_a_row(2000 if quick else 5000, 1000)]
    except (PermissionError, FileNotFoundError) as error:
        print(f"memory is not measured: {error}")
        return []
