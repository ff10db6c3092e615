"""One session's log: append, then publish, then read and follow. It is the whole truth; nothing keeps a second copy.

Sessions append; streams, `events()`, history, results and replay read. In memory a batch is published when it is
appended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from enclave_broker.broker.store.records import Fact, Record
from enclave_broker.types.events import Event, FinalEvent, LogEvent, SessionInitEvent, ToolCallEvent

__all__ = ["Batch", "Log", "detached", "json_copy"]


ENTRY_BYTES = 256
"""What a record weighs besides its content."""


class Batch:
    """What is appended together: all of it or none. Numbers its events as the log will, so nothing may come between."""

    __slots__ = ("_session_id", "after", "at", "entries", "last_seq", "weight")

    def __init__(self, session_id: str, seq: int, at: float) -> None:
        self._session_id = session_id
        self.at = at
        """The time of its records, in seconds since the epoch."""
        self.after = self.last_seq = seq
        """The `seq` of the event before this batch, and of its last one."""
        self.entries: list[tuple[Event | None, Fact | None]] = []
        self.weight = 0
        """Bytes, about; limits count them."""

    def event(self, kind: type[Event], fact: Fact | None = None, /, **fields: Any) -> None:
        """Add a public event, with what it is to recovery and history."""
        self.last_seq += 1
        self.entries.append((kind(session_id=self._session_id, seq=self.last_seq, **fields), fact))

    def fact(self, fact: Fact) -> None:
        self.entries.append((None, fact))


def detached(event: Event) -> Event:
    """The event for a reader in this process, who may do to it what he likes."""
    if isinstance(event, ToolCallEvent):
        return msgspec.structs.replace(event, args=json_copy(event.args))
    if isinstance(event, LogEvent) and event.data is not None:
        return msgspec.structs.replace(event, data=json_copy(event.data))
    if isinstance(event, FinalEvent):
        return msgspec.structs.replace(
            event, result=json_copy(event.result), error=json_copy(event.error), stats=json_copy(event.stats)
        )
    if isinstance(event, SessionInitEvent):
        return msgspec.structs.replace(event, encryption=json_copy(event.encryption))
    return event


def json_copy(value: Any) -> Any:
    """A copy of a JSON value. As deep as what the engine may send, where copy.deepcopy runs out of stack."""
    if value is None or isinstance(value, str | int | float | msgspec.UnsetType):
        return value
    return msgspec.json.decode(msgspec.json.encode(value))


class Log:
    """Records of one session, dense by index. Readers are cursors: a slow one costs only itself."""

    __slots__ = ("_followers", "_now", "_seq", "closed", "records", "session_id", "size_bytes")

    def __init__(self, session_id: str, now: Callable[[], float]) -> None:
        self.session_id = session_id
        self._now = now
        self.records: list[Record] = []
        self.size_bytes = 0
        self.closed = False
        self._seq = 0
        self._followers: set[asyncio.Future[None]] = set()

    def batch(self) -> Batch:
        return Batch(self.session_id, self._seq, self._now())

    def append(self, batch: Batch) -> None:
        """Append all of it. Raises ValueError, and appends nothing, for a batch that something else has overtaken."""
        if batch.after != self._seq:
            raise ValueError("another batch was appended after this one was begun")
        records = self.records
        for event, fact in batch.entries:
            records.append(Record(len(records), batch.at, event, fact))
        self._seq = batch.last_seq
        self.size_bytes += batch.weight + ENTRY_BYTES * len(batch.entries)
        if self._followers:
            self._wake()

    def close(self) -> None:
        """No more comes: followers end after what is there."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        followers, self._followers = self._followers, set()
        for future in followers:
            if not future.done():
                future.set_result(None)

    async def follow(self, from_index: int = 0) -> AsyncIterator[Record]:
        """History from `from_index`, then live, until the log is closed. Cancelling is safe at any point."""
        cursor = from_index
        while True:
            while cursor < len(self.records):
                record = self.records[cursor]
                cursor += 1
                yield record
            if self.closed:
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._followers.add(future)
            try:
                await future
            finally:
                self._followers.discard(future)

    async def events(self, from_seq: int = 1, from_index: int = 0) -> AsyncIterator[Event]:
        """Public events from `from_seq` on, to the first final at or after `from_index`."""
        async for record in self.follow(from_index):
            event = record.public
            if event is None or event.seq < from_seq:
                continue
            yield detached(event)
            if isinstance(event, FinalEvent):
                return
