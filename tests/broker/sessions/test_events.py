from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from enclave_broker import (
    Broker,
    Session,
    StdoutEvent,
    ToolCallEvent,
    ToolContext,
    ToolError,
    ToolProgressEvent,
)
from enclave_broker.broker.sessions.host import Sources
from enclave_broker.types.events import Event
from tests.broker.sessions.support import (
    EPOCH,
    Chance,
    check_log,
    events_of,
    jumping,
    loop_sources,
    twin_broker,
    within,
)


async def double(n: int) -> int:
    return 2 * n


async def refuse() -> None:
    raise ToolError("no more", code="REFUSED", details={"left": 0})


TOOLS = {"double": double, "refuse": refuse}


async def told(code: str, **options: Any) -> list[Event]:
    """Every event of one run of `code`."""
    events: list[Event] = []
    async with twin_broker(tools=TOOLS, **options) as broker:
        await broker.execute(code, on_event=events.append)
    return events


def wire(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, event.payload()) for event in events]


@jumping
async def test_a_call_shows_as_call_connecting_processing_applied_between_init_and_final() -> None:
    events = await told("console.log('before'); const n = await callTool('double', {n: 21}); return n")
    call = events[2]
    assert isinstance(call, ToolCallEvent)
    assert call.call_id.startswith("c_")
    id = {"callId": call.call_id}
    expires = datetime.fromtimestamp(EPOCH + 1000 + 60, UTC).isoformat(timespec="milliseconds")
    assert wire(events) == [
        (
            "session_init",
            {
                "cancelUrl": f"/sessions/{call.session_id}/cancel",
                "expiresAt": expires.replace("+00:00", "Z"),
                "encryption": {"enabled": False},
            },
        ),
        ("stdout", {"chunk": "before\n"}),
        ("tool_call", {**id, "toolName": "double", "args": {"n": 21}}),
        ("tool_progress", {**id, "phase": "connecting", "elapsedMs": 0.0}),
        ("tool_progress", {**id, "phase": "processing", "elapsedMs": 0.0}),
        ("tool_result_applied", id),
        ("final", {"ok": True, "result": 42, "stats": {"durationMs": 0.0, "toolCallCount": 1, "stdoutBytes": 7}}),
    ]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6, 7]


@jumping
async def test_every_event_crosses_the_wire_as_json_in_one_envelope() -> None:
    for event in await told("console.error('e'); await callTool('double', {n: 1})"):
        assert json.loads(json.dumps(event.to_wire())) == event.to_wire()
        assert list(event.to_wire()) == ["protocolVersion", "sessionId", "seq", "type", "payload"]
        assert event.to_wire()["protocolVersion"] == 2


@jumping
async def test_a_failed_call_is_applied_too() -> None:
    events = await told("try { await callTool('refuse') } catch (e) { return [e.code, e.message, e.details.left] }")
    assert [event.type for event in events] == [
        "session_init",
        "tool_call",
        "tool_progress",
        "tool_progress",
        "tool_result_applied",
        "final",
    ]
    assert events[-1].payload()["result"] == ["REFUSED", "no more", 0]


@pytest.mark.parametrize(
    ("name", "args"), [("nothing", "{}"), ("no name", "{}"), ("double", "{n: 'x'}"), ("double", "{}"), ("", "{}")]
)
@jumping
async def test_a_call_that_is_refused_before_its_handler_has_no_processing(name: str, args: str) -> None:
    events = await told(f"try {{ await callTool({json.dumps(name)}, {args}) }} catch (e) {{ return e.code }}")
    assert [event.payload().get("phase") or event.type for event in events] == [
        "session_init",
        "tool_call",
        "connecting",
        "tool_result_applied",
        "final",
    ]


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        ("return undefined", {}),
        ("", {}),
        ("return null", {"result": None}),
        ("return 0", {"result": 0}),
        ("return false", {"result": False}),
        ("return ''", {"result": ""}),
        ("({a: 1})", {"result": {"a": 1}}),
    ],
)
@jumping
async def test_a_final_has_a_result_unless_it_is_undefined(code: str, payload: dict[str, Any]) -> None:
    final = (await told(code))[-1].payload()
    del final["stats"]
    assert final == {"ok": True, **payload}


@jumping
async def test_a_failed_final_has_error_and_stats_and_no_result() -> None:
    final = (await told("console.log('x'); throw new RangeError('too much')"))[-1].payload()
    stack = final["error"].pop("stack")
    assert "1:" in stack
    assert final == {
        "ok": False,
        "error": {"message": "too much", "code": "EXECUTION_ERROR"},
        "stats": {"durationMs": 0.0, "toolCallCount": 0, "stdoutBytes": 2},
    }


@jumping
async def test_console_log_and_info_are_stdout_and_the_rest_are_log_lines() -> None:
    events = await told("for (const f of ['log', 'info', 'debug', 'warn', 'error']) console[f](f, {a: 1}, 2)")
    assert wire(events[1:-1]) == [
        ("stdout", {"chunk": "log { a: 1 } 2\n"}),
        ("stdout", {"chunk": "info { a: 1 } 2\n"}),
        ("log", {"level": "debug", "message": "debug { a: 1 } 2"}),
        ("log", {"level": "warn", "message": "warn { a: 1 } 2"}),
        ("log", {"level": "error", "message": "error { a: 1 } 2"}),
    ]


@jumping
async def test_an_unawaited_rejection_is_a_warning_and_no_failure() -> None:
    events = await told("Promise.reject(new Error('lost')); return 1")
    assert [event.type for event in events] == ["session_init", "log", "final"]
    assert events[1].payload()["level"] == "warn"
    assert "lost" in events[1].payload()["message"]
    assert events[-1].payload()["result"] == 1


@jumping
async def test_calls_of_one_step_are_asked_for_in_order_and_each_has_its_own_id() -> None:
    events = await told("return await Promise.all([1, 2, 3].map(n => callTool('double', {n})))")
    calls = [event for event in events if isinstance(event, ToolCallEvent)]
    assert [call.args["n"] for call in calls] == [1, 2, 3]
    assert len({call.call_id for call in calls}) == 3
    assert events[-1].payload()["result"] == [2, 4, 6]
    for call in calls:
        mine = [event for event in events if getattr(event, "call_id", "") == call.call_id]
        assert [event.payload().get("phase") or event.type for event in mine] == [
            "tool_call",
            "connecting",
            "processing",
            "tool_result_applied",
        ]


async def slow(context: ToolContext) -> str:
    for done in range(100):
        await context.progress(done, 100)
        await asyncio.sleep(0.01)
    return "done"


@jumping
async def test_a_handlers_progress_is_at_most_one_event_in_100_ms() -> None:
    events: list[Event] = []
    at: list[float] = []
    loop = asyncio.get_running_loop()

    def note(event: Event) -> None:
        events.append(event)
        at.append(loop.time())

    async with twin_broker(tools={"slow": slow}) as broker:
        await broker.execute("await callTool('slow')", on_event=note)
    said = [(event, when) for event, when in zip(events, at, strict=True) if getattr(event, "phase", "") == "receiving"]
    assert 9 <= len(said) <= 11
    assert all(after - before >= 0.1 - 1e-3 for (_, before), (_, after) in itertools.pairwise(said))
    done: list[int] = []
    for event, when in said:
        assert isinstance(event, ToolProgressEvent)
        assert event.bytes_received is not None
        assert event.total_bytes == 100
        assert event.elapsed_ms == pytest.approx((when - 1000.0) * 1000, abs=5)
        done.append(event.bytes_received)
    assert done == sorted(done)


@jumping
async def test_progress_without_total_has_none_on_the_wire() -> None:
    async def once(context: ToolContext) -> None:
        await context.progress(5)

    events: list[Event] = []
    async with twin_broker(tools={"once": once}) as broker:
        await broker.execute("await callTool('once')", on_event=events.append)
    (receiving,) = [event.payload() for event in events if getattr(event, "phase", "") == "receiving"]
    assert receiving["bytesReceived"] == 5
    assert "totalBytes" not in receiving


@jumping
async def test_a_handlers_log_line_is_a_log_event_with_its_data() -> None:
    async def talk(context: ToolContext) -> None:
        shared = {"row": 1}
        await context.log("seen", "warn", order=shared)
        shared["row"] = 2
        await context.log("fine")

    events: list[Event] = []
    async with twin_broker(tools={"talk": talk}) as broker:
        await broker.execute("await callTool('talk')", on_event=events.append)
    assert wire([event for event in events if event.type == "log"]) == [
        ("log", {"level": "warn", "message": "seen", "data": {"order": {"row": 1}}}),
        ("log", {"level": "info", "message": "fine"}),
    ]


@jumping
async def test_the_first_event_is_session_init_even_when_the_host_calls_first() -> None:
    async with twin_broker(tools=TOOLS) as broker, await broker.create_session() as session:
        assert await broker.execute_tool_call(session.id, {"name": "double", "args": {"n": 2}}) == 4
        await session.execute("return 1")
        assert events_of(session)[0].type == "session_init"
        check_log(session.log.records)


@jumping
async def test_readers_join_at_any_time_and_all_read_the_same() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    async def read(session: Session, from_seq: int = 1) -> list[Event]:
        return [event async for event in session.events(from_seq)]

    async with twin_broker(tools={"wait": wait}) as broker, await broker.create_session() as session:
        early = asyncio.ensure_future(read(session))
        run = asyncio.ensure_future(session.execute("console.log('a'); await callTool('wait'); return 1"))
        async for event in session.events():
            if getattr(event, "phase", "") == "processing":
                break
        joined = asyncio.ensure_future(read(session))
        resumed = asyncio.ensure_future(read(session, 3))
        await asyncio.sleep(0)
        gate.set()
        await run
        whole = await read(session)
        assert await early == await joined == whole
        assert await resumed == whole[2:]
        assert await read(session, len(whole)) == whole[-1:]
        assert isinstance(whole[1], StdoutEvent)


@jumping
async def test_a_stream_ends_at_the_first_final_at_or_after_its_start() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        await session.execute("return 1")
        first = [event async for event in session.events()]
        await session.execute("console.log('again'); return 2")
        assert [event async for event in session.events()] == first
        second = [event async for event in session.events(len(first) + 1)]
        assert [event.type for event in second] == ["stdout", "final"]
        assert [event.seq for event in second] == [len(first) + 1, len(first) + 2]
        await session.cancel()
        assert [event async for event in session.all_events()] == first + second


@jumping
async def test_a_stream_of_a_session_that_is_closed_before_it_ran_ends() -> None:
    async with twin_broker() as broker:
        session = await broker.create_session()
        reader = asyncio.ensure_future(anext(session.events(), None))
        await asyncio.sleep(0)
        await broker.sessions.destroy(session.id)
        assert await within(reader) is None


async def test_events_of_a_real_worker_are_the_same(broker: Broker) -> None:
    broker.tool("double")(double)
    events: list[Event] = []
    await broker.execute("console.log(1); return await callTool('double', {n: 4})", on_event=events.append)
    assert [event.payload().get("phase") or event.type for event in events] == [
        "session_init",
        "stdout",
        "tool_call",
        "connecting",
        "processing",
        "tool_result_applied",
        "final",
    ]
    assert [event.seq for event in events] == list(range(1, 8))


@jumping
async def test_what_a_reader_does_to_an_event_changes_nothing_in_the_log() -> None:
    async with twin_broker(tools=TOOLS) as broker, await broker.create_session() as session:
        result = await session.execute("await callTool('double', {n: 21}); return {list: [1]}")
        result.value["list"].append("the reader's")
        result.calls[0].args["n"] = "the reader's"
        async for event in session.events():
            if isinstance(event, ToolCallEvent):
                event.args["n"] = "the reader's"
        again = await session.wait()
        assert (again.value, again.calls[0].args) == ({"list": [1]}, {"n": 21})


@jumping
async def test_time_on_the_wire_comes_from_the_sources() -> None:
    sources = Sources(now=lambda: 0.0, random=Chance())
    events = await told("return Date.now()", sources=sources)
    assert events[0].payload()["expiresAt"] == "1970-01-01T00:01:00.000Z"
    assert events[-1].payload()["result"] == 0
    assert events[0].session_id == (await told("", sources=loop_sources()))[0].session_id
