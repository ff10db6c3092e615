"""What was used of each rate limit: the interface, and the counters that live as long as their process.

A window slides: in no stretch of its length `[t, t + length)` is more charged than the limit, and a charge is refused
only where it would break that. Times are whole nanoseconds of a clock that never goes back, so that this is exact. What
is limited, by what key and for how much, is the caller's (calls/rate_limit.py); here each decision is one step.
"""

from __future__ import annotations

import math
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Protocol

import msgspec

__all__ = ["Charge", "Counters", "Key", "LimitDecision", "MemoryCounters", "QuotaInfo"]

Key = tuple[str, ...]
"""Compared as a whole. Counters that are shared have to keep its parts apart."""

NANOSECONDS = 1_000_000_000
_NEVER = 1 << 63  # later than any time that a window can hold
_MAX_SWEPT = 1_000  # dead keys or ids dropped by one call: a millisecond at most, and more than a call can add


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What one call takes of one limit: `cost` of `max_calls` within `window_ns`.

    What is charged under a key adds up, whatever `max_calls` says at the time. A key has one `window_ns` only.
    """

    key: Key
    window_ns: int
    max_calls: int
    cost: int
    name: str
    """Of the limit, as people are told."""


class QuotaInfo(msgspec.Struct, frozen=True, gc=False):
    """The limit that refuses a call of this `cost`: of its `limit`, so much is `used` in the last `window` seconds."""

    name: str
    limit: int
    used: int
    window: float
    cost: int


class LimitDecision(msgspec.Struct, frozen=True, gc=False):
    """Whether a call has room in all its windows; a decision is true if it has.

    `remaining`: what is left in the fullest window, after the call if it is allowed; None if nothing limits it.
    `retry_after`: seconds, never too few, after which this very call fits if no other comes; infinite if it costs more
    than a limit admits. `quota`: of the limits that refuse, the one that does so longest.
    """

    allowed: bool
    remaining: int | None
    retry_after: float = 0.0
    quota: QuotaInfo | None = None

    def __bool__(self) -> bool:
        return self.allowed


class Counters(Protocol):
    """Windows, maybe shared by several brokers. No two charges of one call have the same key."""

    async def take(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        """Test all charges and make all of them, or none, in one step.

        What was charged under a `charge_id` is charged once: asked again while its longest window holds it, the answer
        is yes and free. Raises StoreError.
        """
        ...

    async def peek(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        """What `take` would decide now. Raises StoreError."""
        ...

    async def release(self, charge_id: Key) -> bool:
        """Give back what was taken under the id, as if it never was; False if nothing is known of it."""
        ...


class _Window:
    """The charges of one key, oldest first, as (time, all that was charged so far): 16 bytes each.

    Entries before `first` are over and wait to be cut off; what they add up to is `spent`. `used` is right until `due`,
    the time when the oldest entry is over.
    """

    __slots__ = ("due", "first", "key", "length", "receipts", "spent", "times", "totals", "used")

    def __init__(self, key: Key, length: int) -> None:
        self.key = key
        self.length = length
        self.times = array("q")
        self.totals = array("q")
        self.first = 0
        self.spent = 0
        self.used = 0
        self.due = _NEVER
        self.receipts: deque[_Receipt] = deque()
        """Of the charges with an id of which it is the longest window, oldest first."""

    def expire(self, now: int) -> None:
        """From `due` on: count only what was charged within the window that ends now."""
        self.first = bisect_right(self.times, now - self.length, self.first)
        spent = self.totals[self.first - 1]
        self.used -= spent - self.spent
        self.spent = spent
        self._cut()

    def wait(self, now: int, units: int) -> int:
        """Nanoseconds until so many of the units that are used are over."""
        return self.times[bisect_left(self.totals, self.spent + units, self.first)] + self.length - now

    def add(self, now: int, cost: int) -> None:
        self.used += cost
        if self.due == _NEVER:
            self.due = now + self.length
        elif self.times[-1] == now:
            self.totals[-1] += cost
            return
        self.times.append(now)
        self.totals.append(self.spent + self.used)

    def remove(self, then: int, cost: int) -> None:
        """Take back a charge; nothing to do if it is over."""
        at = bisect_left(self.times, then, self.first)
        if at == len(self.times) or self.times[at] != then:
            return
        self.used -= cost
        for later in range(at, len(self.totals)):
            self.totals[later] -= cost
        if self.totals[at] == (self.totals[at - 1] if at else self.spent):
            del self.times[at], self.totals[at]
            self._cut()

    def _cut(self) -> None:
        if self.first * 2 >= len(self.times):  # no more is moved than is cut off
            del self.times[: self.first], self.totals[: self.first]
            self.first = 0
        if self.times:
            self.due = self.times[self.first] + self.length
        else:
            self.due = _NEVER
            self.spent = 0  # or a key that is used for years would outgrow its 64 bits


class _Receipt(msgspec.Struct):
    """What was charged under an id at a time. It is kept until that is over in all its windows: `longest` keeps it."""

    id: Key
    time: int
    until: int
    charges: tuple[Charge, ...]
    longest: _Window


class MemoryCounters:
    """Counters of this process, for any thread. `now_ns` is a monotonic clock in nanoseconds.

    A key holds 16 bytes for each charge in its window, and some 500 for each that has an id. It is forgotten by
    whatever call comes after its window has become empty: there is no timer.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._latest = now_ns()
        self._windows: dict[Key, _Window] = {}
        self._unused = _Window((), 0)
        """What stands for the window of a key that isn't held; nothing is ever charged to it."""
        # Each window once, by a time up to which it can't be dropped; the number tells apart those of one time.
        self._ends: list[tuple[int, int, _Window]] = []
        self._numbers = count()
        self._receipts: dict[Key, _Receipt] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """The keys that are held."""
        return len(self._windows)

    async def take(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        return self.take_nowait(charges, charge_id)

    async def peek(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        return self.peek_nowait(charges, charge_id)

    async def release(self, charge_id: Key) -> bool:
        return self.release_nowait(charge_id)

    def take_nowait(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        """`take`, at once."""
        with self._lock:
            return self._decide(charges, charge_id, take=True)

    def peek_nowait(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        """`peek`, at once."""
        with self._lock:
            return self._decide(charges, charge_id, take=False)

    def release_nowait(self, charge_id: Key) -> bool:
        """`release`, at once."""
        with self._lock:
            receipt = self._receipts.pop(charge_id, None)
            if receipt is None:
                return False
            for charge in receipt.charges:
                if (window := self._windows.get(charge.key)) is not None:
                    window.remove(receipt.time, charge.cost)
            kept = receipt.longest.receipts
            for at in range(len(kept) - 1, -1, -1):  # it is among the newest
                if kept[at] is receipt:
                    del kept[at]
                    break
            return True

    def _decide(self, charges: Sequence[Charge], charge_id: Key | None, *, take: bool) -> LimitDecision:
        now = self._latest = max(self._latest, self._now_ns())  # a clock that goes back stands still
        if self._ends and self._ends[0][0] <= now:
            self._sweep(now)
        if charge_id is not None and (receipt := self._receipts.get(charge_id)) is not None and receipt.until > now:
            return LimitDecision(allowed=True, remaining=_least(self._free(charges, now)))
        remaining: int | None = None
        windows: list[_Window] = []
        for charge in charges:
            window = self._windows.get(charge.key, self._unused)
            if window.due <= now:
                window.expire(now)
            left = charge.max_calls - charge.cost - window.used
            if left < 0:
                return self._refusal(charges, now)
            if remaining is None or left < remaining:
                remaining = left
            windows.append(window)
        if take and charges:
            self._charge(charges, charge_id, windows, now)
        return LimitDecision(allowed=True, remaining=remaining)

    def _charge(self, charges: Sequence[Charge], charge_id: Key | None, windows: Sequence[_Window], now: int) -> None:
        longest = self._unused
        for charge, found in zip(charges, windows, strict=True):
            window = self._open(charge, now) if found is self._unused else found
            window.add(now, charge.cost)
            if window.length > longest.length:
                longest = window
        if charge_id is not None:
            receipt = _Receipt(charge_id, now, now + longest.length, tuple(charges), longest)
            self._receipts[charge_id] = receipt
            longest.receipts.append(receipt)
            if longest.receipts[0].until <= now:
                self._forget(longest, now, _MAX_SWEPT)

    def _free(self, charges: Sequence[Charge], now: int) -> list[int]:
        free: list[int] = []
        for charge in charges:
            window = self._windows.get(charge.key, self._unused)
            if window.due <= now:
                window.expire(now)
            free.append(charge.max_calls - window.used)
        return free

    def _refusal(self, charges: Sequence[Charge], now: int) -> LimitDecision:
        free = self._free(charges, now)
        longest, quota = -1.0, None
        for charge, room in zip(charges, free, strict=True):
            if charge.cost <= room:
                continue
            wait = math.inf
            if charge.cost <= charge.max_calls:
                wait = _seconds(self._windows[charge.key].wait(now, charge.cost - room))
            if wait > longest:
                longest = wait
                used, seconds = charge.max_calls - room, charge.window_ns / NANOSECONDS
                quota = QuotaInfo(charge.name, charge.max_calls, used, seconds, charge.cost)
        return LimitDecision(allowed=False, remaining=_least(free), retry_after=longest, quota=quota)

    def _open(self, charge: Charge, now: int) -> _Window:
        window = self._windows[charge.key] = _Window(charge.key, charge.window_ns)
        heappush(self._ends, (now + window.length, next(self._numbers), window))
        return window

    def _sweep(self, now: int) -> None:
        """Drop windows that are empty. Each is looked at once in its length, if at all."""
        budget = _MAX_SWEPT
        while budget > 0 and self._ends and self._ends[0][0] <= now:
            window = self._ends[0][2]
            budget -= 1 + self._forget(window, now, budget)
            if window.due <= now:
                window.expire(now)
            if window.due != _NEVER:
                heapreplace(self._ends, (window.times[-1] + window.length, next(self._numbers), window))
            elif not window.receipts:  # else the next call goes on with them
                heappop(self._ends)
                del self._windows[window.key]

    def _forget(self, window: _Window, now: int, most: int) -> int:
        """Drop receipts that it keeps and that are over; how many."""
        kept = window.receipts
        dropped = 0
        while kept and dropped < most and kept[0].until <= now:
            receipt = kept.popleft()
            dropped += 1
            if self._receipts.get(receipt.id) is receipt:
                del self._receipts[receipt.id]
        return dropped


def _least(free: Sequence[int]) -> int | None:
    return max(0, min(free)) if free else None  # a limit that was lowered may be overdrawn


def _seconds(nanoseconds: int) -> float:
    """Rounded up, so that who waits so long has waited long enough."""
    seconds = nanoseconds / NANOSECONDS
    numerator, denominator = seconds.as_integer_ratio()
    enough = numerator * NANOSECONDS >= nanoseconds * denominator
    return seconds if enough else math.nextafter(seconds, math.inf)
