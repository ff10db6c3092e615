"""The application of measurements of long streams: sessions that wait, one that pours out events, a crowd asleep."""

from __future__ import annotations

import asyncio

from enclave_broker import Broker, SessionLimits, ToolContext
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.broker.sessions.session import Session
from enclave_broker.runtime.pool import ProcessPool

HOUR = 3600.0
ASLEEP = "setTimeout(() => {}, 3000000); console.log('set'); await sleep(3600000)"
AT_ONCE = 200  # sessions on their way to sleep: no more than a worker's queue takes

broker = Broker(
    limits=SessionLimits(timeout=2 * HOUR, tool_timeout=HOUR, per_tool_deadline=HOUR, max_log_bytes=1 << 30),
    sessions=SessionManager(max_concurrent_sessions=12_000, session_timeout=HOUR),
    runtimes=[ProcessPool(max_workers=12)],
)
never = asyncio.Event()
sleepers: set[asyncio.Task[None]] = set()
gates: dict[str, asyncio.Event] = {}
"""Of sessions that pour."""
asleep = 0


@broker.tool("wait")
async def wait() -> None:
    await never.wait()


@broker.tool("pour")
async def pour(context: ToolContext, count: int, rate: int, message: str) -> float:
    """Log so many lines at so many a second, once somebody calls `go`; the seconds that it took."""
    await gates.setdefault(context.session_id, asyncio.Event()).wait()
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    while sent < count:
        due = min(count, int((loop.time() - began) * rate) + 1)
        while sent < due:
            sent += 1
            await context.log(message)
        await asyncio.sleep(0.001)
    return loop.time() - began


@broker.tool("go")
async def go(session: str) -> None:
    gates[session].set()


@broker.tool("crowd")
async def crowd(count: int) -> int:
    """Sessions of this process that sleep, each with a timer far ahead and a reader that follows it."""
    for number in range(count):
        session = await broker.create_session()
        session.begin(ASLEEP)
        task = asyncio.ensure_future(_follow(session))
        sleepers.add(task)
        task.add_done_callback(sleepers.discard)
        while number - asleep > AT_ONCE:
            await asyncio.sleep(0.001)
    while asleep < count:
        await asyncio.sleep(0.01)
    return len(sleepers)


async def _follow(session: Session) -> None:
    """As an open stream does, but for the socket."""
    global asleep  # noqa: PLW0603 a script's counter
    cursor = session.cursor()
    while not cursor.ended:
        if b'"stdout"' in cursor.take():
            asleep += 1
        await cursor.wait()
