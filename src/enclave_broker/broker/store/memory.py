"""The store that lives as long as its process: a place for logs to outlive a broker, and what other stores are held to.

A broker without a store keeps each log in its session alone and publishes at once; this is for those that share one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from enclave_broker.broker.store.records import Record
from enclave_broker.broker.store.store import Appended
from enclave_broker.types.errors import StoreError

__all__ = ["MemoryStore"]


class MemoryStore:
    """A Store in this process. `now` is a monotonic clock, for leases."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logs: dict[str, list[Record]] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    async def append(self, batches: Sequence[Appended], owner: str) -> None:
        for session_id, records in batches:
            if self._holder(session_id) not in {None, owner}:
                raise StoreError(f"session {session_id} belongs to another owner")
            expected = len(self._logs.get(session_id, ()))
            for record in records:
                if record.index != expected:
                    raise StoreError(f"record {record.index} of session {session_id} where {expected} has to come")
                expected += 1
        for session_id, records in batches:
            self._logs.setdefault(session_id, []).extend(records)

    async def read(self, session_id: str, from_index: int = 0) -> Sequence[Record]:
        return self._logs.get(session_id, [])[from_index:]

    async def lease(self, session_id: str, owner: str, seconds: float) -> bool:
        if self._holder(session_id) not in {None, owner}:
            return False
        self._leases[session_id] = (owner, self._now() + seconds)
        return True

    async def forget(self, session_id: str) -> None:
        self._logs.pop(session_id, None)
        self._leases.pop(session_id, None)

    def _holder(self, session_id: str) -> str | None:
        holder, until = self._leases.get(session_id, (None, 0.0))
        return holder if until > self._now() else None
