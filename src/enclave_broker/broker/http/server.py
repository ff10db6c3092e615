"""The server that `serve` runs: uvicorn, with an end of its own and a protocol that doesn't wait for half a request.

Owns signals, the order in which a server ends, and what a connection may cost before it is a request. Inside somebody
else's server app.py does what is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, ClassVar, cast

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from enclave_broker.broker.broker import Broker

__all__ = ["GuardedHttp", "Server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: a time for a request to begin and for its head, and a size of the head.

    Without it a connection that says nothing, or half a head, stays for ever, and a head of any size is read.
    """

    head_seconds: ClassVar[float] = 10.0
    max_head_bytes: ClassVar[int] = 65_536
    """The gate's own limit is half of it, and answers politely."""

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] as uvicorn's own
        super().connection_made(transport)
        connection: socket.socket = transport.get_extra_info("socket")
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does so only where a listener was made with its protocol named; else an answer in two writes,
            # head and body, waits 40 ms for the client's acknowledgement of the first.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > self.max_head_bytes:
            self._refuse(431, "HEADERS_TOO_LARGE", f"address and headers have {self.max_head_bytes:,} bytes at most")
        elif self._deadline is None and not self._answering:
            self._arm()  # nothing is being answered, and what has come is no whole request

    @property
    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "INVALID_REQUEST", "this is no HTTP request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = msgspec.json.encode({"code": code, "message": message})
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """Ends cleanly at SIGTERM and SIGINT: every stream gets its final, and `serve` returns.

    A second signal doesn't wait for clients, a third one for nothing.
    """

    end_seconds: ClassVar[float] = 1.0
    """How long clients may take to read the end of their streams; the connections of those that don't are cut."""

    def __init__(
        self,
        broker: Broker,
        app: ASGIApp,
        *,
        protocol: type[GuardedHttp] = GuardedHttp,
        on_started: Callable[[], None] | None = None,
    ) -> None:
        self._broker = broker
        self._on_started = on_started
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            log_level="error",  # a request that is none isn't news
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,  # what `end_seconds` leaves is a handler that doesn't come back
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._broker.shut_down()
        cut = asyncio.get_running_loop().call_later(self.end_seconds, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            cast("Any", connection).transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """uvicorn raises the signal again when it has ended, and the process would end by it instead of with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        self.should_exit = True
        if self._signals == 2 and self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut)
        self.force_exit = self._signals > 2
