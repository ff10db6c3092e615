"""One reader of one session's log, as HTTP streams need it: bytes that are there, or a wait.

Holds an index, nothing else: a slow reader costs only itself. Made by `Session.cursor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from enclave_broker.broker.sessions.log import Log
from enclave_broker.stream.filters import EventFilter
from enclave_broker.types.events import FinalEvent

__all__ = ["Cursor"]

FILTER_SECONDS = 0.01
"""How long one `take` may ask a filter: a check may take milliseconds, and a log has many thousand events."""

SHORT_SECONDS = 0.002
"""What takes no longer is nobody's trouble."""


class Cursor:
    """Reads from a `seq` on to the first final at or after it, or to the end of what there will be."""

    _free_at = 0.0
    """When a filter may be asked again: together, all of the process have half of the time at most."""
    __slots__ = ("_filter", "_from_seq", "_index", "_is_over", "_log", "_on_close", "_sse", "ended")

    def __init__(
        self,
        log: Log,
        *,
        from_seq: int,
        filter: EventFilter | None,
        sse: bool,
        is_over: Callable[[], bool],
        on_close: Callable[[], None],
    ) -> None:
        self._log = log
        self._from_seq = from_seq
        self._filter = filter
        self._sse = sse
        self._is_over = is_over
        self._on_close: Callable[[], None] | None = on_close
        self._index = from_seq - 1
        """A record's index is never below its event's `seq` - 1, so that all before has been seen."""
        self.ended = False
        """Whether nothing more will come: the final was taken, or nothing runs and all was taken."""

    def take(self, limit_bytes: int = 65536) -> bytes:
        """What is there, encoded and joined: NDJSON lines, or SSE frames.

        At least one event if there is one, however large; no more once the limit is reached. Empty when the reader has
        caught up, and when its filter needs more time: `wait` knows.
        """
        log, filter = self._log, self._filter
        pieces: list[bytes] = []
        size = 0
        begun = until = 0.0
        if filter is not None:
            begun = perf_counter()
            if begun < Cursor._free_at and self._index < log.published:
                return b""
            until = begun + FILTER_SECONDS
        while self._index < log.published and not self.ended and size < limit_bytes:
            index = self._index
            self._index += 1
            event = log.records[index].public
            if event is None or event.seq < self._from_seq:
                continue
            self.ended = isinstance(event, FinalEvent)
            line = log.line(index)
            if filter is None or filter.passes(event, line):
                piece = b"id: %d\ndata: %b\n" % (event.seq, line) if self._sse else line
                pieces.append(piece)
                size += len(piece)
            if until and perf_counter() > until:
                break
        if filter is not None and (spent := perf_counter() - begun) > SHORT_SECONDS:
            Cursor._free_at = begun + 2 * spent
        if not self.ended and self._index >= log.published:
            self.ended = self._is_over()
        return b"".join(pieces)

    def wait(self) -> asyncio.Future[None]:
        """Done when `take` may have more, or the end has come; never in this turn of the loop, which others share.

        Cancelling it is safe.
        """
        if self.ended or self._index < self._log.published or self._is_over():
            loop = asyncio.get_running_loop()
            following: asyncio.Future[None] = loop.create_future()
            pause = Cursor._free_at - perf_counter() if self._filter is not None else 0.0
            if pause > 0:
                loop.call_later(pause, _resolve, following)
            else:
                loop.call_soon(_resolve, following)
            return following
        return self._log.changed()

    def close(self) -> None:
        """The reader is gone. Idempotent."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
