"""One reader of one session's log, as HTTP streams need it: bytes that are there, or a wait.

Holds an index, nothing else: a slow reader costs only itself. Made by `Session.cursor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enclave_broker.broker.sessions.log import Log
from enclave_broker.stream.filters import EventFilter
from enclave_broker.types.events import FinalEvent

__all__ = ["Cursor"]


class Cursor:
    """Reads from a `seq` on to the first final at or after it, or to the end of what there will be."""

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
        self._index = 0
        self.ended = False
        """Whether nothing more will come: the final was taken, or nothing runs and all was taken."""

    def take(self, limit_bytes: int = 65536) -> bytes:
        """What is there, encoded and joined: NDJSON lines, or SSE frames. Empty when the reader has caught up.

        At least one event if there is one, however large; no more once the limit is reached.
        """
        log = self._log
        pieces: list[bytes] = []
        size = 0
        while self._index < log.published and not self.ended and size < limit_bytes:
            index = self._index
            self._index += 1
            event = log.records[index].public
            if event is None or event.seq < self._from_seq:
                continue
            line = log.line(index)
            if self._filter is None or self._filter.passes(event, line):
                piece = b"id: %d\ndata: %b\n" % (event.seq, line) if self._sse else line
                pieces.append(piece)
                size += len(piece)
            self.ended = isinstance(event, FinalEvent)
        if not self.ended and self._index >= log.published:
            self.ended = self._is_over()
        return b"".join(pieces)

    def wait(self) -> asyncio.Future[None]:
        """Done when `take` may have more, or the end has come. Cancelling it is safe."""
        if self.ended or self._index < self._log.published or self._is_over():
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return self._log.changed()

    def close(self) -> None:
        """The reader is gone. Idempotent."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
