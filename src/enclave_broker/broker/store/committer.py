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
from enclave_broker.types.errors import StoreError

__all__ = ["Committer", "Pending"]

log = logging.getLogger("enclave_broker.store")

FIRST_RETRY, LAST_RETRY = 0.05, 2.0
"""Seconds between tries; each wait is twice the one before."""
CLOSE_SECONDS = 5.0


class Pending(Protocol):
    """A log that has records to write (sessions/log.py)."""

    @property
    def store_id(self) -> str: ...

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
        self._refused: dict[Pending, tuple[float, float]] = {}
        """Logs that the store wouldn't take: when each is tried again, and the wait after that."""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def submit(self, pending: Pending) -> None:
        """The log has records that aren't durable."""
        self._dirty[pending] = None
        self._woken.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._dirty or self._refused:
            self._woken.clear()
            dirty, self._dirty = self._dirty, {}
            logs = [each for each in dirty if each not in self._refused]
            if logs and not await self._written(logs):
                for each in logs:
                    await self._try_alone(each, FIRST_RETRY)
            now = asyncio.get_running_loop().time()
            for each, (when, wait) in list(self._refused.items()):
                if when <= now:
                    await self._try_alone(each, wait)
            if not self._dirty and self._refused:
                soonest = min(when for when, _ in self._refused.values())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(soonest):
                        await self._woken.wait()
        self._task = None

    async def _written(self, logs: Sequence[Pending]) -> bool:
        """Whether the store took what they have, as one commit; it is published then."""
        marks = [(each, len(each.records)) for each in logs]
        batches = [Appended(each.store_id, each.records[each.published : upto]) for each, upto in marks]
        try:
            await self._store.append([batch for batch in batches if batch.records], self._owner)
        except (Exception, asyncio.CancelledError) as error:
            _pass_on(error)
            log.error(
                "the store refused %d logs; they are kept and tried again, each by itself", len(logs), exc_info=error
            )
            return False
        for each, upto in marks:
            _publish(each, upto)
        return True

    async def _try_alone(self, pending: Pending, wait: float) -> None:
        """Write one log: another one may be what the store refuses, or only its answer was lost."""
        try:
            there = await self._store.read(pending.store_id, pending.published)
            if list(there) != list(pending.records[pending.published : pending.published + len(there)]):
                raise StoreError("the store has another log under this id")
            _publish(pending, pending.published + len(there))
            written = await self._written([pending])
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 a store's boundary
            _pass_on(error)
            log.warning("session %s can't be written, and is kept: %s", pending.store_id, error)
            written = False
        self._refused.pop(pending, None)
        if not written:
            again = asyncio.get_running_loop().time() + wait
            self._refused[pending] = again, min(2 * wait, LAST_RETRY)

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
        log.exception("what session %s has to do when it is written failed", pending.store_id)


def _pass_on(error: BaseException) -> None:
    """A cancellation of the committer itself; one that a store has made up is a failure like any other."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
