"""What is taken away in mid-stream: the session, its worker, the server. Each stream has its end all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request

from enclave_broker import Broker, Principal
from enclave_broker.runtime.pool import ProcessPool
from tests.http.cut import answer_of
from tests.http.live import SECONDS, Live, final, read_all, read_until, refusal, request_bytes, serving
from tests.http.served import WAIT as SERVED_WAIT
from tests.http.served import served

WAIT = "return await tools.wait({})"


def begin(code: str, id: str, *headers: str) -> bytes:
    return request_bytes("POST", "/sessions", json.dumps({"code": code, "sessionId": id}).encode(), *headers)


def final_of(raw: bytes) -> dict[str, Any]:
    """The payload of the last event of an answer that has come to its end, as NDJSON or SSE."""
    answer = answer_of(raw)
    assert answer is not None
    assert answer.whole, raw
    *_, last = [json.loads(line.removeprefix(b"data: ")) for line in answer.body.splitlines() if b"{" in line]
    assert answer.body.count(b'"type":"final"') == 1
    assert last["type"] == "final"
    return last["payload"]


# -- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_open_stream_with_its_final_and_its_last_chunk(tmp_path: Path, number: int) -> None:
    asked = [
        begin(SERVED_WAIT, "s_1"),
        begin(SERVED_WAIT, "s_1"),
        begin(SERVED_WAIT, "s_2", "Accept: text/event-stream"),
        request_bytes("GET", "/sessions/s_1/stream"),
        request_bytes("GET", "/sessions/s_2/stream?from=2", b"", "Accept: text/event-stream"),
        *[begin(SERVED_WAIT, f"s_{id}") for id in range(3, 33)],
    ]
    with served(tmp_path) as server, ExitStack() as stack:
        address = ("127.0.0.1", httpx.URL(server.url).port or 0)
        connections: list[socket.socket] = []
        heads: list[bytes] = []
        for request in asked:
            connections.append(stack.enter_context(socket.create_connection(address, SECONDS)))
            connections[-1].sendall(request)
            heads.append(read_until(connections[-1], b'"type":"tool_call"'))
        server.process.send_signal(number)
        for connection, head in zip(connections, heads, strict=True):
            assert final_of(head + read_all(connection))["error"]["code"] == "SHUTTING_DOWN"
        assert server.wait() == 0
        assert len(server.said) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


# -- a worker --------------------------------------------------------------------------------------------------------


async def by_tenant(request: Request) -> Principal:
    return Principal("ada", tenant=request.headers["x-tenant"])


def pool_of(live: Live) -> ProcessPool:
    return cast("Any", live.broker)._life.running.host.runtime


def test_a_worker_that_is_killed_in_mid_call_ends_its_sessions_and_nobody_elses() -> None:
    broker, gate = Broker(), asyncio.Event()

    @broker.tool("wait", effect="read")
    async def wait() -> str:
        await gate.wait()
        return "waited"

    mine, others = {"X-Tenant": "a"}, {"X-Tenant": "b"}
    with (
        serving(broker, auth=by_tenant) as live,
        live.streaming(WAIT, mine, sessionId="s_1") as first,
        live.streaming(WAIT, mine, sessionId="s_2") as second,
        live.streaming(WAIT, others, sessionId="s_1") as third,
    ):
        for stream in (first, second, third):
            stream.next("tool_call")
        pids = live.do(
            lambda: [worker.pid for worker in pool_of(live).workers if worker.key and worker.key.tenant == "a"]
        )
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for stream in (first, second):
            *_, last = stream.rest()
            assert last["payload"]["error"]["code"] == "RUNTIME_LOST"
            assert "wait (c_" in last["payload"]["error"]["message"], "it names the call that is in doubt"
        live.do(gate.set)
        assert third.next("final")["payload"]["result"] == "waited"
        assert final(live.post("return 1", mine))["result"] == 1
        assert live.client.get("/sessions/s_1", headers=mine).json()["state"] == "failed"


# -- the session -----------------------------------------------------------------------------------------------------


def test_a_session_that_many_delete_in_mid_run_is_deleted_once(live: Live) -> None:
    def delete(_: int) -> tuple[int, str]:
        with httpx.Client(base_url=live.url, timeout=SECONDS) as client:
            response = client.delete("/sessions/s_1")
        return (200, "") if response.status_code == 200 else refusal(response)

    with live.streaming(WAIT, sessionId="s_1") as first, live.following_when_there("s_1") as second:
        for stream in (first, second):
            stream.next("tool_call")
        with ThreadPoolExecutor(8) as threads:
            answers = sorted(threads.map(delete, range(8)))
        assert answers == [(200, "")] + [(404, "NOT_FOUND")] * 7
        for stream in (first, second):
            *_, last = stream.rest()
            assert last["payload"]["error"]["code"] == "SESSION_CANCELLED"
    live.until(lambda: not live.server.server_state.tasks)


def test_a_deleted_id_can_be_begun_anew_while_its_readers_still_read(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT, sessionId="s_1") as old:
        old.next("tool_call")
        live.client.delete("/sessions/s_1")
        with live.streaming(WAIT, sessionId="s_1") as new:
            new.next("tool_call")
            live.do(gate.set)
            assert old.next("final")["payload"]["error"]["code"] == "SESSION_CANCELLED"
            assert new.next("final")["payload"]["result"] == "waited"


@pytest.mark.parametrize("query", ["?fromSeq=1000", "?from=1000"])
def test_a_reader_from_past_the_end_of_what_runs_waits_for_the_end(live: Live, gate: asyncio.Event, query: str) -> None:
    with live.streaming(WAIT, sessionId="s_1") as stream:
        stream.next("tool_call")
        with live.following("s_1", query) as ahead:
            live.do(gate.set)
            assert ahead.rest() == []
        stream.rest()


def test_a_reader_from_just_past_what_there_is_gets_what_comes(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT, sessionId="s_1") as stream:
        stream.next("tool_call")
        live.until(lambda: live.session("s_1").log.records[-1].public is not None)
        following = live.do(lambda: sum(record.public is not None for record in live.session("s_1").log.records)) + 1
        with live.following("s_1", f"?from={following}") as ahead:
            live.do(gate.set)
            events = ahead.rest()
        assert [event["seq"] for event in events] == [following, following + 1]
        assert [event["type"] for event in events] == ["tool_result_applied", "final"]
        stream.rest()
