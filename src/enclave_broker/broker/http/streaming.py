"""Answers that last as long as a session runs: its events as they happen, or one object after the end.

Owns when something is written; when a reader counts as gone is watch.py's. What is written is a Cursor's
(sessions/cursor.py): whole lines, encoded once for all readers. Starlette's StreamingResponse would cost a task group,
a second task, and a write for every line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from enclave_broker.broker.http.errors import error_response
from enclave_broker.broker.http.leftovers import Leftovers
from enclave_broker.broker.http.timing import Timers
from enclave_broker.broker.http.watch import StreamWatch, Watch
from enclave_broker.broker.sessions.cursor import Cursor
from enclave_broker.broker.sessions.session import Session
from enclave_broker.stream.filters import EventFilter
from enclave_broker.types.errors import SessionClosedError
from enclave_broker.types.wire import payload_of_line

__all__ = ["ONLY_FINAL", "TOGETHER", "Counted", "EventStream", "Form", "OneObject", "wanted_form"]

CHUNK_BYTES = 65_536  # of one write: asyncio's high-water mark, so that a stuck reader holds two of them at most

TOGETHER = "enclave_broker.together"
"""Among a scope's extensions, where the server has it: what is sent next, a head and a piece of body, is one write."""

Form = Literal["ndjson", "sse", "object"]
_MEDIA: dict[Form, bytes] = {"ndjson": b"application/x-ndjson", "sse": b"text/event-stream"}

ONLY_FINAL = EventFilter.parse({"mode": "include", "rules": [], "alwaysAllow": ["final"]})
"""What the reader behind a OneObject is asked for."""


def wanted_form(accept: bytes, *, stream: bool | None = None) -> Form:
    """What a request asks for. `stream` is the body's own word on it, which goes before the header's."""
    if stream is False:
        return "object"
    types = _accepted(accept)
    ndjson = b"application/x-ndjson" in types
    if stream is None and b"application/json" in types and not ndjson and b"*/*" not in types:
        return "object"
    return "sse" if b"text/event-stream" in types and not ndjson else "ndjson"


def _accepted(accept: bytes) -> set[bytes]:
    """The media types that an Accept header names, but for those it gives no weight."""
    if accept == b"*/*":
        return {accept}
    types: set[bytes] = set()
    for part in accept.lower().split(b","):
        kind, *parameters = part.split(b";")
        if not any(parameter.replace(b" ", b"").rstrip(b"0.") == b"q=" for parameter in parameters):
            types.add(kind.strip())
    return types


class EventStream(Response):
    """The events of one cursor of a session, which it closes. `linger`: see Timing."""

    def __init__(
        self,
        cursor: Cursor,
        session: Session,
        timers: Timers,
        leftovers: Leftovers,
        *,
        form: Form,
        linger: bool = False,
    ) -> None:
        self._cursor = cursor
        self._session = session
        self._timers = timers
        self._leftovers = leftovers
        self._media = _MEDIA[form]
        self._linger = linger
        self._first = b""
        self.background = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send, and never will be."""
        self._first = self._first or self._cursor.take(CHUNK_BYTES)
        return not self._first and self._cursor.ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                await send(self._start())
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await self._stream(scope, receive, send)
        finally:
            self._cursor.close()

    def _start(self) -> Message:
        # A fresh list each time, since middleware adds to it.
        id = self._session.id.encode()
        headers = [(b"content-type", self._media), (b"cache-control", b"no-cache"), (b"x-session-id", id)]
        return {"type": "http.response.start", "status": 200, "headers": headers}

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        cursor = self._cursor
        chunk = self._first or cursor.take(CHUNK_BYTES)
        if self._linger and not cursor.ended:
            await self._wait_a_little()
            chunk += cursor.take(CHUNK_BYTES)
        extensions: dict[str, Any] = scope.get("extensions") or {}
        if chunk and (together := extensions.get(TOGETHER)):
            together()
        await send(self._start())
        if cursor.ended:
            await send({"type": "http.response.body", "body": chunk, "more_body": False})
            return
        watch = StreamWatch(scope, receive, self._timers, self._session, self._leftovers)
        try:
            while True:
                ended = cursor.ended
                if chunk or ended:
                    await send({"type": "http.response.body", "body": chunk, "more_body": not ended})
                if ended or watch.gone:
                    return
                await cursor.wait()  # also when there is more: who reads fast would have the loop to itself
                chunk = cursor.take(CHUNK_BYTES)
        except asyncio.CancelledError:
            if not watch.took_back():
                raise
        finally:
            watch.close()

    async def _wait_a_little(self) -> None:
        """Until there may be more, or so long that nobody would notice."""
        more = self._cursor.wait()

        def enough() -> None:
            if not more.done():
                more.set_result(None)

        alarm = self._timers.linger.after(self._timers.timing.linger, enough)
        try:
            await more
        finally:
            alarm.cancel()


_LOST = SessionClosedError("the session was closed before its code had ended")


class OneObject(Response):
    """`{sessionId, ok, result?, error?, errors?, stats?}`: the payload of the first final, once it is there.

    `cursor` has only that event (ONLY_FINAL). The status is 200 whatever has become of the script.
    """

    def __init__(self, cursor: Cursor, session_id: str, timers: Timers) -> None:
        self._cursor = cursor
        self._session_id = session_id.encode()
        self._timers = timers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cursor = self._cursor
        watch = Watch(receive, self._timers)
        try:
            line = cursor.take(CHUNK_BYTES)
            while not cursor.ended:
                await cursor.wait()
                line += cursor.take(CHUNK_BYTES)
            await (self._send(line, send) if line else error_response(_LOST)(scope, receive, send))
        except asyncio.CancelledError:
            if not watch.took_back():
                raise
        finally:
            watch.close()
            cursor.close()

    async def _send(self, line: bytes, send: Send) -> None:
        body = b'{"sessionId":"%b",%b' % (self._session_id, payload_of_line(line)[1:])
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-cache"),
            (b"x-session-id", self._session_id),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


class Counted(Response):
    """Another answer, which somebody counts until it has ended."""

    def __init__(self, answer: Response, release: Callable[[], None]) -> None:
        self._answer = answer
        self._release = release
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            self._release()
