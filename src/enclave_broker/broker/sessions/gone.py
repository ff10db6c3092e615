"""Ids that clients have chosen, of sessions that had to make room: who asks for one again must not get a second run.

Owned by sessions/manager.py. Remembered for a time, as many as there is room for: nobody's flood pushes out others'.
"""

from __future__ import annotations

from enclave_broker.broker.sessions.shares import Owner

__all__ = ["Gone"]


class Gone:
    """At most `max_ids` of all principals together. Times are the loop's."""

    def __init__(self, max_ids: int) -> None:
        self._max_ids = max_ids
        self._count = 0
        self._ids: dict[Owner, dict[str, float]] = {}
        """Until when each is remembered, the oldest first."""

    def __len__(self) -> int:
        return self._count

    def add(self, owner: Owner, id: str, until: float) -> None:
        ids = self._ids.setdefault(owner, {})
        self._count += id not in ids
        ids.pop(id, None)
        ids[id] = until
        while self._count > self._max_ids:
            if len(ids) * len(self._ids) <= self._max_ids:  # not more than his part
                owner = max(self._ids, key=lambda each: len(self._ids[each]))
            self._drop(owner, next(iter(self._ids[owner])))

    def has(self, owner: Owner, id: str, now: float) -> bool:
        until = self._ids.get(owner, {}).get(id)
        return until is not None and until > now

    def expire(self, now: float) -> None:
        """Forget those whose time is over."""
        for owner, ids in list(self._ids.items()):
            while ids and ids[oldest := next(iter(ids))] <= now:
                self._drop(owner, oldest)

    def _drop(self, owner: Owner, id: str) -> None:
        ids = self._ids[owner]
        del ids[id]
        self._count -= 1
        if not ids:
            del self._ids[owner]

    def clear(self) -> None:
        self._ids.clear()
        self._count = 0
