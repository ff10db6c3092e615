"""The server that `serve` runs: uvicorn, with an end of its own and a protocol that doesn't wait for half a request.

Owns signals, the order in which a server ends, and what a connection may cost before it is a request. Inside somebody
else's server app.py does what is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, ClassVar, cast

import httptools
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.leftovers import ABORT
from enclave_broker.broker.http.streaming import TOGETHER

__all__ = ["GuardedHttp", "Server"]

logger = logging.getLogger("enclave_broker.http")

FULL_SECONDS = 10.0
"""How often a server that is out of descriptors says so."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FRAMING = {b"content-length", b"transfer-encoding"}
_MAX_OVERHEAD = 16  # bytes around each of a body: one that comes in chunks of one byte has five


class _NoHeaders(list[tuple[bytes, bytes]]):
    """Where trailers go: who stands in front of a server may look at headers only."""

    def append(self, item: tuple[bytes, bytes], /) -> None:
        pass


_NO_HEADERS = _NoHeaders()


def _nothing() -> None:
    pass


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: a time for a request to begin and for its head, and a size of the head.

    Without it a connection that says nothing, or half a head, stays for ever; head and trailers of any size are read,
    and trailers count as headers; what is no request is answered in the middle of another answer; a stream isn't told
    that its client has left when that had sent the next request ahead; and the body of a request that asks for another
    protocol as well (Java's client does, for HTTP/2) is lost.
    """

    head_seconds: ClassVar[float] = 10.0
    max_head_bytes: ClassVar[int] = 65_536
    """The gate's own limit is half of it, and answers politely."""

    _overhead = 0
    """Bytes that have come of this head, or around its body."""
    _deadline: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None
    """The request that is being answered, or was last; uvicorn's `cycle` is the last that has come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] as uvicorn's own
        super().connection_made(transport)
        connection: socket.socket = transport.get_extra_info("socket")
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does so only where a listener was made with its protocol named; else an answer in two writes,
            # head and body, waits 40 ms for the client's acknowledgement of the first.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._extensions = {ABORT: transport.abort, TOGETHER: self._hold_head}
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        answered = self._answered
        if answered is not None and answered is not self.cycle and not answered.response_complete:
            answered.disconnected = True
            answered.message_event.set()
        self._take_apart()

    def _take_apart(self) -> None:
        """What refers to itself stays until the garbage is collected, which `serve` does seldom."""
        self._unset_keepalive_if_required()
        self._extensions.clear()
        for waiting, _ in self.pipeline:
            waiting.on_response = _nothing
        if self._answered is not None:
            self._answered.transport = self.transport  # no held head
        for name in ("_read_ready_cb", "_write_ready"):  # asyncio's own
            getattr(self.transport, "__dict__", {}).pop(name, None)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self.transport.is_closing():
            return
        if self._overhead > self.max_head_bytes:
            self._refuse(431, "HEADERS_TOO_LARGE", f"address and headers have {self.max_head_bytes:,} bytes at most")
        elif self._deadline is None and not self._answering:
            self._arm()  # nothing is being answered, and what has come is no whole request

    def _parse(self, data: bytes) -> None:
        """As if no request asked for another protocol: a server need not agree, but the parser ends where one does."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                offset: int = stopped.args[0]
                data = data[offset:]
                self._parse_body_next()
            else:
                return

    def _parse_body_next(self) -> None:
        """A parser that stands where the other ended: behind a head, before its body."""
        framing = [b"%b: %b\r\n" % header for header in self.scope["headers"] if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(_BehindHead(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))

    def _hold_head(self) -> None:
        """Of the answer that is made: its head waits for the first piece of its body."""
        cycle = self._answered
        if cycle is not None:
            cycle.transport = cast("asyncio.Transport", _HeldHead(cycle))

    @property
    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def on_headers_complete(self) -> None:
        cast("Any", self.scope)["extensions"] = self._extensions
        self._overhead = 0
        self._disarm()
        super().on_headers_complete()
        self.headers = _NO_HEADERS

    def on_body(self, body: bytes) -> None:
        self._overhead -= _MAX_OVERHEAD * len(body)
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its body comes from another parser
        self._overhead = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "INVALID_REQUEST", "this is no HTTP request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        answered = self._answered
        if answered is None or answered.response_complete or not answered.response_started:
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


class _HeldHead:
    """Stands in for the transport of an answer until head and first piece of the body are there: one write, not two."""

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)
        else:
            self._head = data

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class _BehindHead:
    """What a parser calls whose first head is that of a request which is under way already."""

    def __init__(self, protocol: GuardedHttp) -> None:
        self._protocol = protocol
        self._is_behind = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if self._is_behind:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._is_behind:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_behind:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_behind:
            self._protocol.on_headers_complete()
        self._is_behind = True


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
        self._tell_full_at = 0.0
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
        self._loop.set_exception_handler(self._on_loop_error)
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._broker.shut_down()
        cut = asyncio.get_running_loop().call_later(self.end_seconds, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of each connection that it can't accept, 2,000 times a second, and goes on after the end."""
        message: str = context.get("message", "")
        if "_start_serving" in message:
            return
        if message != "socket.accept() out of system resource":
            loop.default_exception_handler(context)
        elif loop.time() >= self._tell_full_at:
            self._tell_full_at = loop.time() + FULL_SECONDS
            count = len(self.server_state.connections)
            logger.error("%d connections, and no more can be accepted: %s", count, context["exception"])

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
