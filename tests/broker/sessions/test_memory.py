"""What a broker keeps of a session that is over and forgotten: nothing, and the collector has no work with it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from enclave_broker import Broker, Session, SessionClosedError
from tests.broker.sessions.support import turns, twin_broker

CODES = [
    "return 1 + 1",
    "throw new Error('x')",
    "const { a } = await tools.echo({ a: 1 }); setTimeout(() => {}, 1000); await sleep(1); return a",
    "tools.echo({ a: 1 }); return 2",
    "await Promise.all([tools.nobody({}), tools.echo({ a: 1 })])",
]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def one_session(broker: Broker, code: str) -> weakref.ref[Session]:
    session = await broker.create_session(timeout=5.0)
    cursor = session.cursor()
    await session.execute(code)
    cursor.close()
    await broker.sessions.destroy(session.id)
    return weakref.ref(session)


def tools_of(broker: Broker) -> None:
    @broker.tool("echo", effect="read")
    async def echo(a: int) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"a": a}


@pytest.mark.parametrize("code", CODES)
async def test_a_forgotten_session_is_freed_without_the_collector(code: str, no_collector: None) -> None:
    async with twin_broker() as broker:
        tools_of(broker)
        session = await one_session(broker, code)
        await turns()
        assert session() is None


async def test_who_still_holds_a_forgotten_session_may_read_it() -> None:
    async with twin_broker() as broker:
        tools_of(broker)
        session = await broker.create_session(timeout=5.0)
        await session.execute(CODES[2])
        await broker.sessions.destroy(session.id)
        assert session.info()["stats"]["toolCallCount"] == 1
        assert [call.outcome for call in session.history()] == ["done"]
        assert (await session.wait()).value == 1
        assert [event.type async for event in session.events()][-1] == "final"
        assert session.cursor().take().endswith(b"\n")
        assert not await session.cancel()
        with pytest.raises(SessionClosedError):
            await session.execute("return 1")
        assert session.expires_at > session.created_at
