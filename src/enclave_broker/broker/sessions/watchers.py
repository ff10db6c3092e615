"""Who watches a session: heartbeats while somebody does, and an end for a run that nobody watches any more.

Owned by sessions/session.py; readers are its cursors. A reader that leaves ends nothing at once: it may come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enclave_broker.broker.wheel import TICK
from enclave_broker.types.events import HeartbeatEvent

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.session import Session
    from enclave_broker.broker.wheel import Alarm

__all__ = ["Watchers"]


class Watchers:
    """`grace`: active seconds that a run goes on when its last reader has left; None is for ever."""

    __slots__ = ("_count", "_grace", "_heart", "_left_at", "_patience", "_session")

    def __init__(self, session: Session, grace: float | None) -> None:
        self._session: Session | None = session
        """None once it is closed, so that no cycle keeps it in memory."""
        self._grace = grace
        self._count = 0
        self._heart: Alarm | None = None
        self._patience: Alarm | None = None
        self._left_at = 0.0
        """The run's active seconds when the last reader left."""

    def came(self) -> None:
        """One more reads."""
        self._count += 1
        self._forgive()
        self.beat()

    def left(self) -> None:
        """One has gone."""
        self._count -= 1
        if self._session is not None and self._grace is not None and self._count == 0 and self._runs:
            self._left_at = self._used
            self._patience = self._session.host.wheel.after(self._grace, self._look)

    def close(self) -> None:
        """Nothing runs in the session any more. Idempotent."""
        self._forgive()
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
        self._session = None

    def beat(self) -> None:
        """See to it that there are heartbeats while somebody reads and something runs."""
        session = self._session
        if session is not None and self._count and self._heart is None and self._runs:
            # An alarm is late by half a tick on average, and a heartbeat rings on a tick: so they come on time.
            self._heart = session.host.wheel.after(session.limits.heartbeat_interval - TICK / 2, self._pulse)

    @property
    def _runs(self) -> bool:
        execution = None if self._session is None else self._session.execution
        return execution is not None and not execution.over

    @property
    def _used(self) -> float:
        execution = None if self._session is None else self._session.execution
        return 0.0 if execution is None or execution.clock is None else execution.clock.used

    def _forgive(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _look(self) -> None:
        """The grace is over, unless the run waited for a person or a client meanwhile."""
        self._patience = None
        if self._session is None or self._grace is None or not self._runs:
            return
        left = self._grace - (self._used - self._left_at)
        if left > 0:
            self._patience = self._session.host.wheel.after(max(left, 1.0), self._look)
            return
        message = f"nobody has watched the run for {self._grace:g} s (one that is detached goes on all the same)"
        self._session.close("SESSION_CANCELLED", message, status="cancelled")

    def _pulse(self) -> None:
        self._heart = None
        session = self._session
        if session is not None and self._count and self._runs:
            batch = session.log.batch()
            batch.event(HeartbeatEvent, ts=session.now_iso())
            session.commit(batch)
            self.beat()
