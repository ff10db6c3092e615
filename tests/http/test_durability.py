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
def held(store: HeldStore) -> Iterator[Live]:
    with serving(memory_broker(store=store)) as running:
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


def test_a_store_that_does_not_write_is_told_and_the_request_can_come_again(store: HeldStore) -> None:
    with serving(memory_broker(store=store), timing=Timing(durable=0.05)) as live:
        response = live.post("return 1", sessionId="s_mine")
        assert refusal(response) == (503, "OVERLOADED")
        assert response.headers["retry-after"] == "5"
        live.do(store.open.set)
        assert final(live.post("return 1", sessionId="s_mine"))["result"] == 1
