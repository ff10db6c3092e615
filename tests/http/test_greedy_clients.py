"""Clients that want much: filters that take long, lists without end, sessions that nobody else can read any more."""

from __future__ import annotations

import json
import socket
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from urllib.parse import quote

import pytest

from enclave_broker import Broker, Session, SessionLimits
from enclave_broker.broker.http import leftovers
from enclave_broker.broker.http.timing import Timing
from tests.http.live import Live, memory_broker, read_all, read_until, request_bytes, serving

ROOMY = SessionLimits(max_stdout_bytes=16_000_000, max_log_bytes=64_000_000)
LOOKS_OFTEN = Timing(watch=0.05, look=0.05)
PRINTS = "for (let i = 0; i < 2000; i++) { console.log(String(i).padEnd(1000, 'a')); }"
EVIL = "[ab]*a[ab]{90}c"  # as an automaton without memory it had 2**90 states
TEXT = """
let text = Array.from({ length: 1900 }, () => "ab"[Math.random() < 0.5 ? 0 : 1]).join("");
for (let i = 0; i < 2000; i++) { console.log(text); text = text.slice(7) + text.slice(0, 7); }
"""


def get(path: str) -> bytes:
    return request_bytes("GET", path, b"", "Connection: close")


@contextmanager
def not_reading(live: Live, path: str) -> Generator[socket.socket]:
    """A client that has the beginning of the answer."""
    with live.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(get(path))
        read_until(connection, b"\r\n\r\n")
        yield connection


def waiting_bytes(live: Live) -> int:
    """What the server holds of its answers because their clients don't read."""
    connections = cast("list[Any]", list(live.server.server_state.connections))
    return sum(connection.transport.get_write_buffer_size() for connection in connections)


def is_gone(session: weakref.ref[Any]) -> bool:
    """At once, since nothing of a session refers to itself when it is forgotten."""
    return session() is None


# -- whose filter takes long -----------------------------------------------------------------------------------------


def test_others_are_answered_while_a_filter_takes_long() -> None:
    filter = {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": EVIL}]}}]}
    query = quote(json.dumps(filter))
    with serving(memory_broker(limits=ROOMY), timing=LOOKS_OFTEN) as live:
        live.post(TEXT, sessionId="s_1", stream=False)
        with live.socket() as connection:
            connection.sendall(get(f"/sessions/s_1/stream?filter={query}"))
            live.until(lambda: live.server.server_state.tasks)
            for _ in range(10):
                assert live.client.get("/readyz").status_code == 200
            assert b'"type":"final"' not in connection.recv(65_536), "they were, but only after it"
            assert live.do(lambda: len(live.server.server_state.tasks)) == 1
        live.until(lambda: not live.server.server_state.tasks)  # it doesn't go on for a client that has left


# -- who asks for long lists and doesn't read them -------------------------------------------------------------------


def test_the_calls_of_a_session_are_written_as_they_are_read() -> None:
    code = "const a = 'x'.repeat(1e6); for (let i = 0; i < 20; i++) { await callTool('none', { a }).catch(() => 0); }"
    with serving(memory_broker(limits=ROOMY), timing=LOOKS_OFTEN, send_buffer_bytes=65_536) as live:
        live.post(code, sessionId="s_1", stream=False)
        with not_reading(live, "/sessions/s_1/calls"):
            assert live.client.get("/readyz").status_code == 200
            assert 0 < live.do(lambda: waiting_bytes(live)) < 3_000_000
        live.until(lambda: not live.server.server_state.tasks)
        calls = live.client.get("/sessions/s_1/calls").json()
        assert calls["total"] == len(calls["calls"]) == 20
        assert {len(call["args"]["a"]) for call in calls["calls"]} == {1_000_000}


# -- who holds what nobody else can read any more --------------------------------------------------------------------


def forgotten(live: Live, id: str) -> weakref.ref[Any]:
    session = live.session(id)
    assert live.client.delete(f"/sessions/{id}").status_code == 200
    return weakref.ref(session)


def read_whole(connection: socket.socket) -> bool:
    """Whether the rest of the answer comes to its end."""
    try:
        return read_all(connection).endswith(b"\r\n0\r\n\r\n")
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("path", ["/stream", "/calls"])
def test_clients_that_never_read_keep_no_more_of_forgotten_sessions_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, shop: Broker, path: str
) -> None:
    monkeypatch.setattr(leftovers, "MAX_BYTES", 10_000_000)
    code = "for (let i = 0; i < 8; i++) { await callTool('none', { a: 'x'.repeat(1e6) }).catch(() => 0); }"
    shop.limits = ROOMY
    with serving(shop, timing=LOOKS_OFTEN, send_buffer_bytes=65_536) as live, ExitStack() as stack:
        clients: list[socket.socket] = []
        sessions: list[weakref.ref[Any]] = []
        for number in range(4):
            live.post(code, sessionId=f"s_{number}", stream=False)
            clients.append(stack.enter_context(not_reading(live, f"/sessions/s_{number}{path}")))
            sessions.append(forgotten(live, f"s_{number}"))
        live.until(lambda: sum(is_gone(session) for session in sessions) == 3)
        assert [read_whole(client) for client in clients].count(True) == 1, "there is room for one that isn't small"
        live.until(lambda: all(is_gone(session) for session in sessions))


def test_a_reader_of_a_forgotten_session_may_read_it_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = leftovers.Leftovers.look

    def counted(self: leftovers.Leftovers, session: Session, cut: leftovers.Cut) -> None:
        looks.append(session.id)
        look(self, session, cut)

    monkeypatch.setattr(leftovers.Leftovers, "look", counted)
    with serving(memory_broker(limits=ROOMY), timing=LOOKS_OFTEN, send_buffer_bytes=65_536) as live:
        live.post(PRINTS, sessionId="s_1", stream=False)
        with not_reading(live, "/sessions/s_1/stream") as connection:
            session = forgotten(live, "s_1")
            looks.clear()
            live.until(lambda: len(looks) > 3)
            assert not is_gone(session)
            assert read_whole(connection)
        live.until(lambda: is_gone(session))
