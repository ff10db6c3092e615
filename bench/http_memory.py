"""What sessions over HTTP weigh: Private_Dirty of `serve` and its workers. Linux, and root to look into a worker."""

from __future__ import annotations

import asyncio

from figures import Figure
from http_client import Readers, post_many, post_request
from http_served import serve
from memory import private_dirty

CODE = "return 1+1"
WAIT = 'await callTool("wait", {})'
WAIT_LINES = 4  # session_init, tool_call, connecting, processing: the handler runs
SETTLE_SECONDS = 1.5  # a stream that has lasted half a second has a task that watches for its client's leave
STREAMS = 2000
FIRST, LAST = 1000, 5000
GROWTH = f"growth from {FIRST:,} to {LAST:,} HTTP sessions"
IDLE = f"memory of an idle HTTP stream, at {STREAMS:,}, in the server"


async def in_a_row() -> list[Figure]:
    """MiB by which each process grows; 1,000 sessions that are over are kept at either end, as by default."""
    async with serve("plain.py") as served:
        await post_many(served.port, CODE, FIRST)
        before = {pid: private_dirty(pid) for pid in (served.pid, *served.workers)}
        await post_many(served.port, CODE, LAST - FIRST)
        after = {pid: private_dirty(pid) for pid in (served.pid, *served.workers)}
    names = ["server", *(f"worker {number}" for number in range(1, len(after)))]
    return [
        Figure(
            name=f"{GROWTH}, {name}",
            values=[(after[pid] - before.get(pid, 0.0)) / 1024],
            unit="MiB",
            bar=5,
            note=f"from {before.get(pid, 0.0) / 1024:.1f}; the newest 1,000 are kept at both"
            if pid == served.pid
            else "",
        )
        for name, pid in zip(names, after, strict=True)
    ]


async def idle_streams() -> Figure:
    """KiB of the server a session that waits for its tool, with the stream of its POST open."""
    request = post_request(WAIT)
    async with serve("streams.py") as served:
        warm = await Readers.open(served.port, 50, request, lines=WAIT_LINES)
        await asyncio.sleep(SETTLE_SECONDS)
        before = private_dirty(served.pid)
        readers = await Readers.open(served.port, STREAMS, request, lines=WAIT_LINES)
        await asyncio.sleep(SETTLE_SECONDS)
        after = private_dirty(served.pid)
        await readers.close()
        await warm.close()
    return Figure(
        name=IDLE, values=[(after - before) / STREAMS], unit="KiB", bar=30, note="session, call, handler, stream"
    )


async def measure(*, quick: bool) -> list[Figure]:  # noqa: ARG001 it takes seconds
    try:
        return [*await in_a_row(), await idle_streams()]
    except (PermissionError, FileNotFoundError) as error:
        return [Figure(name=name, values=[], unit="MiB", note=f"not measured: {error}") for name in (GROWTH, IDLE)]
