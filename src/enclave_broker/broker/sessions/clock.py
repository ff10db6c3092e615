"""A script's active time: it stands while all that is pending is a person or a client, and rings when it is used up.

Calls that are queued only behind calls which wait for people or clients don't make it run.

Owned by sessions/execution.py, which says when it stands and when it goes on. Wall-clock limits aren't its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enclave_broker.broker.wheel import Alarm, Wheel

__all__ = ["ActiveClock"]


class ActiveClock:
    """Runs from the start; `ring` is called once when `seconds` of active time are used. All times are the loop's."""

    __slots__ = ("_alarm", "_from", "_loop", "_ring", "_seconds", "_stands_from", "_wheel", "stood")

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, seconds: float, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._wheel = wheel
        self._seconds = seconds
        self._ring = ring
        self._from = loop.time()
        self._stands_from: float | None = None
        self.stood = 0.0
        """Seconds that it stood, up to the last time that it went on."""
        self._alarm: Alarm | None = wheel.after(seconds, ring)

    @property
    def stands(self) -> bool:
        return self._stands_from is not None

    @property
    def used(self) -> float:
        """Active seconds so far."""
        now = self._loop.time() if self._stands_from is None else self._stands_from
        return now - self._from - self.stood

    @property
    def waited(self) -> float:
        """Seconds that it has stood, the present wait among them."""
        return self.stood + (0.0 if self._stands_from is None else self._loop.time() - self._stands_from)

    def stand(self) -> None:
        """No active time passes any more."""
        if self._stands_from is None and self._alarm is not None:
            self._stands_from = self._loop.time()
            self._alarm.cancel()

    def go_on(self) -> None:
        """Active time passes again."""
        if self._stands_from is not None:
            self.stood += self._loop.time() - self._stands_from
            self._stands_from = None
            self._alarm = self._wheel.after(self._seconds - self.used, self._ring)

    def stop(self) -> None:
        """It never rings again."""
        if self._stands_from is not None:
            self.stood += self._loop.time() - self._stands_from
            self._stands_from = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._ring = _nothing


def _nothing() -> None:
    """What a stopped clock rings: whoever owned it may go."""
