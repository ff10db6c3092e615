"""Sessions that are over and stay readable for a while: which ones make room when there are too many or too large ones.

Room is shared: who has more than his part of it loses his oldest, so that nobody pushes out others' by running much.
Owned by sessions/manager.py, which forgets what has to go.
"""

from __future__ import annotations

from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.sessions.shares import Share

__all__ = ["Retained"]


class Retained:
    """At most `max_count` sessions of `max_bytes` together."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._order: dict[Session, Share] = {}
        """The oldest first."""
        self._owners = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, session: Session) -> bool:
        return session in self._order

    def add(self, session: Session, share: Share) -> None:
        size = session.log.size_bytes
        self._owners += not share.retained
        self._order[session] = share
        share.retained[session] = size
        share.retained_bytes += size
        self.size_bytes += size

    def drop(self, session: Session) -> bool:
        """It is read no more; False if it wasn't among them."""
        share = self._order.pop(session, None)
        if share is None:
            return False
        size = share.retained.pop(session)  # not what the log weighs now: a call of the host may have ended since
        share.retained_bytes -= size
        self.size_bytes -= size
        self._owners -= not share.retained
        return True

    def one_too_many(self, newest: Share) -> Session | None:
        """Which has to go, None if all have room. `newest` is whose session came last."""
        if len(self._order) <= self._max_count and self.size_bytes <= self._max_bytes:
            return None
        if self._has_too_much(newest):
            return next(iter(newest.retained))
        # Together they are over, so that one of them is over his part.
        return next(session for session, share in self._order.items() if self._has_too_much(share))

    def _has_too_much(self, share: Share) -> bool:
        if len(self._order) > self._max_count and len(share.retained) * self._owners > self._max_count:
            return True
        return self.size_bytes > self._max_bytes and share.retained_bytes * self._owners > self._max_bytes

    def clear(self) -> None:
        self._order.clear()
        self._owners = self.size_bytes = 0
