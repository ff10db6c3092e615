"""Callbacks that watch sessions: each gets every event in order, and can harm neither the run nor the others."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from enclave_broker.types.events import Event

__all__ = ["EventCallback", "Observers"]

log = logging.getLogger("enclave_broker.events")

T = TypeVar("T")

EventCallback = Callable[[Event], Awaitable[None] | None]
CLOSE_SECONDS = 1.0
TELL_SECONDS = 60.0
"""How long a callback that is told something once may take."""


class Observers:
    """Owns one task for each callback and session that is watched."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, events: AsyncIterator[Event], callback: EventCallback) -> asyncio.Task[None]:
        """Call it with each event until the final one. The task ends with the events."""
        task = asyncio.get_running_loop().create_task(_pump(events, callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def tell(self, subject: T, callbacks: Sequence[Callable[[T], Awaitable[None] | None]]) -> None:
        """Call each of them with it, side by side."""
        for callback in callbacks:
            task = asyncio.get_running_loop().create_task(_told(subject, callback))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Let the callbacks have what is there, for a moment."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CLOSE_SECONDS)


async def _told(subject: T, callback: Callable[[T], Awaitable[None] | None]) -> None:
    try:
        async with asyncio.timeout(TELL_SECONDS):
            result = callback(subject)
            if inspect.isawaitable(result):
                await result
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        log.exception("a callback failed on %s", type(subject).__name__)


async def _pump(events: AsyncIterator[Event], callback: EventCallback) -> None:
    async for event in events:
        try:
            result = callback(event)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # The run goes on whatever a watcher does; SystemExit out of a task would end the loop.
            log.exception("an event callback failed on %s %d of session %s", event.type, event.seq, event.session_id)
