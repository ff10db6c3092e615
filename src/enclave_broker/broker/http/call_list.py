"""The calls of a session as an answer: written piece by piece, since their arguments may be as large as its log.

A client that asks and never reads holds a piece, not a copy of the log. What is durable is shown, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from enclave_broker.broker.http.leftovers import Leftovers
from enclave_broker.broker.http.timing import Timers
from enclave_broker.broker.http.watch import StreamWatch
from enclave_broker.broker.sessions.history import traces
from enclave_broker.broker.sessions.session import Session
from enclave_broker.types.bounded_json import encode_json
from enclave_broker.types.results import CallRecord

__all__ = ["CallList"]

PIECE_BYTES = 65_536
MAX_CALL_BYTES = 64 << 20  # one call: its arguments are bounded by max_tool_args_bytes


class CallList(Response):
    """`{calls: […], total}`, in the order in which they were asked for."""

    def __init__(self, session: Session, timers: Timers, leftovers: Leftovers) -> None:
        self._session = session
        self._timers = timers
        self._leftovers = leftovers
        records, self._closed = session.log.seen()
        self._traces = traces(records)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = StreamWatch(scope, receive, self._timers, self._session, self._leftovers)
        try:
            await self._write(send)
        except asyncio.CancelledError:
            if not watch.took_back():
                raise
        finally:
            watch.close()

    async def _write(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pieces = self._pieces()
        piece = next(pieces)
        for following in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # others have their turn
            piece = following
        await send({"type": "http.response.body", "body": piece, "more_body": False})

    def _pieces(self) -> Iterator[bytes]:
        parts, size = [b'{"calls":['], 0
        shown = self._session.host.shown
        reading = shown.reading()
        for number, trace in enumerate(self._traces.values()):
            text = encode_json(_wire(trace.record(reading, closed=self._closed)), MAX_CALL_BYTES)
            parts += [b",", text] if number else [text]
            size += len(text)
            if size >= PIECE_BYTES:
                yield b"".join(parts)
                parts, size, reading = [], 0, shown.reading()
        yield b"".join([*parts, b'],"total":%d}' % len(self._traces)])


def _wire(record: CallRecord) -> dict[str, Any]:
    """A call of the history; what isn't known yet is absent."""
    error = record.error
    call = {
        "callId": record.id,
        "toolName": record.name,
        "principal": record.principal,
        "route": record.route,
        "decidedBy": record.decided_by,
        "args": record.args,
        "outcome": record.outcome,
        "error": None if error is None else _present(msgspec.structs.asdict(error)),
        "rule": record.rule,
        "startedAt": None if record.started is None else round(record.started * 1000),
        "durationMs": None if record.duration is None else round(record.duration * 1000, 3),
        "argsBytes": record.args_bytes,
        "resultBytes": record.result_bytes,
        "byHost": record.by_host,
        "stages": [{"stage": stage.name, "at": round(stage.at * 1000, 3)} for stage in record.stages],
    }
    return _present(call)


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
