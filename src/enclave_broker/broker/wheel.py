"""One timer wheel a broker: thousands of time-outs that are nearly always cancelled, for the price of one loop timer.

An alarm is due at most one tick late and never early. Exact times (a script's `setTimeout`) use the loop's own timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm", "Wheel"]

TICK = 0.05


class Alarm:
    """One time-out. Cancelling it twice, or after it was due, does nothing."""

    __slots__ = ("_slot", "_wheel", "due", "when")

    def __init__(self, wheel: Wheel, when: float, due: Callable[[], None]) -> None:
        self._wheel = wheel
        self.when = when
        self.due = due
        self._slot = wheel.insert(when, self)

    def cancel(self) -> None:
        self._wheel.remove(self._slot, self)


class Wheel:
    """Alarms by slot. Nothing is held for a cancelled alarm, and no timer runs while there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = TICK) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, dict[Alarm, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seconds: float, due: Callable[[], None]) -> Alarm:
        """Call `due` (which must not raise) in so many seconds of the loop's clock."""
        return Alarm(self, self._loop.time() + seconds, due)

    def insert(self, when: float, alarm: Alarm) -> int:
        slot = int(when / self._tick) + 1
        self._slots.setdefault(slot, {})[alarm] = None
        if self._timer is None:
            self._arm(int(self._loop.time() / self._tick))
        return slot

    def remove(self, slot: int, alarm: Alarm) -> None:
        if (alarms := self._slots.get(slot)) is not None:
            alarms.pop(alarm, None)
            if not alarms:
                del self._slots[slot]

    def close(self) -> None:
        """Forget every alarm."""
        self._slots.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, last: int) -> None:
        self._timer = self._loop.call_at((last + 1) * self._tick, self._turn, last)

    def _turn(self, last: int) -> None:
        now = max(last, int(self._loop.time() / self._tick))
        for slot in range(last + 1, now + 1) if now - last < len(self._slots) else sorted(self._slots):
            if slot <= now:
                for alarm in self._slots.pop(slot, {}):
                    alarm.due()
        self._timer = None
        if self._slots:
            self._arm(now)
