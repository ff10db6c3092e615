"""Whether anybody is still there to read an answer that takes long, and whether it may go on.

Owns a task and an alarm for each answer that has lasted for a while; most end before, and pay for one alarm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope

from enclave_broker.broker.http.leftovers import ABORT, Leftovers
from enclave_broker.broker.http.timing import Timers
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.wheel import Alarm

__all__ = ["StreamWatch", "Watch"]


class Watch:
    """Notices that the client is gone, and frees the task that answers it from whatever that waits for.

    Servers tell it only to who asks, and drop what is sent to nobody. Asking takes a task, so only a stream that has
    lasted for a while does.
    """

    __slots__ = ("_alarm", "_owner", "_receive", "_task", "gone")

    def __init__(self, receive: Receive, timers: Timers) -> None:
        self.gone = False
        self._receive = receive
        self._owner = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self._alarm: Alarm | None = timers.watch.after(timers.timing.watch, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._until_gone(), name="watching for a client's leave")

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.gone = True
        if self._owner is not None:
            self._owner.cancel()

    def took_back(self) -> bool:
        """Whether a cancellation was this one's own, and nobody else's."""
        return self.gone and self._owner is not None and self._owner.uncancel() == 0

    def close(self) -> None:
        """Idempotent. Nothing of it refers to itself any more, so that it goes without a collection of garbage."""
        alarm, task = self._alarm, self._task
        self._alarm = self._task = self._owner = None
        if alarm is not None:
            alarm.cancel()
        if task is not None:
            task.cancel()


class StreamWatch(Watch):
    """A Watch that also ends a stream of a forgotten session, when those have to make room."""

    __slots__ = ("_abort", "_leftovers", "_session", "_timers")

    def __init__(self, scope: Scope, receive: Receive, timers: Timers, session: Session, leftovers: Leftovers) -> None:
        super().__init__(receive, timers)
        extensions: dict[str, Any] = scope.get("extensions") or {}
        self._abort: Callable[[], None] | None = extensions.get(ABORT)
        self._timers = timers
        self._session = session
        self._leftovers = leftovers

    def _begin(self) -> None:
        super()._begin()
        self._look()

    def _look(self) -> None:
        self._alarm = self._timers.watch.after(self._timers.timing.look, self._look)
        self._leftovers.look(self._session, self._cut)

    def _cut(self) -> None:
        """What the client hasn't read is lost: else the server would wait until it has."""
        if self._abort is not None:
            self._abort()
        self._leave()

    def close(self) -> None:
        super().close()
        self._leftovers.left(self._session, self._cut)
