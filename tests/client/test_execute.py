"""What `execute` makes of a stream, and the other questions that a client asks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.server import SessionInfo
from enclave_broker.types.errors import (
    AuthenticationError,
    ClientError,
    ConfigurationError,
    ExecutionError,
    PermissionDeniedError,
    TransportError,
)
from enclave_broker.types.events import FinalEvent
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import CallRecord, ExecutionResult, ScriptError
from enclave_broker.types.wire import UnknownEvent, encode_event
from tests.client.events import AT_ONCE, Make, applied, call, heartbeat, log, logged, run_of, stdout
from tests.client.server import Fault, Log, Response, line_server, lines_of

CALLED = run_of(stdout("one\n"), call("c_1", "orders:get", id=1), log("w"), applied("c_1"), stdout("two\n"))


async def result_of(make: Make, **options: Any) -> ExecutionResult[Any]:
    async with line_server(logged(make)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        return await client.execute("code", **options)


async def test_a_result_has_the_value_what_was_printed_the_calls_and_the_stats() -> None:
    result = await result_of(CALLED)
    assert (result.ok, result.status, result.value, result.error) == (True, "completed", 3, None)
    assert result.stdout == "one\ntwo\n"
    assert [(c.name, c.args) for c in result.calls] == [("orders:get", {"id": 1})]
    assert (result.stats.duration, result.stats.tool_call_count, result.stats.stdout_bytes) == (0.0125, 1, 4)
    assert result.session_id.startswith("s_")
    assert result.raise_for_error() is result


async def test_how_a_call_ended_is_the_servers_record() -> None:
    record = {
        "callId": "c_1",
        "toolName": "orders:get",
        "args": {"id": 1},
        "outcome": "failed",
        "error": {"code": "NO_SUCH_ORDER", "message": "no order 1", "name": "ToolError"},
        "startedAt": 1_700_000_000_000,
        "durationMs": 1.5,
        "argsBytes": 8,
        "resultBytes": 0,
        "byHost": False,
    }

    def script(id: str) -> Log:
        return Log(lines_of(*CALLED(id)), calls=[record, {**record, "callId": "c_of_an_earlier_run"}])

    async with line_server(script) as server, AsyncClient(server.url) as client:
        result = await client.execute("code")
        assert await client.calls(result.session_id) == [*result.calls, *(await client.calls(result.session_id))[1:]]
    assert result.calls == [
        CallRecord(
            id="c_1",
            name="orders:get",
            args={"id": 1},
            outcome="failed",
            error=ScriptError(code="NO_SUCH_ORDER", message="no order 1", name="ToolError"),
            started=1_700_000_000.0,
            duration=0.0015,
            args_bytes=8,
        )
    ]


async def test_a_server_that_keeps_no_records_leaves_it_unknown_how_a_call_ended() -> None:
    make = run_of(call("c_1", "a"), applied("c_1"), call("c_2", "b"))
    async with line_server(logged(make)) as server, AsyncClient(server.url) as client:
        server.answer_instead("GET", "/sessions/s_1/calls", Response(404, {"code": "NOT_FOUND", "message": "no"}))
        result = await client.execute("code", session_id="s_1")
    assert [(c.id, c.outcome) for c in result.calls] == [("c_1", "unknown"), ("c_2", "not_run")]


async def test_a_run_without_calls_is_one_request() -> None:
    async with line_server(logged(run_of())) as server, AsyncClient(server.url) as client:
        assert (await client.execute("return 3")).value == 3
        assert len(server.requests) == 1


async def test_a_failure_has_code_message_name_and_the_place_in_the_script() -> None:
    error = {
        "code": "EXECUTION_ERROR",
        "message": "boom",
        "stack": "RangeError: boom\n    at f (script.js:1:25)\n    at script.js:2:1",
    }
    result = await result_of(run_of(error=error))
    assert (result.ok, result.status, result.value) == (False, "failed", None)
    assert result.error == ScriptError(
        code="EXECUTION_ERROR", message="boom", name="RangeError", line=1, column=25, stack=error["stack"]
    )
    with pytest.raises(ExecutionError, match="boom"):
        result.raise_for_error()


async def test_a_message_that_looks_like_a_frame_is_no_place() -> None:
    message = "x\n    at evil.js:9:9"
    stack = f"Error: {message}\n    at script.js:2:1"
    result = await result_of(run_of(error={"message": message, "code": "X", "stack": stack}))
    assert result.error is not None
    assert (result.error.line, result.error.column) == (2, 1)


async def test_a_failure_that_says_little_is_a_failure_all_the_same() -> None:
    result = await result_of(run_of(error={"message": ""}))
    assert result.error == ScriptError(code="EXECUTION_ERROR", message="the script failed")


async def test_a_cancelled_run_is_cancelled() -> None:
    result = await result_of(run_of(error={"code": "SESSION_CANCELLED", "message": "enough"}))
    assert (result.ok, result.status) == (False, "cancelled")


async def test_a_value_is_checked_against_its_type() -> None:
    assert (await result_of(run_of(result=3), result_type=int)).value == 3
    wrong = await result_of(run_of(result="3"), result_type=int)
    assert (wrong.ok, wrong.value) == (False, None)
    assert wrong.error is not None
    assert wrong.error.code == "VALIDATION_ERROR"


async def test_undefined_is_none() -> None:
    def make(id: str) -> list[Any]:
        return [*run_of()(id)[:1], FinalEvent(session_id=id, seq=2, ok=True)]

    assert (await result_of(make)).value is None


async def test_a_final_that_cannot_be_read_is_an_error() -> None:
    def script(id: str) -> Log:
        final = UnknownEvent(type="final", session_id=id, seq=2, fields={"ok": "yes"})
        return Log([*lines_of(*run_of()(id)[:1]), encode_event(final)])

    async with line_server(script) as server, AsyncClient(server.url) as client:
        with pytest.raises(TransportError, match="the final of session s_1 isn't the protocol's"):
            await client.execute("code", session_id="s_1")


async def test_cancelling_a_wait_for_the_result_cancels_the_run() -> None:
    def script(id: str) -> Log:
        lines = lines_of(*CALLED(id))
        return Log(lines[:1], lines[1:], state="running")

    async with line_server(script) as server, AsyncClient(server.url) as client:
        waiting = asyncio.ensure_future(client.execute("code", session_id="s_1"))
        await server.until_asked("POST", "/sessions")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert server.logs["s_1"].state == "cancelled"


async def test_closing_the_client_waits_until_a_run_that_was_given_up_is_cancelled() -> None:
    def script(id: str) -> Log:
        return Log(lines_of(*CALLED(id))[:1], [b""], state="running")

    async with line_server(script) as server:
        client = AsyncClient(server.url)
        waiting = asyncio.ensure_future(client.execute("code", session_id="s_1"))
        await server.until_asked("POST", "/sessions")
        waiting.cancel()
        await client.aclose()
        assert server.logs["s_1"].state == "cancelled"
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_run_whose_stream_cannot_be_taken_up_is_an_error_that_says_where_it_was() -> None:
    async with (
        line_server(logged(CALLED), [Fault(20)] * 9) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        with pytest.raises(TransportError, match="session s_1 can't be followed") as caught:
            await client.execute("code", session_id="s_1")
        assert caught.value.details == {"sessionId": "s_1", "nextSeq": 1}


# -- other requests ---------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_shown_cancelled_and_destroyed() -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        server.logs["s_1"] = logged(run_of(heartbeat))("s_1")
        info = SessionInfo(
            id="s_1",
            state="completed",
            created_at=datetime.fromtimestamp(1_700_000_000, UTC),
            expires_at=datetime.fromtimestamp(1_700_000_060, UTC),
            duration=1.5,
            tool_call_count=2,
        )
        assert await client.sessions(state="completed", after="s_0", limit=5) == [info]
        assert server.requests[-1].query == {"state": ["completed"], "after": ["s_0"], "limit": ["5"]}
        assert await client.session("s_1") == info
        assert await client.cancel("s_1", "enough")
        assert server.requests[-1].json == {"reason": "enough"}
        await client.destroy("s_1")
        with pytest.raises(ClientError) as caught:
            await client.session("s_1")
        assert (caught.value.code, caught.value.status_code) == ("NOT_FOUND", 404)


async def test_the_tools_of_a_server_are_listed() -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        (tool,) = await client.tools()
    assert (tool.name, tool.service, tool.input_schema) == ("orders:get", "orders", {"type": "object"})


@pytest.mark.parametrize("option", ["api_key", "token"])
async def test_who_asks_goes_with_every_request(option: str) -> None:
    credential: dict[str, Any] = {option: "secret"}
    async with line_server(logged(CALLED)) as server, AsyncClient(server.url, **credential) as client:
        await client.execute("code")
        await client.sessions()
        assert {request.headers.get("authorization") for request in server.requests} == {"Bearer secret"}
        assert "secret" not in repr(vars(client))


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, {"code": "UNAUTHENTICATED", "message": "no"}, AuthenticationError, "UNAUTHENTICATED"),
        (401, b"", AuthenticationError, "UNAUTHENTICATED"),
        (403, {"code": "FORBIDDEN", "message": "no"}, PermissionDeniedError, "FORBIDDEN"),
        (400, {"code": "INVALID_REQUEST", "message": "no", "details": [1]}, ClientError, "INVALID_REQUEST"),
        (500, {"code": "INTERNAL_ERROR", "message": "no"}, ClientError, "INTERNAL_ERROR"),
        (502, b"<html>bad gateway</html>", ClientError, "CLIENT_ERROR"),
        (302, b"", ClientError, "CLIENT_ERROR"),
        (599, b"[1]", ClientError, "CLIENT_ERROR"),
        (418, {"code": 7, "message": {}}, ClientError, "CLIENT_ERROR"),
        (503, b"\xff" * 200_000, ClientError, "CLIENT_ERROR"),
    ],
)
async def test_a_refusal_carries_the_wires_code_and_its_status(
    status: int, body: Any, kind: type[ClientError], code: str
) -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        refusal = Response(status, body, {"location": "http://127.0.0.1:1/"})
        server.answer_instead("GET", "/code/actions", refusal)
        server.answer_instead("POST", "/sessions", refusal)
        with pytest.raises(kind) as caught:
            await client.tools()
        assert type(caught.value) is kind
        assert (caught.value.code, caught.value.status_code) == (code, status)
        with pytest.raises(kind):
            await client.execute("code")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"actions":[{}]}', b"{", b'{"actions":[{"name":1}]}', b"\xff"])
async def test_an_answer_that_is_not_the_protocols_is_an_error(body: bytes) -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        server.answer_instead("GET", "/code/actions", Response(200, body))
        with pytest.raises(ClientError, match="the answer to GET /code/actions isn't the protocol's"):
            await client.tools()


async def test_a_time_that_no_calendar_has_is_an_error() -> None:
    body = {"sessionId": "s_1", "state": "running", "createdAt": 1e300, "expiresAt": 0}
    async with line_server() as server, AsyncClient(server.url) as client:
        server.answer_instead("GET", "/sessions/s_1", Response(200, body))
        with pytest.raises(ClientError, match="no calendar"):
            await client.session("s_1")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:8000", "begins with http://"),
        ("ftp://x", "begins with http://"),
        ("http://", "begins with http://"),
        ("http://h:0", "begins with http://"),
        ("http://h:x", "no URL"),
        ("http://h:99999", "no URL"),
        ("http://[::1", "no URL"),
        ("http://key@h", "keys go to api_key="),
        ("http://h?a=b", "no query"),
        ("http://h/#x", "no fragment"),
    ],
)
def test_a_url_that_is_none_of_a_broker_is_refused_at_once(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        AsyncClient(url)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "a", "token": "b"},
        {"api_key": "a\nb"},
        {"token": ""},
        {"token": "ü"},
        {"timeout": 0},
        {"timeout": "5"},
        {"encryption": "required"},
        {"principal": Principal("ann")},
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        AsyncClient("http://h", **options)


def test_a_target_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="a URL, a Broker or an ASGI application"):
        AsyncClient(7)  # type: ignore[arg-type]


async def test_a_url_may_have_a_path_where_the_broker_is_mounted() -> None:
    async with line_server() as server, AsyncClient(f"{server.url}/enclave/") as client:
        with pytest.raises(ClientError):
            await client.tools()
        assert server.requests[0].path == "/enclave/code/actions"


async def test_the_environments_proxy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with line_server() as server, AsyncClient(server.url) as client:
        assert len(await client.tools()) == 1
