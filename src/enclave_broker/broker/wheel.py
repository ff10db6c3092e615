"""One timer wheel a broker: thousands of time-outs that are nearly always cancelled, for the price of one loop timer.

An alarm is due at most one tick late and never early. Exact times (a script's `setTimeout`) use the loop's own timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["TICK", "Alarm", "Wheel"]

TICK = 0.05
"""Seconds. An alarm rings at most so much late."""


def _nothing() -> None:
    """What a cancelled alarm would call."""


class Alarm:
    """One time-out. Cancelling it twice, or after it was due, does nothing."""

    __slots__ = ("_slot", "due", "when")

    def __init__(self, slot: dict[Alarm, None], when: float, due: Callable[[], None]) -> None:
        self._slot = slot
        self.when = when
        """In the loop's time."""
        self.due = due
        slot[self] = None

    def cancel(self) -> None:
        self._slot.pop(self, None)
        self.due = _nothing  # who holds an alarm of its own would be a cycle with it


class Wheel:
    """Alarms by slot: a cancelled one leaves nothing but its share of a slot. No timer runs while there is no alarm."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = TICK) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, dict[Alarm, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seconds: float, due: Callable[[], None]) -> Alarm:
        """Call `due` (which must not raise) in so many seconds of the loop's clock."""
        when = self._loop.time() + seconds
        number = int(when / self._tick) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            if self._timer is None:
                self._arm(int((when - seconds) / self._tick))
        return Alarm(slot, when, due)

    def close(self) -> None:
        """Forget every alarm."""
        self._slots.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, last: int) -> None:
        self._timer = self._loop.call_at((last + 1) * self._tick, self._turn, last)

    def _turn(self, last: int) -> None:
        now = max(last + 1, int(self._loop.time() / self._tick))  # by rounding, the clock may stand just below the tick
        for slot in range(last + 1, now + 1) if now - last < len(self._slots) else sorted(self._slots):
            if slot <= now:
                due = self._slots.pop(slot, {})
                while due:  # one that rings may cancel others of its slot, and itself
                    alarm = next(iter(due))
                    del due[alarm]
                    alarm.due()
        self._timer = None
        if self._slots:
            self._arm(now)
