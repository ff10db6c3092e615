"""Clients that leave, lag and lie: they cost what they hold, and nobody else anything."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest

from enclave_broker import Broker
from enclave_broker.broker.http.server import GuardedHttp
from enclave_broker.broker.http.timing import Timing
from tests.http.live import Live, final, read_all, read_until, refusal, request_bytes, serving

WAIT = "return await tools.wait({})"
SOON = Timing(watch=0.05, body=0.2)


class ImpatientHttp(GuardedHttp):
    head_seconds = 0.2


@pytest.fixture
def quick(shop: Broker) -> Iterator[Live]:
    """A server that loses patience soon."""
    with serving(shop, protocol=ImpatientHttp, timing=SOON) as running:
        yield running


def begin(code: str, **fields: object) -> bytes:
    return request_bytes("POST", "/sessions", json.dumps({"code": code, **fields}).encode())


def readers(live: Live) -> int:
    """How many streams the server is answering just now."""
    return live.do(lambda: len(live.server.server_state.tasks))


# -- who leaves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_a_silent_stream_is_noticed(quick: Live, gate: asyncio.Event, *, reset: bool) -> None:
    with quick.socket() as connection:
        connection.sendall(begin(WAIT, sessionId="s_mine"))
        read_until(connection, b'"type":"tool_call"')
        assert readers(quick) == 1
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    quick.until(lambda: not quick.server.server_state.tasks)
    quick.do(gate.set)
    with quick.following("s_mine") as stream:
        assert stream.next("final")["payload"]["result"] == "waited"


def test_a_client_that_leaves_before_one_object_is_noticed(quick: Live, gate: asyncio.Event) -> None:
    with quick.socket() as connection:
        connection.sendall(begin(WAIT, sessionId="s_mine", stream=False))
        quick.until(lambda: quick.broker.sessions.get("s_mine"))
    quick.until(lambda: not quick.server.server_state.tasks)
    quick.do(gate.set)
    assert quick.client.get("/sessions/s_mine/stream").status_code == 200


def test_a_client_that_resets_while_it_is_written_to_is_noticed(quick: Live) -> None:
    code = "for (let i = 0; i < 200; i++) { console.log('x'.repeat(1000)); } return await tools.wait({})"
    for _ in range(20):
        with quick.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(begin(code))
            connection.recv(10)
    quick.until(lambda: not quick.server.server_state.tasks)
    assert final(quick.post("return 1"))["ok"] is True


def test_connections_that_say_nothing_are_closed(quick: Live) -> None:
    connections = [socket.create_connection(("127.0.0.1", quick.port), 20) for _ in range(200)]
    assert final(quick.post("return 1"))["ok"] is True
    for connection in connections:
        with connection:
            assert connection.recv(1) == b""
    quick.until(lambda: len(quick.server.server_state.connections) <= 1)


# -- who lags --------------------------------------------------------------------------------------------------------

FLOOD = "for (let i = 0; i < 2000; i++) { console.log(String(i).padEnd(1000)); }"
ROOM = {"maxStdoutBytes": 4_000_000}


def flooding(shop: Broker) -> None:
    limits = shop.limits
    shop.limits = limits.override(max_stdout_bytes=4_000_000)


def test_a_client_that_never_reads_costs_others_nothing(shop: Broker) -> None:
    flooding(shop)
    with serving(shop, timing=SOON, send_buffer_bytes=65_536) as live, live.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.sendall(begin(FLOOD, limits=ROOM, sessionId="s_mine"))
        with live.following_when_there("s_mine") as stream:
            lines = [event["payload"]["chunk"] for event in stream.rest() if event["type"] == "stdout"]
        assert [int(line) for line in lines] == list(range(2_000))
        assert readers(live) == 1
        stuck.close()
        live.until(lambda: not live.server.server_state.tasks)


def test_an_answer_is_not_held_back_for_an_acknowledgement(live: Live) -> None:
    with live.socket() as connection:
        connection.sendall(request_bytes("GET", "/readyz"))
        read_until(connection, b"ready")
        [served] = live.server.server_state.connections
        mine: socket.socket = cast("Any", served).transport.get_extra_info("socket")
        assert live.do(lambda: mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def test_a_client_that_reads_a_byte_at_a_time_gets_every_byte(shop: Broker) -> None:
    flooding(shop)
    with serving(shop, timing=SOON, send_buffer_bytes=65_536) as live, live.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.sendall(begin(FLOOD, limits=ROOM, sessionId="s_mine"))
        first = b"".join(slow.recv(1) for _ in range(2_000))
        live.until(lambda: live.session("s_mine").state == "completed")
        assert final(live.post("return 1"))["ok"] is True, "others don't wait for it"
        whole = first + read_until(slow, b"\r\n0\r\n\r\n")
        assert whole.count(b'"type":"stdout"') == 2_000
        assert whole.count(b'"type":"final"') == 1


# -- who lies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "half",
    [b"", b"\r\n", b"P", b"POST /sessions HTTP/1.1\r\n", b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nX-A: b"],
)
def test_half_a_head_is_not_waited_for(quick: Live, half: bytes) -> None:
    with quick.socket() as connection:
        connection.sendall(half)
        assert read_all(connection) == b""


def test_a_head_that_comes_a_byte_at_a_time_is_not_waited_for(quick: Live) -> None:
    with quick.socket() as connection:
        connection.settimeout(0.01)
        for byte in request_bytes("GET", "/readyz", b"", "X-Much: " + "x" * 5_000):
            try:
                connection.sendall(bytes([byte]))
                if connection.recv(100) == b"":
                    return
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return
    raise AssertionError("it was waited for")


def test_half_a_head_after_a_whole_request_is_not_waited_for(quick: Live) -> None:
    with quick.socket() as connection:
        connection.sendall(request_bytes("GET", "/readyz"))
        read_until(connection, b"ready")
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHo")
        assert b"HTTP/1.1" not in read_all(connection)


@pytest.mark.parametrize("path", ["/sessions", "/sessions/s_1/tool-result", "/sessions/s_1/cancel"])
def test_half_a_body_is_not_waited_for(quick: Live, path: str) -> None:
    quick.run("return 1", sessionId="s_1")
    with quick.socket() as connection:
        head = request_bytes("POST", path, b"", "Content-Length: 100", "Content-Type: application/json")
        connection.sendall(head + b'{"code":')
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"REQUEST_TIMEOUT"' in answer


def test_a_head_without_its_body_is_not_waited_for(quick: Live) -> None:
    with quick.socket() as connection:
        connection.sendall(
            request_bytes("POST", "/sessions", b"", "Content-Length: 9", "Content-Type: application/json")
        )
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_is_cut_off_begins_nothing(quick: Live) -> None:
    with quick.socket() as connection:
        connection.sendall(begin("return 1")[:-3])
    quick.until(lambda: not quick.server.server_state.tasks)
    assert quick.client.get("/sessions").json()["total"] == 0


def test_a_body_that_nobody_wants_does_not_keep_the_connection(quick: Live) -> None:
    with quick.socket() as connection:
        connection.sendall(request_bytes("POST", "/nothing", b"", "Content-Length: 1000000") + b"x")
        read_until(connection, b"NOT_FOUND")
        connection.settimeout(0.01)
        for _ in range(2_000):
            try:
                connection.sendall(b"x")
                if connection.recv(100) == b"":
                    return
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return
    raise AssertionError("the connection was kept")


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /sess\xffions HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 1_000,
    ],
)
def test_what_is_no_request_gets_400_and_an_end(quick: Live, noise: bytes) -> None:
    with quick.socket() as connection:
        connection.sendall(noise)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"code":"INVALID_REQUEST"' in answer


def test_requests_that_are_sent_ahead_are_answered_in_order(live: Live) -> None:
    with live.socket() as connection:
        last = request_bytes("GET", "/readyz", b"", "Connection: close")
        connection.sendall(begin("return 1", stream=False) + begin("return 2", stream=False) + last)
        answer = read_all(connection)
    assert [answer.index(part) for part in (b'"result":1', b'"result":2', b'"ready"')] == sorted(
        answer.index(part) for part in (b'"result":1', b'"result":2', b'"ready"')
    )


def test_an_upgrade_to_something_else_is_ignored(live: Live) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert live.client.get("/readyz", headers=headers).status_code == 200
    assert refusal(live.client.get("/sessions/s_1", headers=headers)) == (404, "NOT_FOUND")


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(live: Live) -> None:
    body = b'{"code":"return 1","stream":false}'
    with live.socket() as connection:
        request = request_bytes("POST", "/sessions", body, "Expect: 100-continue", "Connection: close")
        head, body = request[: -len(body)], request[-len(body) :]
        connection.sendall(head)
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert b'"result":1' in read_all(connection)


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(live: Live) -> None:
    with live.socket() as connection:
        connection.sendall(begin("return 1").replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = read_all(connection)
    assert b'"type":"final"' in answer
