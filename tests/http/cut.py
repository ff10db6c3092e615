"""A client on bare sockets that is cut off at any byte, and goes on after the last whole event that it has."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
from typing import Literal, NamedTuple

from tests.http.live import request_bytes

Form = Literal["post", "fromSeq", "from", "sse"]

HABITS = [(0.0, 1), (0.4, 3_000), (0.7, 2_500), (1.0, 700)]
"""How often a reader is cut, and after how many bytes at most."""
MOST_CUTS = 30
"""Then it is left alone, since one who gets nothing whole never ends."""

_RESET = struct.pack("ii", 1, 0)
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_SSE = re.compile(rb"id: (\d+)\ndata: (.*\n)\n")


class Answer(NamedTuple):
    """What of an answer has come. `whole`: nothing of it is missing."""

    status: int
    head: bytes
    body: bytes
    whole: bool


def answer_of(raw: bytes) -> Answer | None:
    """The answer in these bytes, which may end anywhere; None without a whole head."""
    head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return None
    status = _HEAD.match(head)
    assert status, head
    if b"transfer-encoding: chunked" not in head.lower():
        return Answer(int(status[1]), head, rest, whole=True)
    body, whole = dechunked(rest)
    return Answer(int(status[1]), head, body, whole)


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """The content of as many chunks as there are, the last maybe cut, and whether the end has come."""
    parts: list[bytes] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        at = end + 2
        if size == 0:
            return b"".join(parts), data[at:] == b"\r\n"
        parts.append(data[at : at + size])
        at += size + 2
    return b"".join(parts), False


async def exchange(port: int, request: bytes, *, cut_at: int | None = None, reset: bool = False) -> bytes:
    """What the server answers: all until it closes, or so many bytes, after which this side closes or resets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        try:
            return await (reader.read() if cut_at is None else reader.readexactly(cut_at))
        except asyncio.IncompleteReadError as error:
            return error.partial
    finally:
        if reset:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


class CutReader:
    """Collects the lines of one session by `seq`. How often and where it is cut is chance's."""

    def __init__(self, port: int, id: str, form: Form, chance: random.Random, post: bytes = b"") -> None:
        self.lines: dict[int, bytes] = {}
        self.cuts = 0
        self.ended = False
        """Whether the answer that held the final came to its own end."""
        self._port = port
        self._id = id
        self._form: Form = form
        self._chance = chance
        self._post = post
        [(self._often, self._span)] = chance.choices(HABITS, [20, 50, 26, 4])

    async def read(self) -> None:
        """To the final, however many connections that takes."""
        while not self.ended:
            await self.read_once()

    async def read_once(self) -> None:
        cut_at = None
        if self.cuts < MOST_CUTS and self._chance.random() < self._often:
            cut_at = self._chance.randint(1, self._span)
        raw = await exchange(self._port, self._request(), cut_at=cut_at, reset=self._chance.random() < 0.5)
        answer = answer_of(raw)
        whole = answer is not None and answer.whole
        assert whole or len(raw) == cut_at, f"the server cut it off: {raw!r}"
        self.cuts += not whole
        if answer is not None:
            assert answer.status in {200, 204}, raw
            self._take(answer)
            self.ended = whole

    def _request(self) -> bytes:
        following = len(self.lines) + 1
        if self._form == "post" and following == 1:  # it can't know whether it has begun anything
            return request_bytes("POST", "/sessions", self._post, "Connection: close")
        headers = ["Connection: close"]
        query = f"?from={following}"
        if self._form == "sse":
            headers += ["Accept: text/event-stream", f"Last-Event-ID: {following - 1}"]
            query = ""
        elif self._form == "fromSeq":
            query = f"?fromSeq={following}"
        return request_bytes("GET", f"/sessions/{self._id}/stream{query}", b"", *headers)

    def _take(self, answer: Answer) -> None:
        """The whole events of it. Each has to be the very next."""
        if self._form == "sse":
            frames = _SSE.findall(answer.body)
            lines = [line for _, line in frames]
            assert [int(id) for id, _ in frames] == [json.loads(line)["seq"] for line in lines]
        else:
            lines = answer.body.splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
        for line in lines:
            seq = json.loads(line)["seq"]
            assert seq == len(self.lines) + 1, f"event {seq} came after {len(self.lines)}"
            self.lines[seq] = line
