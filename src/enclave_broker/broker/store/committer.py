"""Group commit: whatever is appended while a commit is under way is the next one. Commit before publish.

One for each broker that has a store. What can't be written is kept and tried again, log by log: until it is, nothing of
it is seen and no handler starts on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from enclave_broker.broker.store.records import Record
from enclave_broker.broker.store.store import Appended, Store

__all__ = ["Committer", "Pending"]

log = logging.getLogger("enclave_broker.store")

FIRST_RETRY, LAST_RETRY = 0.05, 2.0
"""Seconds between tries; each wait is twice the one before."""
CLOSE_SECONDS = 5.0


class Pending(Protocol):
    """A log that has records to write (sessions/log.py)."""

    @property
    def session_id(self) -> str: ...

    @property
    def records(self) -> Sequence[Record]: ...

    @property
    def published(self) -> int:
        """How many of the records are durable."""
        ...

    def publish(self, upto: int, /) -> None:
        """Those before this index are."""
        ...


class Committer:
    """Owns one task while there is something to write."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._dirty: dict[Pending, None] = {}
        self._task: asyncio.Task[None] | None = None

    def submit(self, pending: Pending) -> None:
        """The log has records that aren't durable."""
        self._dirty[pending] = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        wait = FIRST_RETRY
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            try:
                await self._write(list(dirty))
                wait = FIRST_RETRY
            except Exception:
                log.exception("the store refused %d logs; they are kept and tried again, each by itself", len(dirty))
                kept = [pending for pending in dirty if not await self._has_written(pending)]
                self._dirty = {**dict.fromkeys(kept), **self._dirty}
                if kept:
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LAST_RETRY)
        self._task = None

    async def _write(self, logs: Sequence[Pending]) -> None:
        """Write what they have as one commit, and publish it."""
        marks = [(each, len(each.records)) for each in logs]
        batches = [Appended(each.session_id, each.records[each.published : upto]) for each, upto in marks]
        await self._store.append([batch for batch in batches if batch.records], self._owner)
        for each, upto in marks:
            _publish(each, upto)

    async def _has_written(self, pending: Pending) -> bool:
        """Write one log alone: another one may be what the store refuses, or only its answer was lost."""
        try:
            there = len(await self._store.read(pending.session_id, pending.published))
            _publish(pending, min(pending.published + there, len(pending.records)))
            await self._write([pending])
        except Exception as error:  # noqa: BLE001 a store's
            log.warning("session %s can't be written, and is kept: %s", pending.session_id, error)
            return False
        return True

    async def aclose(self) -> None:
        """Give what is left a last chance; what can't be written by then was never acknowledged."""
        task = self._task
        if task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await asyncio.shield(task)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _publish(pending: Pending, upto: int) -> None:
    try:
        pending.publish(upto)
    except Exception:
        log.exception("what session %s has to do when it is written failed", pending.session_id)
