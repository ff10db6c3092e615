"""What one principal's sessions may take together, and that the counters never drift."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker import Broker, ConfigurationError, OverloadedError, Principal, PrincipalLimits, SessionManager
from enclave_broker.broker.sessions.gone import Gone
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.sessions.shares import owner_of
from enclave_broker.types.errors import SessionError
from tests.broker.sessions.support import jumping, run_jumping, twin_broker, until

ANN, BOB = Principal("ann", tenant="acme"), Principal("bob", tenant="acme")


def capped(**limits: Any) -> SessionManager:
    return SessionManager(per_principal=PrincipalLimits(**limits))


async def _nothing() -> None: ...


def refused(error: OverloadedError, name: str) -> None:
    assert error.code == "RATE_LIMITED"
    assert name in error.message
    assert error.retry_after > 0
    assert {detail["type"] for detail in error.details} == {"quota_info", "retry_info"}


async def test_a_principal_has_so_many_open_sessions_and_others_have_theirs() -> None:
    async with capped(max_sessions=2) as manager:
        first = await manager.create(principal=ANN)
        await manager.create(principal=Principal("ann", tenant="acme", roles=frozenset({"admin"}), claims={"iat": 1}))
        with pytest.raises(OverloadedError) as error:
            await manager.create(principal=ANN)
        refused(error.value, "max_sessions")
        await manager.create(principal=BOB)
        for _ in range(3):
            await manager.create()  # the host's own have no cap
        await first.cancel()
        await manager.create(principal=ANN)


async def test_who_is_not_known_has_the_caps_where_that_is_asked_for() -> None:
    async with capped(max_sessions=1, anonymous=True) as manager:
        await manager.create()
        with pytest.raises(OverloadedError):
            await manager.create()


async def test_no_session_is_opened_while_too_many_wait_for_a_client() -> None:
    async with twin_broker(sessions=capped(max_waiting=2)) as broker:
        broker.client_tool("ask", args=dict[str, Any])
        busy = await broker.create_session(principal=ANN)
        waiting = [await broker.create_session(principal=ANN) for _ in range(2)]
        runs = [asyncio.ensure_future(session.execute("return await tools.ask({})")) for session in waiting]
        share = broker.sessions.shares.of(ANN)
        await until(lambda: share.count_waiting() == 2)
        with pytest.raises(OverloadedError) as error:
            await broker.create_session(principal=ANN)
        refused(error.value, "max_waiting")
        assert (await busy.execute("return 1")).value == 1
        await broker.create_session(principal=BOB)
        [call] = waiting[0].calls.running
        assert await waiting[0].answer(call, "yes")
        await runs[0]
        await broker.create_session(principal=ANN)
        await waiting[1].cancel()
        await runs[1]


async def test_sessions_with_more_asks_than_places_wait_too() -> None:
    async with twin_broker(sessions=capped(max_waiting=2)) as broker:
        broker.client_tool("ask", args=dict[str, Any])
        broker.tool("wipe", requires_approval=True)(_nothing)
        for name in ("ask", "wipe"):
            session = await broker.create_session(principal=ANN)
            session.begin(f"await Promise.all(Array.from({{ length: 17 }}, () => tools.{name}({{}})))")
        share = broker.sessions.shares.of(ANN)
        await until(lambda: share.count_waiting() == 2)
        with pytest.raises(OverloadedError) as error:
            await broker.create_session(principal=ANN)
        refused(error.value, "max_waiting")


async def test_logs_of_open_and_of_readable_sessions_count_and_the_readable_ones_make_room() -> None:
    async with twin_broker(sessions=capped(max_bytes=20_000)) as broker:
        share = broker.sessions.shares.of(ANN)

        async def printed(principal: Principal = ANN) -> Session:
            session = await broker.create_session(principal=principal)
            await session.execute("console.log('x'.repeat(12000))")
            return session

        over, theirs = await printed(), await printed(BOB)
        await over.cancel()
        await theirs.cancel()
        session = await printed()  # 12,000 of `over` and 12,000 more
        assert broker.sessions.get(over.id) is over
        third = await broker.create_session(principal=ANN)
        assert broker.sessions.get(over.id) is None
        assert broker.sessions.get(theirs.id) is theirs
        assert share.count_bytes() == session.log.size_bytes
        await third.execute("console.log('x'.repeat(12000))")
        with pytest.raises(OverloadedError) as error:
            await broker.create_session(principal=ANN)
        refused(error.value, "max_bytes")
        assert await broker.sessions.destroy(third.id)
        await broker.create_session(principal=ANN)


@jumping
async def test_cpu_time_is_refused_until_it_is_paid_back() -> None:
    async with twin_broker(sessions=capped(cpu_time=1.0, cpu_window=10.0)) as broker:
        share = broker.sessions.shares.of(ANN)
        share.spent(3_000_000)
        with pytest.raises(OverloadedError) as error:
            await broker.create_session(principal=ANN)
        refused(error.value, "cpu_time")
        assert error.value.retry_after == pytest.approx(20.0)
        await broker.create_session(principal=BOB)
        await asyncio.sleep(19.9)
        with pytest.raises(OverloadedError):
            await broker.create_session(principal=ANN)
        await asyncio.sleep(0.2)
        await broker.create_session(principal=ANN)


async def test_every_step_counts_also_the_one_that_a_cancel_cut_off() -> None:
    async with Broker(sessions=capped(cpu_window=1e6)) as broker:  # nothing is paid back meanwhile
        shares = broker.sessions.shares
        async with await broker.create_session(principal=ANN) as session:
            await session.execute("for (let i = 0; i < 1e5; i++); await sleep(1)")
            used = shares.of(ANN).cpu_used()
            assert used > 0
            session.begin("for (;;) {}")
            await asyncio.to_thread(_burn)
            assert shares.of(ANN).cpu_used() <= used  # no step has ended
        await until(lambda: shares.of(ANN).cpu_used() > used)


def _burn() -> None:
    """Long enough for a script to be well inside its step."""
    for _ in range(3_000_000):
        pass


@jumping
async def test_cpu_time_is_remembered_beyond_the_session_and_then_forgotten() -> None:
    async with twin_broker(sessions=capped(cpu_window=5.0, cpu_time=5.0)) as broker:
        async with await broker.create_session(principal=ANN) as session:
            await session.execute("return 1")
            assert session.spend is not None
            session.spend(2_000_000)
        assert len(broker.sessions.shares) == 1
        await asyncio.sleep(60)
        assert len(broker.sessions.shares) == 0


def test_streams_are_counted_until_they_have_ended() -> None:
    shares = capped(max_streams=2).shares
    first, _ = shares.take_stream(ANN), shares.take_stream(ANN)
    with pytest.raises(OverloadedError) as error:
        shares.take_stream(ANN)
    refused(error.value, "max_streams")
    assert shares.take_stream(BOB) is not None
    assert first is not None
    first()
    assert shares.take_stream(ANN) is not None


@jumping
async def test_who_runs_much_does_not_push_out_what_others_may_still_read() -> None:
    async with twin_broker(sessions=SessionManager(max_retained=10)) as broker:

        async def over(principal: Principal) -> Session:
            session = await broker.create_session(principal=principal)
            session.close("SESSION_CANCELLED", "enough", status="cancelled")
            return session

        mine = [await over(ANN) for _ in range(3)]
        theirs = [await over(BOB) for _ in range(30)]
        assert [broker.sessions.get(session.id) for session in mine] == mine
        assert [session for session in theirs if broker.sessions.get(session.id)] == theirs[-7:]


def test_ids_of_the_gone_are_shared_out_too_and_expire() -> None:
    gone = Gone(10)
    for number in range(3):
        gone.add(owner_of(ANN), f"s_{number}", 5.0 + number)
    for number in range(30):
        gone.add(owner_of(BOB), f"s_{number}", 100.0)
    assert all(gone.has(owner_of(ANN), f"s_{number}", 1.0) for number in range(3))
    assert len(gone) == 10
    gone.expire(6.0)
    assert [gone.has(owner_of(ANN), f"s_{number}", 1.0) for number in range(3)] == [False, False, True]
    gone.expire(100.0)
    assert len(gone) == 0


@pytest.mark.parametrize(
    "options", [{"max_sessions": 0}, {"max_bytes": True}, {"max_streams": 1.5}, {"cpu_time": 0}, {"anonymous": 1}]
)
def test_the_caps_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        PrincipalLimits(**options)
    with pytest.raises(ConfigurationError, match="per_principal"):
        SessionManager(per_principal=options)  # pyright: ignore[reportArgumentType] what is tested


# -- the counters agree with a recount ---------------------------------------------------------------------------------

WHO = [ANN, BOB, Principal("ann"), Principal("anonymous")]
STEPS = st.tuples(
    st.sampled_from(
        ["open", "open", "chosen", "write", "close", "forget", "destroy", "stream", "unstream", "spend", "pass"]
    ),
    st.integers(0, 3),
    st.integers(0, 50),
)


def recount(manager: SessionManager, streams: list[tuple[Principal, Callable[[], None]]]) -> None:
    every = manager.list(limit=None)
    for principal in WHO:
        own = [session for session in every if owner_of(session.principal) == owner_of(principal)]
        share = manager.shares.find(principal)
        reading = sum(owner_of(who) == owner_of(principal) for who, _ in streams)
        if share is None:
            assert not own
            assert not reading
            continue
        assert list(share.sessions.values()) == own == list(manager.list_for(principal))
        assert share.open == sum(not session.closed for session in own)
        assert list(share.retained) == [s for s in share.retained if s.closed]
        assert set(share.retained) == {session for session in own if session.closed}
        assert share.retained_bytes == sum(share.retained.values())
        assert share.streams == reading
    retained = manager._retained  # pyright: ignore[reportPrivateUsage] what is recounted
    assert len(retained) == sum(session.closed for session in every) <= 6
    assert retained.size_bytes == sum(share.retained_bytes for share in map(manager.shares.of, WHO)) <= 30_000
    assert manager._open == sum(not session.closed for session in every) <= 8  # pyright: ignore[reportPrivateUsage]
    for share in map(manager.shares.of, WHO):
        manager.shares.look(share)


async def walk(steps: list[tuple[str, int, int]]) -> None:
    limits = PrincipalLimits(max_sessions=4, max_bytes=12_000, max_streams=2, cpu_time=1.0, cpu_window=10.0)
    manager = SessionManager(
        max_concurrent_sessions=8, max_retained=6, max_retained_bytes=30_000, per_principal=limits, session_timeout=30.0
    )
    streams: list[tuple[Principal, Callable[[], None]]] = []
    for step, who, number in steps:
        principal = WHO[who]
        every = list(manager.list(limit=None))
        session = every[number % len(every)] if every else None
        try:
            if step in {"open", "chosen"}:
                await manager.create(principal=principal, session_id=f"s_{number % 5}" if step == "chosen" else None)
            elif step == "stream" and (release := manager.shares.take_stream(principal)) is not None:
                streams.append((principal, release))
            elif step == "unstream" and streams:
                streams.pop(number % len(streams))[1]()
            elif step == "pass":
                await asyncio.sleep(number)
            elif session is not None:
                await change(manager, session, step, number)
        except SessionError as error:
            assert error.code in {"RATE_LIMITED", "OVERLOADED", "SESSION_EXISTS"}  # noqa: PT017 others are raised
        recount(manager, streams)
    for _, release in streams:
        release()
    for session in manager.list(limit=None):
        await manager.destroy_for(session.principal, session.id)
    await asyncio.sleep(3600)
    assert len(manager.shares) == 0
    assert len(manager._gone) == 0  # pyright: ignore[reportPrivateUsage] what is recounted
    await manager.aclose()


async def change(manager: SessionManager, session: Session, step: str, number: int) -> None:
    if step == "write":  # also after its end, as a call of the host may
        batch = session.log.batch()
        batch.weight = number * 100
        session.log.append(batch)
    elif step == "close":
        session.close("SESSION_CANCELLED", "enough", status="cancelled")
    elif step == "forget":
        manager.forget(session)
        session.close("SESSION_CANCELLED", "enough", status="cancelled")
    elif step == "destroy":
        await manager.destroy_for(session.principal, session.id)
    elif step == "spend" and session.spend is not None:
        session.spend(number * 20_000)


@settings(deadline=None, max_examples=100)
@given(st.lists(STEPS, max_size=80))
def test_the_counters_agree_with_a_recount_whatever_comes_and_goes(steps: list[tuple[str, int, int]]) -> None:
    run_jumping(lambda: walk(steps))
