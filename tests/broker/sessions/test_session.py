from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import (
    Broker,
    ConfigurationError,
    OverloadedError,
    Principal,
    SessionClosedError,
    SessionExistsError,
    SessionLimits,
    ToolError,
    create_session,
)
from enclave_broker.broker.sessions.manager import SessionManager
from tests.broker.sessions.support import (
    EPOCH,
    HandRuntime,
    check_log,
    events_of,
    jumping,
    turns,
    twin_broker,
    twin_session,
    within,
)


async def double(n: int) -> int:
    return 2 * n


async def fail() -> None:
    raise ToolError("no")


@jumping
async def test_several_executions_share_a_log_and_each_has_its_own_final() -> None:
    async with twin_broker(tools={"double": double}) as broker, await broker.create_session() as session:
        assert session.state == "starting"
        first = await session.execute("console.log('one'); return await callTool('double', {n: 1})")
        second = await session.execute("console.log('two'); throw new Error('x')")
        third = await session.execute("return 3")
        check_log(session.log.records, executions=3)
        assert [event.seq for event in events_of(session)] == list(range(1, len(events_of(session)) + 1))
    assert [(r.value, r.stdout, len(r.calls)) for r in (first, second, third)] == [
        (2, "one\n", 1),
        (None, "two\n", 0),
        (3, "", 0),
    ]
    assert [r.stats.tool_call_count for r in (first, second, third)] == [1, 0, 0]
    assert {r.session_id for r in (first, second, third)} == {session.id}


@jumping
async def test_each_execution_starts_with_fresh_globals_and_budgets() -> None:
    limits = SessionLimits(max_tool_calls=1, timeout=5)
    async with twin_session(tools={"double": double}, limits=limits) as session:
        for _ in range(3):
            code = "globalThis.seen = (globalThis.seen ?? 0) + await callTool('double', {n: 1}); await sleep(4000)"
            assert (await session.execute(f"{code}; return seen")).value == 2


@jumping
async def test_a_plain_failure_closes_nothing_and_the_state_follows() -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        began.set()
        await gate.wait()

    async with twin_broker(tools={"wait": wait}) as broker:
        session = await broker.create_session()
        await session.execute(")")
        assert session.state == "failed"
        run = asyncio.ensure_future(session.execute("await callTool('wait'); await sleep(1000); return 1"))
        await turns(1)
        assert session.state == "running"
        await began.wait()
        assert session.state == "waiting_for_tool"
        gate.set()
        await turns(20)
        assert session.state == "running"
        await run
        assert session.state == "completed"
        await broker.sessions.destroy(session.id)
        assert session.state == "completed"
        with pytest.raises(SessionClosedError):
            await session.execute("return 1")


@jumping
async def test_one_execution_at_a_time() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        run = asyncio.ensure_future(session.execute("await sleep(100); return 1"))
        await turns(1)
        with pytest.raises(SessionClosedError, match="still runs"):
            await session.execute("return 2")
        assert (await run).value == 1
        check_log(session.log.records)


@jumping
async def test_wait_gives_the_current_result_to_any_number_of_waiters() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        with pytest.raises(SessionClosedError, match="nothing"):
            await session.wait()
        run = asyncio.ensure_future(session.execute("await sleep(100); return 1"))
        await turns(1)
        waits = [asyncio.ensure_future(session.wait()) for _ in range(3)]
        await turns(1)
        waits[0].cancel()
        assert [(await wait).value for wait in waits[1:]] == [1, 1]
        assert (await run).value == (await session.wait()).value == 1


@jumping
async def test_a_session_knows_who_asked_and_when_and_until_when() -> None:
    principal = Principal("ada", tenant="t", roles=frozenset({"admin"}))
    async with twin_broker() as broker:
        session = await broker.create_session(principal=principal, metadata={"label": 1}, timeout=30)
        assert (session.principal, session.user_id, session.metadata) == (principal, "ada", {"label": 1})
        assert session.created_at.timestamp() == pytest.approx(EPOCH + 1000)
        assert (session.expires_at - session.created_at).total_seconds() == 30
        anonymous = await create_session(broker)
        assert (anonymous.user_id, anonymous.principal.is_anonymous) == (None, True)
        assert (await broker.create_session(user_id="bob")).principal == Principal("bob")
        with pytest.raises(ConfigurationError, match="one of them"):
            await broker.create_session(user_id="bob", principal=principal)


@jumping
async def test_an_id_may_be_chosen_once() -> None:
    async with twin_broker() as broker:
        session = await broker.create_session(session_id="s_mine")
        assert session.id == "s_mine"
        with pytest.raises(SessionExistsError):
            await broker.create_session(session_id="s_mine")
        assert await broker.sessions.destroy("s_mine") is True
        assert await broker.sessions.destroy("s_mine") is False
        assert (await broker.create_session(session_id="s_mine")).log.records == []
        for odd in ("", "mine", "s_", "s_a/b", "s_\n"):
            with pytest.raises(ValueError, match="s_"):
                await broker.create_session(session_id=odd)


@jumping
async def test_leaving_a_session_destroys_it() -> None:
    async with twin_broker() as broker:
        session = await broker.create_session()
        async with session:
            run = asyncio.ensure_future(session.execute("await sleep(1e6)"))
            await turns(1)
        assert (await run).status == "cancelled"
        assert broker.sessions.get(session.id) is None


@jumping
async def test_the_history_tells_of_running_calls_and_of_ended_ones() -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        began.set()
        await gate.wait()

    async with twin_session(tools={"wait": wait, "double": double}) as session:
        await session.execute("await callTool('double', {n: 1})")
        run = asyncio.ensure_future(session.execute("await callTool('wait')"))
        await began.wait()
        assert [(call.name, call.outcome) for call in session.history()] == [
            ("double", "done"),
            ("wait", "waiting"),
        ]
        gate.set()
        await run
        assert [(call.name, call.outcome) for call in session.history()] == [("double", "done"), ("wait", "done")]


@pytest.mark.parametrize("options", [{"language": "cobol"}, {"language": ""}])
@jumping
async def test_a_language_that_is_not_there_is_refused(options: dict[str, Any]) -> None:
    async with twin_broker() as broker:
        with pytest.raises(ConfigurationError, match="language"):
            await broker.execute("return 1", **options)
        assert list(broker.sessions.list()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": True},
        {"timeout": "5"},
        {"deadline": float("nan")},
        {"max_tool_calls": True},
        {"max_tool_calls": -1},
        {"allowed_tools": "double"},
        {"allowed_tools": ["[a"]},
        {"allowed_tools": [1]},
        {"limits": {"timeout": 1}},
        {"principal": "ada"},
        {"metadata": 5},
        {"on_event": 5},
    ],
)
@jumping
async def test_wrong_options_are_refused_before_anything_runs(options: dict[str, Any]) -> None:
    async with twin_broker() as broker:
        with pytest.raises(ConfigurationError):
            await broker.execute("return 1", **options)
        assert list(broker.sessions.list()) == []


@jumping
async def test_an_unknown_option_is_refused() -> None:
    async with twin_broker() as broker:
        with pytest.raises(TypeError, match="max_fun"):
            await broker.execute("return 1", max_fun=1)  # pyright: ignore[reportCallIssue] that is what is tested


@pytest.mark.parametrize("code", [None, b"return 1", 5])
@jumping
async def test_code_is_a_string(code: Any) -> None:
    async with twin_broker() as broker:
        with pytest.raises(ConfigurationError, match="code"):
            await broker.execute(code)


# -- the manager -------------------------------------------------------------------------------------------------------


@jumping
async def test_beyond_the_maximum_of_sessions_there_is_no_room() -> None:
    async with twin_broker(sessions=SessionManager(max_concurrent_sessions=2)) as broker:
        first = await broker.create_session()
        await broker.create_session()
        with pytest.raises(OverloadedError) as refused:
            await broker.execute("return 1")
        assert (refused.value.code, refused.value.retry_after > 0) == ("OVERLOADED", True)
        with pytest.raises(OverloadedError):
            await broker.create_session()
        await broker.sessions.destroy(first.id)
        assert (await broker.execute("return 1")).value == 1
        assert (await broker.execute("return 1")).value == 1


@jumping
async def test_an_idle_session_ends_after_its_time_and_a_busy_one_does_not() -> None:
    manager = SessionManager(session_timeout=30, cleanup_interval=1)
    async with twin_broker(sessions=manager) as broker:
        fresh, used = await broker.create_session(), await broker.create_session()
        busy = await broker.create_session(timeout=1000)
        run = asyncio.ensure_future(busy.execute("await sleep(100_000); return 'done'"))
        await asyncio.sleep(20)
        await used.execute("return 1")
        await asyncio.sleep(15)
        assert [manager.get(s.id) is None for s in (fresh, used, busy)] == [True, False, False]
        with pytest.raises(SessionClosedError):
            await fresh.execute("return 1")
        await asyncio.sleep(20)
        assert [manager.get(s.id) is None for s in (used, busy)] == [True, False]
        assert (await run).value == "done"


@jumping
async def test_a_session_whose_host_call_is_under_way_is_not_idle() -> None:
    gate = asyncio.Event()

    async def wait() -> str:
        await gate.wait()
        return "waited"

    manager = SessionManager(session_timeout=5, cleanup_interval=1)
    async with twin_broker(tools={"wait": wait}, sessions=manager) as broker:
        session = await broker.create_session()
        call = asyncio.ensure_future(broker.execute_tool_call(session.id, {"name": "wait", "args": {}}))
        await asyncio.sleep(10)
        gate.set()
        assert await within(call) == "waited"


def test_the_sweep_goes_on_in_the_loop_that_follows() -> None:
    manager = SessionManager(session_timeout=0.02, cleanup_interval=0.02)
    broker = Broker(sessions=manager, runtimes=[HandRuntime()])

    async def forgotten() -> None:
        await broker.create_session()

    async def swept() -> None:
        session = await broker.create_session()
        async with asyncio.timeout(3):
            while manager.get(session.id) is not None:  # noqa: ASYNC110 an expiry has no event for its host
                await asyncio.sleep(0.01)
        await broker.aclose()

    asyncio.run(forgotten())
    asyncio.run(swept())


@jumping
async def test_sessions_are_listed_by_user_and_state() -> None:
    async with twin_broker() as broker:
        ada, bob = await broker.create_session(user_id="ada"), await broker.create_session(user_id="bob")
        await bob.execute("return 1")
        assert list(broker.sessions.list()) == [ada, bob]
        assert list(broker.sessions.list(user_id="ada")) == [ada]
        assert list(broker.sessions.list(state="completed")) == [bob]
        assert list(broker.sessions.list(user_id="ada", state="completed")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrent_sessions": 0},
        {"max_concurrent_sessions": True},
        {"max_concurrent_sessions": 1.5},
        {"session_timeout": 0},
        {"session_timeout": float("inf")},
        {"cleanup_interval": "5"},
    ],
)
def test_a_managers_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SessionManager(**options)


async def test_events_may_be_filtered_as_on_the_wire() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        await session.execute("console.log('a'); console.warn('b')")
        wanted = {"mode": "include", "rules": [{"types": {"types": ["log"]}}], "alwaysAllow": ["final"]}
        assert [event.type async for event in session.events(filter=wanted)] == ["log", "final"]
        with pytest.raises(ValueError, match="mode"):
            _ = [event async for event in session.events(filter={"mode": "?"})]


async def test_a_manager_ends_its_sessions_when_it_is_left() -> None:
    async with SessionManager() as manager:
        session = await manager.create(user_id="ann")
    assert session.closed
