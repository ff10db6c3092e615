"""A broker as a client sees it, on a raw socket, that does what a test says: cuts, lags, lies.

It speaks PROTOCOL's paths and nothing of our server's code. A session's log is what the test has put there; each stream
of it may have a fault. Every request is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from enclave_broker.types.events import Event
from enclave_broker.types.wire import encode_event


class Fault(NamedTuple):
    """What becomes of one stream: after so many bytes of its body it is reset, ended in good order, or falls silent."""

    after: int
    kind: Literal["reset", "end", "silence"] = "reset"


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Response(NamedTuple):
    """A whole answer; with `reset` none, with `silent` none for ever."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = MappingProxyType({})
    reset: bool = False
    silent: bool = False


@dataclass
class Log:
    """A session's lines. `held` come when a tool's result has been posted."""

    lines: list[bytes]
    held: list[bytes] = field(default_factory=list[bytes])
    state: str = "completed"
    answers: list[Any] = field(default_factory=list[Any])
    calls: list[Any] = field(default_factory=list[Any])
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.lines += self.held
        self.held = []
        self.changed.set()


def lines_of(*events: Event) -> list[bytes]:
    return [encode_event(event) for event in events]


class LineServer:
    """`logs` by session id; a POST makes the log of `script` under the id that it brings."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.script: Any = None
        """From a session's id to its Log."""
        self.faults: deque[Fault] = deque()
        """Of the next streams, one each; the streams after them are whole."""
        self.instead: dict[tuple[str, str], deque[Response]] = {}
        """Answers to the next requests of a method and path, instead of the right ones."""
        self.requests: list[Request] = []
        self.piece_bytes = 65_536
        self.url = ""
        self.repeats = True
        """Whether the same POST again is the same session, as here, or a conflict, as with older servers."""
        self.connections = 0
        self._arrived = asyncio.Event()

    def answer_instead(self, method: str, path: str, *responses: Response) -> None:
        self.instead.setdefault((method, path), deque()).extend(responses)

    def asked(self, method: str, path: str = "") -> list[Request]:
        return [request for request in self.requests if request.method == method and path in request.path]

    async def until_asked(self, method: str, path: str = "") -> None:
        while not self.asked(method, path):
            self._arrived.clear()
            await self._arrived.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                self._arrived.set()
                await self._answer(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        instead = self.instead.get((request.method, request.path))
        if instead:
            response = instead.popleft()
            if response.reset:
                _reset(writer)
            if response.silent:
                await asyncio.Event().wait()
            _write(writer, response)
            return
        _, *path = map(unquote, request.path.split("/"))
        log = self.logs.get(path[1]) if len(path) > 1 else None
        if (request.method, path) == ("POST", ["sessions"]):
            await self._start(request, writer)
        elif request.method == "GET" and path[2:] == ["stream"] and log is not None:
            await self._stream(path[1], log, int(request.query.get("fromSeq", ["0"])[0]), writer)
        else:
            value = self._of_session(request, path, log) if log is not None else self._of_all(request.method, path)
            if value is None:
                _write(writer, Response(404, {"code": "NOT_FOUND", "message": "there is no such session"}))
            else:
                _write(writer, Response(body=value))

    def _of_all(self, method: str, path: list[str]) -> Any:
        match method, path:
            case "GET", ["sessions"]:
                return {"sessions": [self._info(id) for id in self.logs], "total": len(self.logs)}
            case "GET", ["code", "actions"]:
                action = {"name": "orders:get", "service": "orders", "inputSchema": {"type": "object"}}
                return {"actions": [action], "services": ["orders"], "version": "1"}
            case _:
                return None

    def _of_session(self, request: Request, path: list[str], log: Log) -> Any:
        match request.method, path[2:]:
            case "GET", []:
                return self._info(path[1])
            case "GET", ["calls"]:
                return {"calls": log.calls}
            case "POST", ["tool-result"]:
                log.answers.append(request.json)
                log.release()
            case "POST", ["cancel"]:
                log.state = "cancelled"
            case "DELETE", []:
                del self.logs[path[1]]
            case _:
                return None
        return {"success": True}

    async def _start(self, request: Request, writer: asyncio.StreamWriter) -> None:
        id = request.json["sessionId"]
        if id in self.logs and not self.repeats:
            _write(writer, Response(409, {"code": "SESSION_EXISTS", "message": "this id is in use"}))
            return
        log = self.logs.setdefault(id, self.script(id))
        await self._stream(id, log, 0, writer)

    async def _stream(self, id: str, log: Log, start: int, writer: asyncio.StreamWriter) -> None:
        fault = self.faults.popleft() if self.faults else None
        left = fault.after if fault is not None else 1 << 60
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nx-session-id: {id}\r\n"
        writer.write(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        at = max(start - 1, 0)
        while True:
            data = b"".join(log.lines[at:])[:left]
            at = len(log.lines)
            left -= len(data)
            for begin in range(0, len(data), self.piece_bytes):
                piece = data[begin : begin + self.piece_bytes]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            if left == 0 and fault is not None:
                await self._fail(fault, writer)
                return
            if not log.held:
                break
            log.changed.clear()
            await log.changed.wait()
        writer.write(b"0\r\n\r\n")

    async def _fail(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        match fault.kind:
            case "reset":
                _reset(writer)
            case "end":
                writer.write(b"0\r\n\r\n")
            case "silence":
                await asyncio.Event().wait()

    def _info(self, id: str) -> dict[str, Any]:
        times = {"createdAt": 1_700_000_000_000, "expiresAt": 1_700_000_060_000}
        stats = {"duration": 1500, "toolCallCount": 2}
        return {"sessionId": id, "state": self.logs[id].state, **times, "stats": stats}


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, parse_qs(parts.query), headers, body)


def _write(writer: asyncio.StreamWriter, response: Response) -> None:
    body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **response.headers}
    lines = [f"HTTP/1.1 {response.status} X", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    raise ConnectionResetError


@asynccontextmanager
async def line_server(script: Any = None, faults: Sequence[Fault] = ()) -> AsyncGenerator[LineServer]:
    """A server in this loop, on a port of its own. Its connections end with it."""
    here = LineServer()
    here.script = script
    here.faults.extend(faults)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(here.serve(reader, writer))
        connections.add(task)
        await asyncio.wait([task])

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield here
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)
