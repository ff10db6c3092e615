"""The same process as transport: an ASGI application called directly, its answers streamed.

httpx's own ASGI transport gathers a whole answer before it gives any of it, so that no event would be seen before the
last. Who starts and ends the application is life.py's. Called by target.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self
from urllib.parse import unquote

from enclave_broker.client.life import VERSIONS, AsgiApp, Life, Message
from enclave_broker.client.transport import Reply, Request
from enclave_broker.types.errors import TransportError

__all__ = ["InProcessTransport"]

_MAX_BUFFERED_BYTES = 65_536  # beyond it the application waits, as it would for a slow connection


class InProcessTransport:
    """`life` begins with the first request and ends with `aclose`. `path`: where the broker is mounted in the app."""

    def __init__(self, app: AsgiApp, life: Life, *, path: str = "") -> None:
        self._app = app
        self._path = path
        self._life = life
        self._exchanges: set[_Exchange] = set()

    async def send(self, request: Request) -> Reply:
        await self._life.started()
        exchange = _Exchange(
            self._app, _scope(request, self._path, self._life.state), request.body, self._exchanges.discard
        )
        self._exchanges.add(exchange)
        try:
            await exchange.head()
        except BaseException:
            await exchange.aclose()
            raise
        return exchange

    async def aclose(self) -> None:
        for exchange in list(self._exchanges):
            await exchange.aclose()
        await self._life.aclose()


def _scope(request: Request, mounted: str, state: Mapping[str, Any]) -> dict[str, Any]:
    path, _, query = request.target.partition("?")
    path = mounted + path
    headers = {"host": "localhost", "content-length": str(len(request.body)), **request.headers}
    return {
        "type": "http",
        "asgi": dict(VERSIONS),
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
        "state": dict(state),
    }


class _Exchange(AsyncIterator[bytes]):
    """One request and its answer: the application in a task that this owns, and what it has sent unread."""

    def __init__(self, app: AsgiApp, scope: dict[str, Any], body: bytes, on_end: Callable[[_Exchange], None]) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._requests: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])
        self._left = asyncio.Event()
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._whole = False
        self._changed = asyncio.Condition()
        self._on_end = on_end
        self._task = asyncio.create_task(self._run(app, scope), name=f"in-process {scope['method']} {scope['path']}")

    async def _run(self, app: AsgiApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            async with self._changed:
                self._changed.notify_all()

    # -- the application's side ------------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        if self._requests:
            return self._requests.popleft()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._left.is_set():
            return  # as servers do: what is sent to somebody who has gone is dropped
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                raw = message.get("headers", ())
                self.headers = {bytes(k).decode("latin-1").lower(): bytes(v).decode("latin-1") for k, v in raw}
            elif message["type"] == "http.response.body":
                piece = bytes(message.get("body", b""))
                self._buffer.append(piece)
                self._size += len(piece)
                self._whole = not message.get("more_body", False)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._size <= _MAX_BUFFERED_BYTES or self._left.is_set())

    # -- the client's side -----------------------------------------------------------------------------------------

    async def head(self) -> None:
        async with self._changed:
            # A head alone may still become an error page elsewhere, but ASGI lets nobody take it back.
            await self._changed.wait_for(lambda: self.status or self._task.done())
        if not self.status:
            raise TransportError("the application gave no answer") from self._failure()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size or self._whole or self._task.done())
            piece = b"".join(self._buffer)
            self._buffer.clear()
            self._size = 0
            self._changed.notify_all()
        if piece:
            return piece
        if self._whole:
            raise StopAsyncIteration
        raise TransportError("the application stopped within its answer") from self._failure()

    def _failure(self) -> BaseException | None:
        return None if not self._task.done() or self._task.cancelled() else self._task.exception()

    async def aclose(self) -> None:
        """The client is gone: the application is told, and ended if it doesn't end by itself at once."""
        self._on_end(self)
        self._left.set()
        if not self._whole:
            self._task.cancel()
        async with self._changed:
            self._changed.notify_all()
        await asyncio.wait([self._task])
        self._failure()  # retrieved: whoever read the answer was told
