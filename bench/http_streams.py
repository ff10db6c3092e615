"""What streams cost a server: one session that pours out events to many readers, and many sessions that sleep."""

from __future__ import annotations

import asyncio
import json
import statistics

from figures import Figure
from http_client import Readers, get_request, lines_of, post, post_and_leave, post_request
from http_served import Served, serve

RATE = 20_000  # events a second
READERS = 50
LINE_BYTES = 200
CROWD = 10_000
HEARTBEAT_SECONDS = 15.0  # a window of one heartbeat of each session
ASLEEP = "setTimeout(() => {}, 3000000); console.log('set'); await sleep(3600000)"
SETTLE_SECONDS = 2.0
LEAVE_SECONDS = 1.0  # within it a server notices that a client has left


async def pour(served: Served, count: int) -> tuple[float, float, int]:
    """Microseconds of the server's CPU an event, events a second as they came, bytes of the last line."""
    arguments = {"count": count, "rate": RATE, "message": _message(count)}
    code = f"return await callTool('pour', {json.dumps(arguments)})"
    session = await post_and_leave(served.port, code)
    await asyncio.sleep(LEAVE_SECONDS)
    path = f"/sessions/{session}/stream"
    readers = await Readers.open(served.port, READERS, get_request(path), lines=1)
    before = served.cpu()
    await post(served.port, f"await callTool('go', {json.dumps({'session': session})})")
    ended, least, most = await readers.ended()
    spent = served.cpu() - before
    if ended != READERS or least != most or least < count:
        raise RuntimeError(f"{ended} streams ended, with {least} to {most} lines of {count}")
    lines = await lines_of(served.port, get_request(f"{path}?fromSeq={count}"))
    took = json.loads(lines[-1])["payload"]["result"]
    return spent / count * 1e6, count / took, len(lines[0]) + 1


def _message(count: int) -> str:
    """As long as makes a line of LINE_BYTES."""
    around = {"protocolVersion": 2, "sessionId": "s_" + "0" * 36, "seq": count, "type": "log"}
    empty = json.dumps({**around, "payload": {"level": "info", "message": ""}}, separators=(",", ":"))
    return "x" * (LINE_BYTES - len(empty) - 1)


async def poured(rounds: int, count: int) -> Figure:
    async with serve("streams.py") as served:
        await pour(served, count // 10)
        found = [await pour(served, count) for _ in range(rounds)]
    rate = sum(rate for _, rate, _ in found) / rounds
    return Figure(
        name=f"an event at {RATE:,}/s, {READERS} GET streams, CPU of the server",
        values=[spent for spent, _, _ in found],
        unit="µs",
        bar=35,
        note=f"{count:,} lines of {found[0][2]} bytes at {rate:,.0f}/s, from context.log; every reader got all",
    )


async def idle(served: Served, windows: int) -> list[float]:
    """Per cent of a core, window by window."""
    await asyncio.sleep(SETTLE_SECONDS)
    shares: list[float] = []
    for _ in range(windows):
        before = served.cpu()
        await asyncio.sleep(HEARTBEAT_SECONDS)
        shares.append((served.cpu() - before) / HEARTBEAT_SECONDS * 100)
    return shares


def _each(shares: list[float]) -> str:
    """Microseconds of a heartbeat, if nothing else cost anything."""
    return f"{statistics.median(shares) / 100 * HEARTBEAT_SECONDS / CROWD * 1e6:.0f} µs a heartbeat"


async def crowds(*, quick: bool) -> list[Figure]:
    """Sessions that wait for a timer far ahead, with one reader and so a heartbeat in 15 s each."""
    windows = 1 if quick else 2
    async with serve("streams.py") as served:
        await post(served.port, f"return await callTool('crowd', {{ count: {CROWD} }})")
        inside = await idle(served, windows)
    figures = [
        Figure(
            name=f"{CROWD:,} idle sessions, timers and heartbeats, of a core",
            values=inside,
            unit="%",
            bar=1,
            note=f"{_each(inside)}; readers are cursors in the process, which wait for it and take its line",
        )
    ]
    if not quick:
        async with serve("streams.py") as served:
            readers = await Readers.open(served.port, CROWD, post_request(ASLEEP), lines=2)
            outside = await idle(served, windows)
            await readers.close()
        figures.append(
            Figure(
                name=f"{CROWD:,} idle HTTP streams, heartbeats sent, of a core",
                values=outside,
                unit="%",
                note=f"{_each(outside)}; readers are clients, each with a socket",
            )
        )
    return figures


async def measure(*, quick: bool) -> list[Figure]:
    return [await (poured(1, 40_000) if quick else poured(3, 80_000)), *await crowds(quick=quick)]
