"""NDJSON: from bytes that come in any pieces to items, and back.

Owns where a line ends and how long it may be; what a line means is the decode function's. Called by a stream's clients.
A line ends at `\\n` and nowhere else: U+2028 and U+0085, at which text libraries split, stand within JSON texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from enclave_broker.types.bounded_json import encode_json
from enclave_broker.types.wire import MAX_LINE_BYTES

__all__ = ["BadLine", "NdjsonDecoder", "encode_line"]

T = TypeVar("T")

_MAX_SHOWN = 80  # bytes of a line in an error


class BadLine(msgspec.Struct, frozen=True):
    """A line that could not be decoded. The stream goes on after it."""

    number: int
    """Counts from 1; blank lines count, too."""
    reason: str
    start: str
    """The first characters of the line, for a log."""

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}: {self.start!r}"


class NdjsonDecoder(Generic[T]):
    """Bytes in, items out, in order. However the bytes are split, the same items come.

    `decode` is handed one line without its end, and raises ValueError for a line that it doesn't accept: it becomes a
    BadLine. Blank lines are no items. A line may have `max_line_bytes` without its `\\n`; no more is ever held.
    """

    __slots__ = ("_decode", "_held", "_line", "_max_line_bytes", "_skipping")

    def __init__(self, decode: Callable[[bytes], T], *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._decode = decode
        self._max_line_bytes = max_line_bytes
        self._held = bytearray()
        self._line = 1
        self._skipping = False  # the rest of a line that was too long

    def feed(self, data: bytes | bytearray | memoryview) -> list[T | BadLine]:
        """The items that `data` completes."""
        items: list[T | BadLine] = []
        first, *others = bytes(data).split(b"\n")
        self._hold(first, items)
        if not others:
            return items
        self._end(items)
        *whole, rest = others
        for line in whole:
            if len(line) > self._max_line_bytes:
                items.append(self._too_long(line))
            else:
                self._take(line, items)
            self._line += 1
        self._hold(rest, items)
        return items

    def finish(self) -> list[T | BadLine]:
        """What is left when no more bytes come: a last line without its end, whole or cut off."""
        items: list[T | BadLine] = []
        rest = bytes(self._held)
        self._end(items)
        if items and isinstance(items[0], BadLine):
            return [self._bad(rest, "the stream ended within this line", self._line - 1)]
        return items

    def _hold(self, piece: bytes, items: list[T | BadLine]) -> None:
        if self._skipping:
            return
        # Of a piece of any size no more is kept than shows that the line is too long.
        self._held += piece[: self._max_line_bytes + 1 - len(self._held)]
        if len(self._held) > self._max_line_bytes:
            items.append(self._too_long(self._held))
            self._held.clear()
            self._skipping = True

    def _end(self, items: list[T | BadLine]) -> None:
        if not self._skipping:
            line = bytes(self._held)
            self._held.clear()
            self._take(line, items)
        self._skipping = False
        self._line += 1

    def _take(self, line: bytes, items: list[T | BadLine]) -> None:
        line = line.removesuffix(b"\r")
        if not line or line.isspace():
            return
        try:
            items.append(self._decode(line))
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deep"
            items.append(self._bad(line, reason, self._line))

    def _too_long(self, line: bytes | bytearray) -> BadLine:
        line = line[: self._max_line_bytes + 1]  # as much as is held when the line comes in pieces
        return self._bad(line, f"it has more than {self._max_line_bytes:,} bytes", self._line)

    @staticmethod
    def _bad(line: bytes | bytearray, reason: str, number: int) -> BadLine:
        return BadLine(number, reason, bytes(line[:_MAX_SHOWN]).decode("utf-8", "backslashreplace"))


def encode_line(value: Any, max_bytes: int = MAX_LINE_BYTES) -> bytes:
    """The value as one line, its `\\n` included. Events have their own: types/wire.py.

    Raises WireSizeError beyond `max_bytes`, and WireError for what JSON can't hold.
    """
    return encode_json(value, max_bytes) + b"\n"
