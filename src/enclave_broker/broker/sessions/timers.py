"""The timers of one script: by time, and those of the same time in the order in which they were set."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence

__all__ = ["Timers"]


class Timers:
    """One timer of the loop for all of a script's. `fire` is called with a timer's number; it may change the timers."""

    __slots__ = ("_due", "_fire", "_handle", "_heap", "_loop", "_order")

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[int], None]) -> None:
        self._loop = loop
        self._fire = fire
        self._heap: list[tuple[float, int, int]] = []
        self._due: dict[int, int] = {}
        """Of each timer that is set its place in the order; the heap's other entries are of cleared ones."""
        self._order = 0
        self._handle: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether any is set."""
        return bool(self._due)

    def change(self, timers: Sequence[tuple[int, float | None]]) -> None:
        """Set and clear, in order: a number and a delay in milliseconds, or None to clear it."""
        if not timers:
            return
        now = self._loop.time()
        for id, delay in timers:
            if delay is None:
                self._due.pop(id, None)
            else:
                self._order += 1
                self._due[id] = self._order
                heapq.heappush(self._heap, (now + delay / 1000, self._order, id))
        self._arm()

    def close(self) -> None:
        """None is set any more, and none will be."""
        self._heap.clear()
        self._due.clear()
        self._arm()
        self._fire = _nothing

    def _arm(self) -> None:
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        if self._handle is not None:
            if heap and self._handle.when() == heap[0][0]:
                return
            self._handle.cancel()
            self._handle = None
        if heap:
            self._handle = self._loop.call_at(heap[0][0], self._ring)

    def _ring(self) -> None:
        self._handle = None
        # The loop rings a little early, by its clock's resolution: the one that it rang for is due by definition.
        now = max(self._loop.time(), self._heap[0][0])
        while self._heap and self._heap[0][0] <= now:
            _, order, id = heapq.heappop(self._heap)
            if self._due.get(id) == order:
                del self._due[id]
                self._fire(id)
        self._arm()


def _nothing(id: int) -> None:
    """What closed timers call: whoever owned them may go."""
