"""Which calls may start, how many and in which order, and what stands in the log before they do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

import pytest

from enclave_broker import Session, SessionLimits, ToolContext, ToolError
from enclave_broker.broker.store.records import CallRequested, CallSettled, HandlerStarted
from enclave_broker.types.events import Event
from tests.broker.sessions.support import jumping, run_jumping, turns, twin_broker, within

CODES = (
    "const codes = []; for (const n of NAMES) await callTool(n).then(() => codes.push('ok'), e => codes.push(e.code));"
)


async def ok() -> str:
    return "ok"


def names(*given: str) -> str:
    return CODES.replace("NAMES", str(list(given))) + " return codes"


NAMES = ["db:get", "db:drop", "mail:send", "DB:get", "db:get ", "db"]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, ["ok", "ok", "ok"]),
        ([], ["TOOL_NOT_ALLOWED"] * 3),
        (["db:get"], ["ok", "TOOL_NOT_ALLOWED", "TOOL_NOT_ALLOWED"]),
        (["db:*"], ["ok", "ok", "TOOL_NOT_ALLOWED"]),
        (["*:send", "db:?et"], ["ok", "TOOL_NOT_ALLOWED", "ok"]),
        (["{db,mail}:[!d]*"], ["ok", "TOOL_NOT_ALLOWED", "ok"]),
        (["DB:*", "db", "db:get\\*"], ["TOOL_NOT_ALLOWED"] * 3),
    ],
)
@jumping
async def test_an_allow_list_holds_exact_names_and_globs(allowed: list[str] | None, expected: list[str]) -> None:
    async with twin_broker(tools=dict.fromkeys(["db:get", "db:drop", "mail:send"], ok)) as broker:
        result = await broker.execute(names(*NAMES), allowed_tools=allowed)
    assert result.value == [*expected, "UNKNOWN_TOOL", "UNKNOWN_TOOL", "UNKNOWN_TOOL"]
    assert [call.started is not None for call in result.calls[:3]] == [code == "ok" for code in expected]


@jumping
async def test_an_error_suggests_only_names_that_the_session_may_call() -> None:
    async with twin_broker(tools={"orders:get": ok, "orders:gets": ok}) as broker:
        result = await broker.execute("await callTool('orders:gett')", allowed_tools=["orders:gets"])
    assert result.error is not None
    assert "orders:gets" in result.error.message
    assert "orders:get'" not in result.error.message


@jumping
async def test_a_denied_call_learns_nothing_of_the_arguments_it_should_have() -> None:
    async def secret(card_number: int) -> None: ...

    async with twin_broker(tools={"secret": secret}) as broker:
        result = await broker.execute("await callTool('secret', {x: 1})", allowed_tools=["other"])
    assert result.error is not None
    assert result.error.code == "TOOL_NOT_ALLOWED"
    assert "card" not in result.error.message


@pytest.mark.parametrize("places", [1, 2, 3, 16])
@jumping
async def test_calls_beyond_the_places_wait_and_start_in_order(places: int) -> None:
    started: list[int] = []
    at_once = most = 0

    async def work(n: int) -> int:
        nonlocal at_once, most
        started.append(n)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep((n * 7 % 5 + 1) / 10)
        at_once -= 1
        return n

    limits = SessionLimits(max_concurrent_calls=places)
    async with twin_broker(tools={"work": work}, limits=limits) as broker:
        result = await broker.execute("return await parallel([...Array(40).keys()], n => callTool('work', {n}))")
    assert (result.value, started, most) == (list(range(40)), list(range(40)), places)


@jumping
async def test_a_waiting_calls_time_does_not_count_against_its_tool() -> None:
    async def work() -> None:
        await asyncio.sleep(0.8)

    limits = SessionLimits(max_concurrent_calls=1, tool_timeout=1)
    async with twin_broker(tools={"work": work}, limits=limits) as broker:
        result = await broker.execute("await Promise.all([1, 2, 3, 4].map(() => callTool('work')))")
    assert [call.outcome for call in result.calls] == ["done"] * 4


@pytest.mark.parametrize("maximum", [0, 1, 3])
@jumping
async def test_calls_beyond_the_maximum_are_an_error_that_can_be_caught(maximum: int) -> None:
    ran: list[int] = []

    async def work(n: int) -> int:
        ran.append(n)
        return n

    code = "return await Promise.all([1, 2, 3, 4, 5].map(n => callTool('work', {n}).catch(e => e.code)))"
    async with twin_broker(tools={"work": work}) as broker:
        result = await broker.execute(code, max_tool_calls=maximum)
    assert ran == list(range(1, maximum + 1))
    assert result.value == [*ran, *["MAX_TOOL_CALLS"] * (5 - maximum)]
    assert (len(result.calls), result.stats.tool_call_count) == (maximum, maximum)


@jumping
async def test_the_first_failed_call_ends_a_run_that_says_so_and_cancels_the_rest() -> None:
    cancelled: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ToolError("no", code="MINE")

    code = """callTool("wait", {name: "a"}); callTool("wait", {name: "b"});
      try { await callTool("fail") } catch { console.log("caught") } await sleep(1e6)"""
    limits = SessionLimits(cancel_on_first_error=True)
    async with twin_broker(tools={"wait": wait, "fail": fail}, limits=limits) as broker:
        result = await within(broker.execute(code), 100)
    assert result.error is not None
    assert (result.error.code, result.error.message, result.stdout) == ("MINE", "no", "")
    assert [(call.name, call.outcome) for call in result.calls] == [
        ("wait", "unknown"),
        ("wait", "unknown"),
        ("fail", "failed"),
    ]
    assert cancelled == ["a", "b"]


def test_the_record_of_a_start_stands_before_the_handler_runs() -> None:
    async def scenario() -> None:
        sessions: list[Session] = []
        seen: list[list[Any]] = []

        async def look(context: ToolContext, n: int) -> None:
            facts = [record.fact for record in sessions[0].log.records]
            seen.append([f for f in facts if getattr(f, "call_id", "") == context.call_id])

        async with twin_broker(tools={"look": look}) as broker:
            sessions.append(await broker.create_session())
            result = await sessions[0].execute("await callTool('look', {n: 1}); await callTool('look', {n: 2})")
        assert result.ok
        for facts, args in zip(seen, (b'{"n":1}', b'{"n":2}'), strict=True):
            requested, started = facts
            assert isinstance(requested, CallRequested)
            assert isinstance(started, HandlerStarted)
            assert (started.attempt, started.effect) == (1, "write")
            assert started.args_hash == hashlib.sha256(args).hexdigest()

    run_jumping(scenario)


@jumping
async def test_a_refused_call_has_no_record_of_a_start() -> None:
    async with twin_broker(tools={"ok": ok}) as broker, await broker.create_session(allowed_tools=[]) as session:
        await session.execute("await callTool('ok').catch(() => {})")
        kinds = [type(record.fact) for record in session.log.records]
    assert HandlerStarted not in kinds
    assert kinds.count(CallSettled) == kinds.count(CallRequested) == 1


# -- single flight by call id ------------------------------------------------------------------------------------------


class Counting:
    """A tool that counts its starts and waits for the test."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.runs = 0

    async def work(self, n: int = 0) -> int:
        self.runs += 1
        self.began.set()
        await self.gate.wait()
        return n + 100


@jumping
async def test_one_call_id_runs_once_whoever_asks() -> None:
    tool = Counting()
    async with twin_broker(tools={"work": tool.work}) as broker, await broker.create_session() as session:
        run = asyncio.ensure_future(session.execute("return await callTool('work', {n: 1})"))
        await tool.began.wait()
        (call,) = session.history()
        asked = {"id": call.id, "name": "work", "args": {"n": 1}}
        joined = [asyncio.ensure_future(broker.execute_tool_call(session.id, asked)) for _ in range(5)]
        await turns()
        joined[0].cancel()
        tool.gate.set()
        assert await asyncio.gather(*joined[1:]) == [101] * 4
        assert (await run).value == 101
        assert await broker.execute_tool_call(session.id, asked) == 101
        assert tool.runs == 1
        assert [event.type for event in events(session)].count("tool_result_applied") == 1


def events(session: Session) -> list[Event]:
    return [record.public for record in session.log.records if record.public is not None]


@jumping
async def test_a_hosts_own_call_runs_once_by_its_id_and_is_marked() -> None:
    tool = Counting()
    tool.gate.set()
    async with twin_broker(tools={"work": tool.work}) as broker, await broker.create_session() as session:
        asked = {"id": "c_mine", "name": "work", "args": {"n": 1}}
        values = await asyncio.gather(*(broker.execute_tool_call(session.id, asked) for _ in range(5)))
        assert values == [101] * 5
        assert await broker.execute_tool_call(session.id, {"name": "work"}) == 100
        assert tool.runs == 2
        first, second = session.history()
        assert (first.id, first.by_host, first.outcome, second.by_host) == ("c_mine", True, "done", True)
        assert second.id.startswith("c_")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"name": "nothing"}, "UNKNOWN_TOOL"),
        ({"name": "hidden"}, "TOOL_NOT_ALLOWED"),
        ({"name": "work", "args": {"n": "x"}}, "VALIDATION_ERROR"),
        ({"name": "fail"}, "MINE"),
    ],
)
@jumping
async def test_a_hosts_call_passes_the_whole_chain(call: dict[str, Any], code: str) -> None:
    async def fail() -> None:
        raise ToolError("no", code="MINE")

    tools = {"work": Counting().work, "hidden": ok, "fail": fail}
    async with twin_broker(tools=tools) as broker:
        session = await broker.create_session(allowed_tools=["work", "fail", "nothing"])
        for _ in range(2):
            with pytest.raises(ToolError) as refused:
                await broker.execute_tool_call(session.id, {"id": "c_1", **call})
            assert refused.value.code == code
        assert len(session.history()) == 1


@jumping
async def test_a_hosts_call_counts_and_ends_at_the_maximum() -> None:
    async with twin_broker(tools={"ok": ok}) as broker:
        session = await broker.create_session(max_tool_calls=2)
        for _ in range(2):
            await broker.execute_tool_call(session.id, {"name": "ok"})
        with pytest.raises(ToolError) as refused:
            await broker.execute_tool_call(session.id, {"name": "ok"})
        assert refused.value.code == "MAX_TOOL_CALLS"


@pytest.mark.parametrize(
    "call", [{}, {"name": 1}, {"name": "x", "args": []}, {"name": "x", "id": 5}, {"name": "x", "n": 1}]
)
@jumping
async def test_a_hosts_call_that_is_none_is_refused(call: dict[str, Any]) -> None:
    async with twin_broker(tools={"x": ok}) as broker:
        session = await broker.create_session()
        with pytest.raises(ValueError, match="name"):
            await broker.execute_tool_call(session.id, call)
        assert session.history() == []


@jumping
async def test_an_unknown_or_forgotten_session_is_not_found() -> None:
    async with twin_broker(tools={"x": ok}) as broker:
        gone = (await broker.execute("return 1")).session_id
        for id in ("s_nobody", gone):
            with pytest.raises(Exception, match="no such session") as refused:
                await broker.execute_tool_call(id, {"name": "x"})
            assert getattr(refused.value, "code", "") == "NOT_FOUND"


@jumping
async def test_a_write_in_doubt_is_not_started_again_under_its_id() -> None:
    runs: list[str] = []

    async def pay() -> None:
        runs.append("pay")
        await asyncio.get_running_loop().create_future()

    async def fail() -> None:
        raise ToolError("no")

    limits = SessionLimits(cancel_on_first_error=True, tool_timeout=1)
    async with twin_broker(tools={"pay": pay, "fail": fail}, limits=limits) as broker:
        session = await broker.create_session()
        result = await session.execute("callTool('pay'); await sleep(10); await callTool('fail')")
        doubt = result.calls[0]
        assert (doubt.name, doubt.outcome) == ("pay", "unknown")
        with pytest.raises(ToolError) as refused:
            await within(broker.execute_tool_call(session.id, {"id": doubt.id, "name": "pay"}), 60)
        assert (runs, refused.value.code) == (["pay"], "OUTCOME_UNKNOWN")


@jumping
async def test_joining_a_call_that_never_started_does_not_wait_for_ever() -> None:
    tool = Counting()
    tool.gate.set()
    async with twin_broker(tools={"work": tool.work}) as broker:
        session = await broker.create_session()
        result = await session.execute("callTool('work').then(() => callTool('work', {n: 2})); return 1")
        late = result.calls[1]
        assert late.outcome == "not_run"
        asked = {"id": late.id, "name": "work", "args": {"n": 2}}
        with contextlib.suppress(ToolError):
            await within(broker.execute_tool_call(session.id, asked), 60)
        assert [call.id for call in session.history()].count(late.id) == 1
