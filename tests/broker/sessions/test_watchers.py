"""A run that a client has started goes on for a while when nobody watches it; a detached one for as long as it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from enclave_broker import Broker, ConfigurationError, Session, SessionLimits, SessionManager
from enclave_broker.types.principal import ANONYMOUS
from tests.broker.sessions.support import check_log, jumping, twin_broker

GRACE = 60.0
SLEEPS = "await sleep(500_000); return 'slept'"


async def opened(broker: Broker, *, detached: bool = False) -> Session:
    """As an edge opens one."""
    limits = SessionLimits(timeout=1000.0)
    return await broker.open_session(
        limits, allowed_tools=None, principal=ANONYMOUS, metadata=None, session_id=None, detached=detached
    )


@asynccontextmanager
async def watched(code: str = SLEEPS, *, detached: bool = False) -> AsyncGenerator[Session]:
    """A session that runs the code."""
    async with twin_broker(sessions=SessionManager(grace=GRACE, session_timeout=5000.0)) as broker:
        broker.client_tool("ask", args=dict[str, str], result=str, timeout=900.0)
        session = await opened(broker, detached=detached)
        session.begin(code)
        yield session


async def how_it_ended(session: Session) -> str:
    result = await session.wait()
    check_log(session.log.records)
    return "ok" if result.error is None else result.error.code


@jumping
async def test_a_run_that_nobody_watches_any_more_is_cancelled_after_the_grace() -> None:
    async with watched() as session:
        cursor = session.cursor()
        await asyncio.sleep(10)
        cursor.close()
        before = asyncio.get_running_loop().time()
        assert await how_it_ended(session) == "SESSION_CANCELLED"
        assert session.state == "cancelled"
        assert GRACE <= asyncio.get_running_loop().time() - before < GRACE + 1
        error = (await session.wait()).error
        assert error is not None
        assert "nobody has watched" in error.message


@jumping
async def test_a_reader_that_comes_back_in_time_saves_the_run() -> None:
    async with watched() as session:
        session.cursor().close()
        await asyncio.sleep(GRACE - 1)
        cursor = session.cursor()
        assert await how_it_ended(session) == "ok"
        cursor.close()


@jumping
async def test_one_of_two_readers_is_enough() -> None:
    async with watched() as session:
        staying = session.cursor()
        session.cursor().close()
        assert await how_it_ended(session) == "ok"
        staying.close()


@jumping
async def test_a_detached_run_needs_nobody() -> None:
    async with watched(detached=True) as session:
        session.cursor().close()
        assert await how_it_ended(session) == "ok"


@jumping
async def test_time_that_the_run_waits_for_a_client_is_not_held_against_it() -> None:
    async with watched("return await tools.ask({})") as session:
        session.cursor().close()
        await asyncio.sleep(8 * GRACE)
        (call_id,) = session.calls.running
        session.answer_nowait(call_id, ok=True, value="back")
        assert await how_it_ended(session) == "ok"


@jumping
async def test_sessions_of_the_host_itself_need_nobody_who_watches() -> None:
    async with twin_broker(sessions=SessionManager(grace=GRACE, session_timeout=5000.0)) as broker:
        session = await broker.create_session(timeout=1000.0)
        session.begin(SLEEPS)
        session.cursor().close()
        assert await how_it_ended(session) == "ok"


def test_a_grace_that_is_no_time_is_refused() -> None:
    for wrong in (-1.0, float("nan"), True, "60"):
        with pytest.raises(ConfigurationError, match="grace"):
            SessionManager(grace=wrong)  # pyright: ignore[reportArgumentType] the point
