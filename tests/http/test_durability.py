"""With a store that is slow or fails: nothing is said before it can't be lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from enclave_broker.broker.http.timing import Timing
from enclave_broker.broker.store.memory import MemoryStore
from enclave_broker.broker.store.store import Appended
from tests.http.live import Live, final, memory_broker, read_until, refusal, request_bytes, serving


class HeldStore(MemoryStore):
    """Writes while `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.waiting = 0

    async def append(self, batches: Sequence[Appended], owner: str) -> None:
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        await super().append(batches, owner)


@pytest.fixture
def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
def held(store: HeldStore, gate: asyncio.Event) -> Iterator[Live]:
    broker = memory_broker(store=store)

    @broker.tool("wait")
    async def wait() -> None:
        await gate.wait()

    with serving(broker) as running:
        yield running
        running.do(store.open.set)


def answers(live: Live) -> int:
    """How many requests have at least the head of their answer."""
    connections: list[Any] = list(live.server.server_state.connections)
    return sum(connection.cycle is not None and connection.cycle.response_started for connection in connections)


def test_post_sessions_is_answered_when_the_session_is_durable(held: Live, store: HeldStore) -> None:
    with held.socket() as connection:
        connection.sendall(request_bytes("POST", "/sessions", json.dumps({"code": "return 1"}).encode()))
        held.until(lambda: store.waiting)
        assert held.do(lambda: answers(held)) == 0
        held.do(store.open.set)
        assert b'"type":"final"' in read_until(connection, b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(("method", "rest"), [("POST", "/cancel"), ("DELETE", "")])
def test_what_was_changed_is_answered_when_it_is_durable(held: Live, store: HeldStore, method: str, rest: str) -> None:
    held.do(store.open.set)
    with held.streaming("await new Promise((done) => setTimeout(done, 60000))", sessionId="s_mine") as stream:
        stream.next()
        held.do(store.open.clear)
        with held.socket() as connection:
            connection.sendall(request_bytes(method, f"/sessions/s_mine{rest}"))
            held.until(lambda: store.waiting)
            assert held.do(lambda: answers(held)) == 1  # the stream
            held.do(store.open.set)
            assert b'{"success":true' in read_until(connection, b"}")
        assert stream.next("final")["payload"]["error"]["code"] == "SESSION_CANCELLED"


def test_a_tool_result_is_answered_when_it_is_durable(store: HeldStore) -> None:
    broker = memory_broker(store=store)
    broker.client_tool("ask", args=dict[str, int])
    with serving(broker) as live:
        live.do(store.open.set)
        with live.streaming("return await tools.ask({})", sessionId="s_mine") as stream:
            call_id = stream.next("tool_call")["payload"]["callId"]
            live.until(lambda: live.session("s_mine").log.is_durable)
            live.do(store.open.clear)
            with live.socket() as connection:
                body = json.dumps({"callId": call_id, "ok": True, "result": 7}).encode()
                connection.sendall(request_bytes("POST", "/sessions/s_mine/tool-result", body))
                live.until(lambda: store.waiting)
                assert live.do(lambda: answers(live)) == 1  # the stream
                live.do(store.open.set)
                assert b'{"success":true' in read_until(connection, b"}")
            assert stream.next("final")["payload"]["result"] == 7


def go_on_unwritten(live: Live, store: HeldStore, gate: asyncio.Event, id: str) -> None:
    """The tool `wait` returns and the script runs to its end, while the store writes nothing."""
    live.until(lambda: live.session(id).log.is_durable)
    live.do(store.open.clear)
    live.do(gate.set)
    live.until(lambda: (execution := live.session(id).execution) is not None and execution.over)
    assert not live.do(lambda: live.session(id).log.is_durable)


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_a_stream_has_what_is_durable_and_no_more(
    held: Live, store: HeldStore, gate: asyncio.Event, accept: str
) -> None:
    held.do(store.open.set)
    code = "console.log('before'); await tools.wait({}); console.log('after')"
    with held.streaming(code, {"Accept": accept}, sessionId="s_mine") as posted, held.socket() as connection:
        lines = posted.response.iter_lines()
        assert any('"tool_call"' in line for line in lines)
        go_on_unwritten(held, store, gate, "s_mine")
        connection.sendall(request_bytes("GET", "/sessions/s_mine/stream", b"", f"Accept: {accept}"))
        got = read_until(connection, b'"phase":"processing"')
        assert b'"type":"tool_result_applied"' not in got
        held.do(store.open.set)
        got += read_until(connection, b'"type":"final"')
        assert b"after" in got
        assert any("after" in line for line in lines)


def test_the_calls_of_a_session_are_told_as_far_as_they_are_durable(
    held: Live, store: HeldStore, gate: asyncio.Event
) -> None:
    held.do(store.open.set)
    with held.streaming("await tools.wait({}); await tools.none({})", sessionId="s_mine") as stream:
        stream.next("tool_call")
        go_on_unwritten(held, store, gate, "s_mine")
        calls = held.client.get("/sessions/s_mine/calls").json()["calls"]
        assert [(call["toolName"], call["outcome"]) for call in calls] == [("wait", "waiting")]
        held.do(store.open.set)
        stream.next("final")
        calls = held.client.get("/sessions/s_mine/calls").json()["calls"]
        assert [(call["toolName"], call["outcome"]) for call in calls] == [("wait", "done"), ("none", "denied")]


def test_a_store_that_does_not_write_is_told_and_the_request_can_come_again(store: HeldStore) -> None:
    with serving(memory_broker(store=store), timing=Timing(durable=0.05)) as live:
        response = live.post("return 1", sessionId="s_mine")
        assert refusal(response) == (503, "OVERLOADED")
        assert response.headers["retry-after"] == "5"
        live.do(store.open.set)
        assert final(live.post("return 1", sessionId="s_mine"))["result"] == 1
