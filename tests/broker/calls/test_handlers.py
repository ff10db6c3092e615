"""Handlers end to end: their shapes, what they are told, their threads and their time."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from enclave_broker import Broker, Principal, SessionLimits, ToolContext, ToolError
from enclave_broker.broker.tools.tool import tool_from_router_handler
from tests.broker.sessions.support import EPOCH, jumping, twin_broker, within


class GetUser(BaseModel):
    id: int
    verbose: bool = False


class User(TypedDict):
    id: int


async def typed(id: int, verbose: bool = False) -> GetUser:
    return GetUser(id=id, verbose=verbose)


async def as_model(args: GetUser) -> int:
    return args.id


async def as_dict(args: dict[str, Any]) -> dict[str, Any]:
    return args


async def as_typed_dict(args: User) -> int:
    return args["id"]


async def routed(name: str, args: dict[str, Any]) -> list[Any]:
    return [name, args]


def in_thread(id: int) -> int:
    return id


SHAPES: dict[str, Any] = {
    "typed": typed,
    "as_model": as_model,
    "as_dict": as_dict,
    "as_typed_dict": as_typed_dict,
    "in_thread": in_thread,
    "db:get": tool_from_router_handler("db:get", routed),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typed", {"id": 7, "verbose": False}),
        ("as_model", 7),
        ("as_dict", {"id": 7}),
        ("as_typed_dict", 7),
        ("in_thread", 7),
        ("db:get", ["db:get", {"id": 7}]),
    ],
)
async def test_each_shape_of_a_handler_works_end_to_end(name: str, value: Any) -> None:
    async with Broker(tools=SHAPES) as broker:
        result = await broker.execute(f"return await callTool({name!r}, {{id: 7}})")
    assert (result.error, result.value) == (None, value)


@pytest.mark.parametrize("name", ["typed", "as_model", "as_typed_dict", "in_thread"])
@pytest.mark.parametrize("args", ["{id: '7'}", "{}", "{id: 7, more: 1}", "{id: 7.5}", "{id: true}", "{id: null}"])
@jumping
async def test_arguments_are_strict(name: str, args: str) -> None:
    async with twin_broker(tools=SHAPES) as broker:
        code = f"try {{ await callTool({name!r}, {args}) }} catch (e) {{ return [e.code, e.message, e.name] }}"
        code, message, kind = (await broker.execute(code)).value
    assert (code, kind) == ("VALIDATION_ERROR", "ToolError")
    assert "invalid" in message


@jumping
async def test_a_tool_given_by_name_is_called_by_that_name() -> None:
    """Its own name, if it has another, would be a surprise."""
    tool = tool_from_router_handler("db:get", routed)
    async with twin_broker(tools={"other": tool}) as broker:
        assert [tool.name for tool in broker.tools] == ["other"]


@jumping
async def test_a_handler_is_told_who_asks_for_what_and_until_when() -> None:
    seen: list[ToolContext] = []

    async def look(context: ToolContext, n: int) -> int:
        seen.append(context)
        return n

    principal = Principal("ada", tenant="t")
    async with twin_broker(tools={"ns:look": look}) as broker:
        session = await broker.create_session(principal=principal, metadata={"label": "x"})
        result = await session.execute("return await tools.ns.look({n: 1}) + await callTool('ns:look', {n: 2})")
    assert result.value == 3
    first, second = seen
    assert (first.session_id, first.tool_name, first.principal) == (session.id, "ns:look", principal)
    assert (first.call_id, second.call_id) == (result.calls[0].id, result.calls[1].id)
    assert first.idempotency_key == first.call_id != second.idempotency_key
    assert dict(first.metadata) == {"label": "x"}
    assert dict(first.secrets) == {}


@jumping
async def test_a_handlers_deadline_is_by_the_same_clock_as_everything_else() -> None:
    seen: list[datetime] = []

    async def look(context: ToolContext) -> None:
        seen.append(context.deadline)

    async with twin_broker(tools={"look": look}, limits=SessionLimits(tool_timeout=5)) as broker:
        await broker.execute("await callTool('look')")
    assert seen[0].tzinfo is not None
    assert (seen[0] - datetime.fromtimestamp(EPOCH + 1000, UTC)).total_seconds() == pytest.approx(5, abs=0.1)


async def test_sync_handlers_run_in_threads_at_the_same_time(broker: Broker) -> None:
    barrier = threading.Barrier(5)
    seen: set[int] = set()

    def meet(n: int) -> int:
        barrier.wait(20)
        seen.add(threading.get_ident())
        return n

    broker.tool("meet")(meet)
    result = await broker.execute("return await parallel([1, 2, 3, 4, 5], n => callTool('meet', {n}))")
    assert (result.error, result.value) == (None, [1, 2, 3, 4, 5])
    assert len(seen) == 5
    assert threading.get_ident() not in seen


async def test_a_sync_handler_may_run_on_the_loop_if_it_says_so(broker: Broker) -> None:
    def where() -> int:
        return threading.get_ident()

    broker.tool("where", run_in_thread=False)(where)
    assert (await broker.execute("return await callTool('where')")).value == threading.get_ident()


ENDINGS = [
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    asyncio.CancelledError(),
    OSError("x"),
]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("sync", [False, True])
async def test_whatever_a_handler_raises_is_its_scripts_to_catch(
    broker: Broker, error: BaseException, sync: bool
) -> None:
    async def fail() -> None:
        raise error

    def fail_in_thread() -> None:
        raise error

    broker.tool("fail")(fail_in_thread if sync else fail)
    result = await within(broker.execute("try { await callTool('fail') } catch (e) { return e.code }"))
    assert result.value == "EXECUTION_ERROR"
    assert (await broker.execute("return 2")).value == 2


@pytest.mark.parametrize(
    ("code", "expected"), [("MINE", "MINE"), ("CPU_LIMIT", "EXECUTION_ERROR"), ("A B", "EXECUTION_ERROR")]
)
@jumping
async def test_a_tool_error_reaches_the_script_with_code_and_details(code: str, expected: str) -> None:
    async def fail() -> None:
        raise ToolError("why", code=code, details={"a": [1]})

    async with twin_broker(tools={"fail": fail}) as broker:
        script = (
            "try { await callTool('fail') } catch (e) { return [e instanceof Error, e.code, e.message, e.details] }"
        )
        assert (await broker.execute(script)).value == [True, expected, "why", {"a": [1]}]


@pytest.mark.parametrize(
    ("limits", "tool_timeout", "expected"),
    [
        (SessionLimits(tool_timeout=3), None, 3.0),
        (SessionLimits(tool_timeout=3), 7.0, 7.0),
        (SessionLimits(tool_timeout=30, per_tool_deadline=2), None, 2.0),
        (SessionLimits(per_tool_deadline=2), 7.0, 2.0),
    ],
)
@jumping
async def test_a_tools_time_is_its_own_or_the_sessions(
    limits: SessionLimits, tool_timeout: float | None, expected: float
) -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async with twin_broker(limits=limits) as broker:
        broker.tool("hang", timeout=tool_timeout)(hang)
        result = await within(broker.execute("try { await callTool('hang') } catch (e) { return e.code }"), 100)
        await within(cancelled.wait(), 100)
    assert result.value == "TOOL_TIMEOUT"
    (call,) = result.calls
    assert (call.outcome, call.rule) == ("unknown", "timeout")
    assert call.duration == pytest.approx(expected, abs=0.06)


@jumping
async def test_a_handler_that_ends_after_its_time_is_late_but_has_blocked_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def late(ms: int) -> int:
        await asyncio.sleep(1 + ms / 1000)
        return ms

    async with twin_broker() as broker:
        broker.tool("late", timeout=1.0)(late)
        result = await broker.execute(
            "return await parallel([1, 5, 9, 15, 25, 35, 45], ms => callTool('late', {ms}).catch(e => e.code))"
        )
    assert result.value == ["TOOL_TIMEOUT"] * 7
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@jumping
async def test_a_handler_that_blocks_the_loop_is_late_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def block() -> int:
        loop: Any = asyncio.get_running_loop()
        loop.clock.now += 40  # as a computation of 40 s on the loop
        return 1

    async with twin_broker(tools={"block": block}) as broker:
        result = await broker.execute("try { return await callTool('block') } catch (e) { return e.code }")
    assert result.value == "TOOL_TIMEOUT"
    assert any("block" in record.getMessage() and "event loop" in record.getMessage() for record in caplog.records)


async def test_a_timed_out_thread_is_abandoned_and_the_next_call_works(broker: Broker) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(30)

    broker.tool("hang", timeout=0.05)(hang)
    for _ in range(2):
        result = await within(broker.execute("try { await callTool('hang') } catch (e) { return e.code }"))
        assert result.value == "TOOL_TIMEOUT"
    release.set()


@jumping
async def test_a_result_that_is_too_large_is_an_error_of_its_own() -> None:
    async def blob(size: int) -> str:
        return "x" * size

    async with twin_broker(tools={"blob": blob}, limits=SessionLimits(max_tool_result_bytes=100)) as broker:
        code = "try { return (await callTool('blob', {size: SIZE})).length } catch (e) { return e.code }"
        assert (await broker.execute(code.replace("SIZE", "98"))).value == 98
        assert (await broker.execute(code.replace("SIZE", "99"))).value == "TOOL_RESULT_TOO_LARGE"


@jumping
async def test_a_log_line_that_is_no_json_harms_only_itself() -> None:
    async def talk(context: ToolContext) -> str:
        await context.log("odd", thing=object())
        return "went on"

    async with twin_broker(tools={"talk": talk}) as broker:
        result = await broker.execute("return await callTool('talk')")
    assert (result.value, result.error) == ("went on", None)
