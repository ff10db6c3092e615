"""Active time: what counts, and what only a person or a client can bring on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from enclave_broker import Broker, Session
from tests.broker.sessions.support import check_log, jumping, turns, twin_broker, until


@asynccontextmanager
async def asking(deadline: float | None = None) -> AsyncGenerator[tuple[Broker, Session]]:
    """A session of a broker with a tool that its client executes, and tools that take a while."""
    async with twin_broker() as broker:
        broker.client_tool("ask", args=dict[str, str], result=str, timeout=1000.0)

        @broker.tool("work", effect="read")
        async def work(seconds: float) -> None:
            await asyncio.sleep(seconds)

        async with await broker.create_session(timeout=2.0, deadline=deadline) as session:
            yield broker, session


async def waiting_call(session: Session) -> str:
    """The id of the call that waits for its client."""
    await until(lambda: session.calls.all_wait_outside or session.closed)
    (call_id,) = [id for id, call in session.calls.running.items() if call.outside]
    return call_id


def clock_stands(session: Session) -> bool:
    assert session.execution is not None
    assert session.execution.clock is not None
    return session.execution.clock.stands


@jumping
async def test_no_active_time_passes_while_only_the_client_is_awaited() -> None:
    async with asking() as (_, session):
        session.begin("return await tools.ask({ q: 'who?' })")
        call_id = await waiting_call(session)
        assert clock_stands(session)
        await asyncio.sleep(500)
        assert session.answer_nowait(call_id, ok=True, value="me")
        result = await session.wait()
        assert (result.ok, result.value) == (True, "me")
        check_log(session.log.records)


@jumping
async def test_what_was_left_of_the_timeout_passes_after_the_answer() -> None:
    async with asking() as (_, session):
        session.begin("await tools.work({ seconds: 1.5 }); await tools.ask({}); await tools.work({ seconds: 1.5 })")
        call_id = await waiting_call(session)
        await asyncio.sleep(500)
        session.answer_nowait(call_id, ok=True, value="me")
        before = asyncio.get_running_loop().time()
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"
        assert 0.4 < asyncio.get_running_loop().time() - before < 0.7


@jumping
async def test_a_handler_beside_it_is_active_time() -> None:
    async with asking() as (_, session):
        session.begin("await Promise.all([tools.ask({}), tools.work({ seconds: 100 })])")
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"


@jumping
async def test_the_clock_stands_when_the_handler_beside_it_has_ended() -> None:
    async with asking() as (_, session):
        session.begin("await Promise.all([tools.ask({}), tools.work({ seconds: 1 })])")
        call_id = await waiting_call(session)
        await until(lambda: clock_stands(session))
        await asyncio.sleep(500)
        session.answer_nowait(call_id, ok=True, value="me")
        assert (await session.wait()).ok


@jumping
async def test_a_timer_of_the_script_is_active_time() -> None:
    async with asking() as (_, session):
        session.begin("const answer = tools.ask({}); await sleep(100_000); await answer")
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"


@jumping
async def test_a_timer_that_is_cleared_lets_the_clock_stand() -> None:
    async with asking() as (_, session):
        session.begin("const timer = setTimeout(() => {}, 90_000); clearTimeout(timer); return await tools.ask({})")
        call_id = await waiting_call(session)
        await until(lambda: clock_stands(session))
        await asyncio.sleep(500)
        session.answer_nowait(call_id, ok=True, value="me")
        assert (await session.wait()).ok


@jumping
async def test_no_active_time_passes_while_calls_queue_behind_those_that_wait_for_the_client() -> None:
    async with asking() as (_, session):
        session.begin("return await Promise.all(Array.from({ length: 20 }, () => tools.ask({})))")
        answered: set[str] = set()
        for places in (16, 4):
            await until(lambda places=places: len(session.calls.running) == places and clock_stands(session))
            await asyncio.sleep(500)
            for call_id in tuple(session.calls.running):
                answered.add(call_id)
                session.answer_nowait(call_id, ok=True, value="me")
                await turns()
            await until(lambda: not answered & session.calls.running.keys())
        assert (await session.wait()).value == ["me"] * 20
        assert len(answered) == 20
        check_log(session.log.records)


@jumping
async def test_calls_that_queue_behind_a_handler_are_active_time() -> None:
    async with asking() as (_, session):
        asks = "Array.from({ length: 20 }, () => tools.ask({}))"
        session.begin(f"await Promise.all([tools.work({{ seconds: 100 }}), ...{asks}])")
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"


@jumping
async def test_the_deadline_is_wall_clock_and_passes_all_the_same() -> None:
    async with asking(deadline=30.0) as (_, session):
        session.begin("await tools.ask({})")
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "DEADLINE_EXCEEDED"


@jumping
async def test_expires_at_moves_while_the_clock_stands_and_not_afterwards() -> None:
    async with asking() as (_, session):
        session.begin("await tools.ask({}); await tools.work({ seconds: 1 })")
        call_id = await waiting_call(session)
        before = session.info()["expiresAt"]
        await asyncio.sleep(100)
        moved = session.info()["expiresAt"]
        assert 99_000 < moved - before < 101_000
        session.answer_nowait(call_id, ok=True, value="me")
        await asyncio.sleep(0.5)
        assert session.info()["expiresAt"] - moved < 1000
        await session.wait()
        assert session.expires_at.timestamp() * 1000 - moved < 1000


@jumping
async def test_a_session_that_ends_while_its_clock_stands_never_rings() -> None:
    async with asking() as (_, session):
        session.begin("await tools.ask({})")
        await waiting_call(session)
        await session.cancel("enough")
        await asyncio.sleep(500)
        await turns()
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_CANCELLED"
        check_log(session.log.records)
