"""Tools that the client executes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.types.errors import ConfigurationError, ToolError
from tests.client.events import AT_ONCE, applied, call, logged, run_of
from tests.client.server import Log, Response, line_server, lines_of

ASKING = run_of(call("c_1", "ui:ask", question="ok?"), applied("c_1"))


def asking(id: str) -> Log:
    """A run that goes on when the call has been answered."""
    lines = lines_of(*ASKING(id))
    return Log(lines[:2], lines[2:], state="waiting_for_tool")


async def answer_of(function: Callable[..., Any]) -> Any:
    async with line_server(asking) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        client.tool("ui:ask")(function)
        assert (await client.execute("code", session_id="s_1")).ok
        (answer,) = server.logs["s_1"].answers
        return answer


@dataclass
class Reply:
    text: str


async def test_the_result_of_a_function_is_what_the_server_gets() -> None:
    async def ask(question: str) -> Reply:
        return Reply(question.upper())

    assert await answer_of(ask) == {"callId": "c_1", "ok": True, "result": {"text": "OK?"}}


async def test_a_plain_function_runs_in_a_thread() -> None:
    def ask(question: str) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert (await answer_of(ask))["result"] is False


async def test_a_parameter_named_args_is_the_whole_object() -> None:
    def ask(args: dict[str, str]) -> dict[str, str]:
        return args

    assert (await answer_of(ask))["result"] == {"question": "ok?"}


def answering(value: Any) -> Callable[..., Any]:
    def ask(question: str) -> Any:
        return value

    return ask


async def test_none_is_null_and_no_number_is_null() -> None:
    assert (await answer_of(answering(None)))["result"] is None
    assert (await answer_of(answering([float("nan")])))["result"] == [None]


async def test_a_tool_error_reaches_the_script_with_its_code() -> None:
    def ask(question: str) -> None:
        raise ToolError("they said no", code="REFUSED", details={"by": "ann"})

    error = {"message": "they said no", "code": "REFUSED", "details": {"by": "ann"}}
    assert await answer_of(ask) == {"callId": "c_1", "ok": False, "error": error}


async def test_a_code_of_the_wire_is_not_a_tools_to_give() -> None:
    def ask(question: str) -> None:
        raise ToolError("x", code="MAX_TOOL_CALLS")

    assert (await answer_of(ask))["error"]["code"] == "EXECUTION_ERROR"


def raising(question: str) -> None:
    raise ZeroDivisionError


def misfitting(wrong: str) -> None:
    pass


@pytest.mark.parametrize(
    "function",
    [raising, misfitting, answering(object()), answering("\ud800")],
    ids=["it raises", "it takes other arguments", "its result is no JSON", "its result is half a character"],
)
async def test_any_other_failure_is_logged_whole_and_told_by_an_error_id(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_of(function)
    assert answer["error"]["code"] == "EXECUTION_ERROR"
    message = answer["error"]["message"]
    assert message.startswith("tool ui:ask failed (error id ")
    assert message in caplog.text
    assert "Traceback" in caplog.text
    assert "ZeroDivision" not in message


async def test_a_tool_that_is_not_the_clients_is_left_alone() -> None:
    async with line_server(logged(ASKING)) as server, AsyncClient(server.url) as client:
        client.tool("ui:other")(lambda: None)
        await client.execute("code", session_id="s_1")
        assert server.logs["s_1"].answers == []


async def test_an_answer_that_got_lost_is_sent_again_and_the_tool_runs_once() -> None:
    runs: list[str] = []

    def ask(question: str) -> str:
        runs.append(question)
        return "yes"

    async with line_server(asking) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        client.tool("ui:ask")(ask)
        server.answer_instead("POST", "/sessions/s_1/tool-result", Response(reset=True), Response(reset=True))
        assert (await client.execute("code", session_id="s_1")).ok
        assert runs == ["ok?"]
        bodies = [request.body for request in server.asked("POST", "/tool-result")]
        assert bodies == bodies[:1] * 3


async def test_a_result_that_the_server_refuses_becomes_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with line_server(asking) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        client.tool("ui:ask")(answering("x" * 1000))
        too_large = Response(413, {"code": "PAYLOAD_TOO_LARGE", "message": "5 bytes are the most"})
        server.answer_instead("POST", "/sessions/s_1/tool-result", too_large)
        assert (await client.execute("code", session_id="s_1")).ok
        (answer,) = server.logs["s_1"].answers
        assert (answer["ok"], answer["error"]["code"]) == (False, "TOOL_RESULT_TOO_LARGE")


async def test_an_answer_that_comes_too_late_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "enclave_broker.client")
    async with line_server(asking) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:

        @client.tool("ui:ask")
        def ask(question: str) -> str:
            return "late"

        conflict = Response(409, {"code": "SESSION_CLOSED", "message": "it is over"})
        server.answer_instead("POST", "/sessions/s_1/tool-result", conflict)
        stream = client.stream("code", session_id="s_1")
        seen = [await anext(stream), await anext(stream)]
        await server.until_asked("POST", "/tool-result")
        server.logs["s_1"].release()
        seen += [event async for event in stream]
        assert seen == list(ASKING("s_1"))
        assert server.logs["s_1"].answers == []


async def test_a_tool_that_still_runs_when_its_call_has_an_outcome_is_cancelled() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def ask(question: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with line_server(asking) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        client.tool("ui:ask")(ask)
        running = asyncio.ensure_future(client.execute("code", session_id="s_1"))
        await begun.wait()
        server.logs["s_1"].release()
        assert (await running).ok
        assert cancelled.is_set()
        assert server.logs["s_1"].answers == []


async def test_attaching_runs_tools_only_when_told_to_and_only_those_that_wait() -> None:
    make = run_of(call("c_0", "ui:ask", question="old"), applied("c_0"), call("c_1", "ui:ask", question="new"))
    lines = lines_of(*make("s_1"))
    asked: list[str] = []

    def remember(question: str) -> None:
        asked.append(question)

    records: list[Any] = [
        {"callId": id, "toolName": "ui:ask", "args": {}, "outcome": outcome}
        for id, outcome in (("c_0", "done"), ("c_1", "waiting"))
    ]
    async with line_server() as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        client.tool("ui:ask")(remember)
        server.logs["s_1"] = Log(lines)
        assert len([event async for event in client.attach("s_1")]) == 5
        assert asked == []
        server.logs["s_1"] = Log(lines[:4], lines[4:], calls=records, state="waiting_for_tool")
        assert len([event async for event in client.attach("s_1", run_tools=True)]) == 5
        assert asked == ["new"]


def test_a_name_is_taken_once_and_is_one() -> None:
    client = AsyncClient("http://localhost")

    @client.tool("ui:ask")
    def ask() -> None:
        """Is given back as it is."""

    assert ask() is None
    with pytest.raises(ConfigurationError, match="has a tool 'ui:ask' already"):
        client.tool("ui:ask")
    with pytest.raises(ConfigurationError, match="needs its name"):
        client.tool(ask)  # type: ignore[arg-type]
