"""A broker behind a real server on a free port, in a thread of its own, and clients that read line by line."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from enclave_broker import Broker, Session
from enclave_broker.broker.http.app import http_app
from enclave_broker.broker.http.server import GuardedHttp, Server
from enclave_broker.broker.http.timing import Timing
from enclave_broker.runtime.memory import MemoryRuntime

T = TypeVar("T")

SECONDS = 20.0
"""After which a test gives up what will never come."""


class WatchfulServer(Server):
    """Sees at once that it has to end; uvicorn looks every 0.1 s, and there are hundreds of tests."""

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.005)


class Live:
    """`loop` is the server's; everything of the broker is touched only there."""

    def __init__(self, broker: Broker, port: int, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        self.broker = broker
        self.port = port
        self.loop = loop
        self.server = server
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=SECONDS)

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` makes, awaited in the server's loop."""

        async def there() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(SECONDS)

    def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, called in the server's loop."""

        async def there() -> T:
            return work()

        return self.call(there)

    def until(self, condition: Callable[[], object]) -> None:
        """Until it is true there; each look lets the loop turn."""

        async def look() -> None:
            async with asyncio.timeout(SECONDS):
                while not condition():  # noqa: ASYNC110 nothing tells
                    await asyncio.sleep(0.001)

        self.call(look)

    def session(self, id: str) -> Session:
        found = self.broker.sessions.get(id)
        assert found is not None
        return found

    def post(self, code: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """POST /sessions, to the end of its answer."""
        return self.client.post("/sessions", json={"code": code, **fields}, headers=headers)

    def run(self, code: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a run that has ended."""
        return events(self.post(code, **fields))

    @contextmanager
    def streaming(self, code: str, headers: dict[str, str] | None = None, **fields: Any) -> Generator[Stream]:
        """POST /sessions, and the answer as it comes."""
        with self.client.stream("POST", "/sessions", json={"code": code, **fields}, headers=headers) as response:
            yield Stream(response)

    @contextmanager
    def following(self, id: str, query: str = "", headers: dict[str, str] | None = None) -> Generator[Stream]:
        """GET …/stream, and the answer as it comes."""
        with self.client.stream("GET", f"/sessions/{id}/stream{query}", headers=headers) as response:
            yield Stream(response)

    @contextmanager
    def following_when_there(self, id: str) -> Generator[Stream]:
        """`following`, as soon as there is such a session."""
        self.until(lambda: self.broker.sessions.get(id))
        with self.following(id) as stream:
            yield stream

    @contextmanager
    def socket(self) -> Generator[socket.socket]:
        """A bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as connection:
            yield connection


class Stream:
    """An answer whose lines are read one by one."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    @property
    def id(self) -> str:
        return self.response.headers["x-session-id"]

    def next(self, type: str | None = None) -> dict[str, Any]:
        """The next event, or the next of this type."""
        for line in self._lines:
            event: dict[str, Any] = json.loads(line)
            if type is None or event["type"] == type:
                return event
        raise AssertionError(f"the stream has ended without {type or 'another event'}")

    def rest(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._lines]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def final(response: httpx.Response) -> dict[str, Any]:
    """The payload of the last event."""
    last = events(response)[-1]
    assert last["type"] == "final"
    return last["payload"]


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose shape is checked."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert set(body) in ({"code", "message"}, {"code", "message", "details"}), body
    assert isinstance(body["message"], str)
    assert body["message"]
    assert "Traceback" not in response.text
    return response.status_code, body["code"]


def request_bytes(method: str, target: str, body: bytes = b"", *headers: str, host: str = "localhost") -> bytes:
    """A request as it goes over the wire; `headers` are whole lines."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts: list[bytes] = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        part = connection.recv(65_536)
        assert part, f"closed without {end!r}: {got!r}"
        got += part
    return got


def memory_broker(**options: Any) -> Broker:
    """A broker whose scripts run in this process."""
    return Broker(runtimes=[MemoryRuntime()], **options)


@contextmanager
def serving(
    broker: Broker,
    *,
    app: Any = None,
    protocol: type[GuardedHttp] = GuardedHttp,
    timing: Timing | None = None,
    send_buffer_bytes: int | None = None,
    **options: Any,
) -> Generator[Live]:
    """The broker's application, or `app`, served until the block is left; the server ends as `serve` would."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if send_buffer_bytes is not None:  # the connections have their listener's; the system's grow to megabytes
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    started: threading.Event = threading.Event()
    server = WatchfulServer(
        broker, app or http_app(broker, timing=timing, **options), protocol=protocol, on_started=started.set
    )
    loops: list[asyncio.AbstractEventLoop] = []
    failures: list[BaseException] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 told to the test
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        assert started.wait(SECONDS)
        assert not failures, failures
        live = Live(broker, listener.getsockname()[1], loops[0], server)
        with live.client:
            yield live
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listener.close()
    assert not thread.is_alive()
    assert not failures, failures
