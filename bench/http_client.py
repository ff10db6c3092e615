"""The least of an HTTP client: scripts to POST /sessions, and readers of many streams in a process of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

END = b"\r\n0\r\n\r\n"  # of a chunked body; no line of JSON has a bare line break
BUFFER_BYTES = 1 << 26


def post_request(code: str) -> bytes:
    body = json.dumps({"code": code}).encode()
    return (
        b"POST /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )


def get_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


async def lines_of(port: int, request: bytes) -> list[bytes]:
    """The lines of one stream, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES)
    writer.write(request)
    answer = await reader.readuntil(END)
    writer.close()
    return _lines(answer)


async def post(port: int, code: str) -> list[bytes]:
    """The lines of a new session. Raises RuntimeError if the script failed."""
    lines = await lines_of(port, post_request(code))
    if b'"ok":true' not in lines[-1]:
        raise RuntimeError(f"a session failed: {lines[-1].decode()}")
    return lines


async def post_and_leave(port: int, code: str) -> str:
    """The id of a session that runs on when its client has gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post_request(code))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head.partition(b"x-session-id: ")[2].partition(b"\r\n")[0].decode()


async def post_many(port: int, code: str, count: int, at_once: int = 32) -> None:
    """So many sessions, each to its end."""
    request = post_request(code)
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(request)
            answer = await reader.readuntil(END)
            if b'"ok":true' not in answer:
                raise RuntimeError(f"a session failed: {answer.decode()}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(at_once)))


def _lines(answer: bytes) -> list[bytes]:
    """The lines of a chunked body."""
    rest = answer.partition(b"\r\n\r\n")[2]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return body.splitlines()


class Readers:
    """Streams that a process of its own reads (http_readers.py)."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def open(cls, port: int, count: int, request: bytes, *, lines: int) -> Readers:
        """Until each stream has had so many lines."""
        arguments = [str(Path(__file__).parent / "http_readers.py"), str(port), str(count), str(lines)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, request.decode(), stdin=PIPE, stdout=PIPE
        )
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the readers ended before their streams were open")
        return cls(process)

    async def ended(self) -> tuple[int, int, int]:
        """When all streams have: how many of them properly, and the least and most of lines."""
        assert self._process.stdout is not None
        found = json.loads(await self._process.stdout.readline())
        await self._process.wait()
        return found["ended"], found["least"], found["most"]

    async def close(self) -> None:
        """Leave."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
