"""One session's log: append, then publish, then read and follow. It is the whole truth; nothing keeps a second copy.

Sessions append; streams, `events()`, history, results and replay read. In memory a batch is published when it is
appended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec

from enclave_broker.broker.store.committer import Committer
from enclave_broker.broker.store.records import Fact, Record
from enclave_broker.types.events import Event, FinalEvent, LogEvent, SessionInitEvent, ToolCallEvent
from enclave_broker.types.wire import encode_event

__all__ = ["Batch", "Log", "detached", "json_copy"]


WAKE_SECONDS = 0.005
"""Readers of one log are woken at most once in this time: with a thousand of them a wake-up costs a millisecond."""
ENTRY_BYTES = 256
"""What a record weighs besides its content."""


FEW = 8


class Batch:
    """What is appended together: all of it or none. Numbers its events as the log will, so nothing may come between."""

    __slots__ = ("_session_id", "after", "at", "entries", "last_seq", "weight")

    def __init__(self, session_id: str, seq: int, at: float) -> None:
        self._session_id = session_id
        self.at = at
        """The time of its records, in seconds since the epoch."""
        self.after: int = seq
        """The `seq` of the event before this batch."""
        self.last_seq: int = seq
        self.entries: list[tuple[Event | None, Fact | None]] = []
        self.weight = 0
        """Bytes, about; limits count them."""

    def event(self, kind: type[Event], fact: Fact | None = None, /, **fields: Any) -> None:
        """Add a public event, with what it is to recovery and history."""
        self.last_seq += 1
        self.entries.append((kind(session_id=self._session_id, seq=self.last_seq, **fields), fact))

    def fact(self, fact: Fact) -> None:
        self.entries.append((None, fact))

    def since(self, at: float) -> float:
        """Milliseconds from then, in seconds since the epoch, to now."""
        return 0.0 if self.at <= at else round((self.at - at) * 1000, 3)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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
    """Records of one session, dense by index. Readers are cursors: a slow one costs only itself.

    What is appended is published when it is durable: at once without a `committer`. Readers see only what is published.
    """

    __slots__ = (
        "_committer",
        "_due",
        "_followers",
        "_lines",
        "_most_followers",
        "_next_wake",
        "_now",
        "_seq",
        "_wake_timer",
        "closed",
        "published",
        "records",
        "session_id",
        "size_bytes",
        "store_id",
    )

    def __init__(
        self, session_id: str, now: Callable[[], float], committer: Committer | None = None, *, store_id: str = ""
    ) -> None:
        self.session_id = session_id
        self.store_id = store_id or session_id
        """Its key in the store: two principals may have chosen one session id."""
        self._now = now
        self._committer = committer
        self.records: list[Record] = []
        self.published = 0
        """How many records are durable, and so may be seen."""
        self.size_bytes = 0
        self.closed = False
        self._seq: int = 0
        self._due: deque[tuple[int, Callable[[], None]]] | None = None
        self._followers: list[asyncio.Future[None]] = []
        self._most_followers = FEW
        """With so many, those that have gone meanwhile are looked for."""
        self._lines: dict[int, bytes] | None = None
        self._next_wake = 0.0
        self._wake_timer: asyncio.TimerHandle | None = None

    # -- writing ---------------------------------------------------------------------------------------------------

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
        self.size_bytes = self.size_with(batch)
        if self._committer is None:
            self.published = len(records)
            if self._followers:
                self._wake()
        else:
            self._committer.submit(self)

    def size_with(self, batch: Batch) -> int:
        """What the log will weigh, in bytes, about."""
        return self.size_bytes + batch.weight + ENTRY_BYTES * len(batch.entries)

    def publish(self, upto: int) -> None:
        """The records before this index are durable."""
        self.published = max(self.published, upto)
        while self._due and self._due[0][0] <= self.published:
            self._due.popleft()[1]()
        self._wake()

    @property
    def is_durable(self) -> bool:
        """Whether everything that was appended is."""
        return self.published == len(self.records)

    def seen(self) -> tuple[list[Record], bool]:
        """What is durable, and whether that is all there will ever be."""
        return self.records[: self.published], self.closed and self.is_durable

    def when_durable(self, effect: Callable[[], None]) -> None:
        """Call it when what has been appended so far is durable: now, or later and in order. It must not raise."""
        if self.is_durable:
            effect()
            return
        if self._due is None:
            self._due = deque()
        self._due.append((len(self.records), effect))

    def durable(self) -> asyncio.Future[None] | None:
        """None if everything that was appended is durable; else a future of that. Cancelling it is safe."""
        if self.is_durable:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_durable(partial(_resolve, future))
        return future

    def close(self) -> None:
        """No more comes: followers end after what is there."""
        self.closed = True
        self._ring()

    # -- reading ---------------------------------------------------------------------------------------------------

    def line(self, index: int) -> bytes:
        """The public event of a record as the wire has it, encoded once for all readers."""
        lines = self._lines
        if lines is None:
            lines = self._lines = {}
        line = lines.get(index)
        if line is None:
            event = self.records[index].public
            assert event is not None
            line = lines[index] = encode_event(event)
        return line

    def changed(self) -> asyncio.Future[None]:
        """Done when there may be more, at most once in 5 ms. Cancelling it is safe."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._followers) >= self._most_followers:
            self._followers = [each for each in self._followers if not each.done()]
            self._most_followers = 2 * len(self._followers) + FEW
        self._followers.append(future)
        return future

    def _wake(self) -> None:
        if not self._followers or self._wake_timer is not None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._next_wake:
            self._next_wake = now + WAKE_SECONDS
            self._ring()
        else:
            self._wake_timer = loop.call_at(self._next_wake, self._ring)

    def _ring(self) -> None:
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        followers, self._followers = self._followers, []
        for future in followers:
            _resolve(future)

    async def follow(self, from_index: int = 0) -> AsyncIterator[Record]:
        """History from `from_index`, then live, until the log is closed. Cancelling is safe at any point."""
        cursor = from_index
        while True:
            while cursor < self.published:
                record = self.records[cursor]
                cursor += 1
                yield record
            if self.closed and self.is_durable:
                return
            await self.changed()

    async def events(self, from_seq: int = 1, from_index: int = 0) -> AsyncIterator[Event]:
        """Public events from `from_seq` on, to the first final at or after `from_index`."""
        async for record in self.follow(from_index):
            event = record.public
            if event is None or event.seq < from_seq:
                continue
            yield detached(event)
            if isinstance(event, FinalEvent):
                return
