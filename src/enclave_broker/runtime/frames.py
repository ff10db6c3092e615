"""Frames between the broker and a worker process: a nine-byte header and a body. Sans-I/O.

Both ends use this module. Sizes are checked before anything is allocated; what a worker sends is untrusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

__all__ = ["CLOSED", "HEADER", "MAX_FRAME_BYTES", "STEP", "Down", "FrameDecoder", "FrameError", "Hello", "Up", "pack"]

HEADER = struct.Struct("<IBI")
"""Length of the body, type, run (an execution's number in its worker; 0 for the worker itself)."""
STEP = struct.Struct("<IBB")
"""Begins the body of a STEP frame: CPU microseconds of the step, 1 if the run has ended, verdict."""
CLOSED = struct.Struct("<I")
"""The body of a CLOSED frame: CPU microseconds that no STEP has told, of the step that was under way."""
MAX_FRAME_BYTES = (256 << 20) + (1 << 16)
"""An engine's memory ends at 256 MiB, so nothing that one says in a step can be longer."""
PROTOCOL = 2


class Down(IntEnum):
    """Broker to worker."""

    START = 1
    DELIVER = 2
    KILL = 3
    PING = 4


class Up(IntEnum):
    """Worker to broker. Every KILL is answered by one CLOSED, every START and DELIVER to a live run by one STEP."""

    HELLO = 1
    STEP = 2
    CLOSED = 3
    PONG = 4


class Hello(msgspec.Struct, frozen=True):
    """What a worker says first: who it is and which walls it stands behind."""

    protocol: int
    pid: int
    engines: dict[str, str]
    threads: int
    walls: msgspec.Raw


class FrameError(ValueError):
    """The other side sent something that isn't a frame."""


def pack(kind: int, run: int, body: bytes = b"") -> bytes:
    return HEADER.pack(len(body), kind, run) + body


class FrameDecoder:
    """Bytes in, whole frames out, whatever the pieces. Holds at most one unfinished frame."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The frames that `data` completes, as (type, run, body).

        Raises FrameError for a body over the limit, before it is buffered.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            data = bytes(buffer) if self._whole(buffer) else b""
            if not data:
                return
            buffer.clear()
        offset, end = 0, len(data)
        while end - offset >= HEADER.size:
            length, kind, run = HEADER.unpack_from(data, offset)
            if length > self._limit:
                raise FrameError(f"a frame of {length} bytes; at most {self._limit} are taken")
            after = offset + HEADER.size + length
            if after > end:
                break
            yield kind, run, data[offset + HEADER.size : after]
            offset = after
        if offset < end:
            buffer += memoryview(data)[offset:]

    def _whole(self, buffer: bytearray) -> bool:
        """Whether at least one frame is complete; checks the limit."""
        if len(buffer) < HEADER.size:
            return False
        length = HEADER.unpack_from(buffer)[0]
        if length > self._limit:
            raise FrameError(f"a frame of {length} bytes; at most {self._limit} are taken")
        return len(buffer) >= HEADER.size + length
