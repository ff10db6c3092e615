from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import Broker, EnclaveError, ToolCall, ToolError
from enclave_broker.types.events import Event
from tests.broker.sessions.support import twin_broker, within

CODE = "return await callTool('users:get', {id: 7})"


def counting(runs: list[Any]) -> Any:
    async def get_user(args: dict[str, Any]) -> dict[str, Any]:
        runs.append(args)
        return {"id": args["id"], "name": "Alice"}

    return get_user


async def test_a_listener_executes_the_call_and_what_it_sends_is_the_answer() -> None:
    runs: list[Any] = []
    async with twin_broker(tools={"users:get": counting(runs)}) as broker:
        session = await broker.create_session()

        @session.on("tool_call")
        async def _(call: ToolCall) -> None:
            result = await broker.execute_tool_call(session.id, call)
            assert session.send({"type": "tool_result", "id": call.id, "data": {**result, "name": "Alicia"}}) is True
            assert session.send({"type": "tool_result", "id": call.id, "data": 2}) is False

        assert (await session.execute(CODE)).value == {"id": 7, "name": "Alicia"}
    assert runs == [{"id": 7}]


async def test_a_listener_that_executes_without_sending_leaves_the_handlers_result() -> None:
    runs: list[Any] = []
    async with twin_broker(tools={"users:get": counting(runs)}) as broker:
        session = await broker.create_session()

        async def listen(call: ToolCall) -> None:
            one, two = await asyncio.gather(*(broker.execute_tool_call(session.id, call) for _ in range(2)))
            assert one == two == {"id": 7, "name": "Alice"}

        session.on("tool_call", listen)
        assert (await session.execute(CODE)).value == {"id": 7, "name": "Alice"}
    assert runs == [{"id": 7}]


@pytest.mark.parametrize("raises", [False, True])
async def test_a_listener_that_only_watches_or_fails_leaves_the_call_to_the_broker(*, raises: bool) -> None:
    seen: list[str] = []
    async with twin_broker(tools={"users:get": counting([])}) as broker:
        session = await broker.create_session()

        def watch(call: ToolCall) -> None:
            seen.append(call.name)
            if raises:
                raise SystemExit

        session.on("tool_call", watch)
        assert (await session.execute(CODE)).value == {"id": 7, "name": "Alice"}
    assert seen == ["users:get"]


async def test_a_listener_never_sees_a_call_that_the_policy_refuses() -> None:
    seen: list[str] = []
    async with twin_broker(tools={"users:get": counting([])}) as broker:
        session = await broker.create_session(allowed_tools=["other:*"])
        session.on("tool_call", lambda call: seen.append(call.name))
        result = await session.execute(CODE)
    assert (result.error and result.error.code, seen) == ("TOOL_NOT_ALLOWED", [])


async def test_with_manual_dispatch_the_broker_starts_nothing() -> None:
    runs: list[Any] = []
    async with twin_broker(tools={"users:get": counting(runs)}) as broker:
        session = await broker.create_session(dispatch="manual")
        asked: asyncio.Future[ToolCall] = asyncio.get_running_loop().create_future()
        session.on("tool_call", asked.set_result)
        running = asyncio.ensure_future(session.execute(CODE))
        call = await within(asked)
        assert await session.answer(call.id, "by hand") is True
        assert (await within(running)).value == "by hand"
    assert runs == []


async def test_an_error_that_is_sent_is_what_the_script_catches() -> None:
    async with twin_broker(tools={"users:get": counting([])}) as broker:
        session = await broker.create_session()

        def refuse(call: ToolCall) -> None:
            error = {"code": "NO_SUCH_USER", "message": "who?"}
            session.send({"type": "tool_result", "id": call.id, "error": error})

        session.on("tool_call", refuse)
        result = await session.execute(
            "try { await callTool('users:get', {}) } catch (e) { return [e.code, e.message] }"
        )
    assert result.value == ["NO_SUCH_USER", "who?"]


@pytest.mark.parametrize("message", [{}, {"type": "tool_result"}, {"type": "tool_result", "id": "c_1"}, 5])
async def test_a_message_that_is_no_answer_is_refused(message: Any) -> None:
    async with twin_broker() as broker:
        session = await broker.create_session()
        with pytest.raises(ValueError, match="tool_result"):
            session.send(message)


async def test_an_answer_to_a_call_that_nobody_made_is_an_error_with_a_code() -> None:
    async with twin_broker() as broker:
        session = await broker.create_session()
        with pytest.raises(EnclaveError) as refused:
            session.send({"type": "tool_result", "id": "c_never", "data": 1})
    assert refused.value.code == "UNKNOWN_CALL"


async def test_other_events_reach_their_listeners() -> None:
    seen: list[Event] = []
    async with twin_broker() as broker:
        session = await broker.create_session()
        session.on("stdout", seen.append)
        with pytest.raises(ValueError, match="no events of type"):
            session.on("nothing", seen.append)
        await session.execute("console.log('a'); console.warn('b')")
        await session.cancel()
    assert [event.type for event in seen] == ["stdout"]


async def test_a_clients_tool_waits_for_its_answer_and_only_its_answer(broker: Broker) -> None:
    broker.client_tool("ask", args=dict[str, str], result=str)
    session = await broker.create_session()
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def note(event: Any) -> None:
        if event.phase == "processing":
            asked.set_result(event.call_id)

    session.on("tool_progress", note)
    running = asyncio.ensure_future(session.execute("return await callTool('ask', {question: 'why?'})"))
    call_id = await within(asked)
    assert session.answer_nowait(call_id, True, "because") is True
    assert (await within(running)).value == "because"
    assert session.answer_nowait(call_id, False, ToolError("late")) is False
