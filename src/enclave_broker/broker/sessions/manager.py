"""The sessions of a broker: admission, look-up, expiry. Sessions themselves are sessions/session.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from enclave_broker.broker.sessions.host import Host, Sources
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.types.errors import (
    ClosedError,
    ConfigurationError,
    OverloadedError,
    SessionExistsError,
    SessionNotFoundError,
)
from enclave_broker.types.ids import check_session_id, new_session_id
from enclave_broker.types.limits import SessionLimits, seconds
from enclave_broker.types.principal import Principal

__all__ = ["SessionManager"]

RETRY_AFTER = 1.0


class SessionManager:
    """At most `max_concurrent_sessions` that are open at a time.

    One with nothing to run ends `session_timeout` seconds after its last execution; `cleanup_interval` is how often
    that is looked at, in seconds.

    Raises ConfigurationError for a value of the wrong type or range.
    """

    def __init__(
        self,
        *,
        max_concurrent_sessions: int = 1000,
        session_timeout: float = 60.0,
        cleanup_interval: float = 10.0,
    ) -> None:
        if isinstance(max_concurrent_sessions, bool) or not isinstance(max_concurrent_sessions, int):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"max_concurrent_sessions must be a whole number, not {max_concurrent_sessions!r}")
        if max_concurrent_sessions < 1:
            raise ConfigurationError(f"max_concurrent_sessions must be at least 1, not {max_concurrent_sessions}")
        self._maximum = max_concurrent_sessions
        self._timeout = seconds(session_timeout, "session_timeout")
        self._interval = seconds(cleanup_interval, "cleanup_interval")
        self._sessions: dict[str, Session] = {}
        self._open = 0
        """Of these, how many are not closed."""
        self._host: Host | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    def attach(self, host: Host) -> None:
        """The broker has started: sessions may be made."""
        self.detach()
        self._host = host

    def detach(self) -> None:
        """Forget everything: the loop that it belonged to is over."""
        self._sessions.clear()
        self._open = 0
        self._sweep_timer = None
        self._host = None

    def open(
        self,
        *,
        sources: Sources,
        principal: Principal,
        limits: SessionLimits,
        allowed: tuple[Glob, ...] | None,
        metadata: Mapping[str, Any],
        session_id: str | None = None,
    ) -> Session:
        """A new session.

        Raises OverloadedError beyond the maximum, SessionExistsError for an id that is taken, ValueError for one that
        is no session id.
        """
        host = self._host
        if host is None:
            raise ClosedError("the broker has not started or is closed")
        if self._open >= self._maximum:
            raise OverloadedError(
                f"{self._maximum} sessions are open, the maximum (max_concurrent_sessions)", retry_after=RETRY_AFTER
            )
        id = check_session_id(session_id) if session_id is not None else new_session_id(sources.random)
        if id in self._sessions:
            raise SessionExistsError(f"session {id} exists already")
        session = Session(
            host,
            id,
            sources=sources,
            principal=principal,
            limits=limits,
            allowed=allowed,
            metadata=metadata,
            keeper=self,
        )
        self._open += 1
        self._sessions[id] = session
        if self._sweep_timer is None:
            self._sweep_timer = host.loop.call_later(self._interval, self._sweep)
        return session

    def get(self, id: str) -> Session | None:
        return self._sessions.get(id)

    def find_open(self, id: str) -> Session:
        """Raises SessionNotFoundError."""
        if (session := self._sessions.get(id)) is None:
            raise SessionNotFoundError("no such session")
        return session

    def list(self, *, user_id: str | None = None, state: str | None = None) -> Sequence[Session]:
        """Oldest first; of one user, in one state, or all."""
        return [
            session
            for session in self._sessions.values()
            if (user_id is None or session.user_id == user_id) and (state is None or session.state == state)
        ]

    async def destroy(self, id: str) -> bool:
        """Cancel what runs in the session and forget it; False if there is no such session."""
        session = self._sessions.get(id)
        if session is None:
            return False
        session.close("SESSION_CANCELLED", "the session was destroyed", status="cancelled")
        self.forget(session)
        return True

    def closed(self, session: Session) -> None:
        """A closed session makes room; it stays readable for `session_timeout`."""
        if session.id in self._sessions:
            self._open -= 1

    def forget(self, session: Session) -> None:
        """A finished session leaves nothing behind."""
        self._sessions.pop(session.id, None)

    def _sweep(self) -> None:
        host = self._host
        self._sweep_timer = None
        if host is None:
            return
        now = host.loop.time()
        for session in [s for s in self._sessions.values() if s.idle_since is not None]:
            if session.idle_since is not None and now - session.idle_since >= self._timeout:
                session.close("SESSION_EXPIRED", "the session had nothing to run for its session_timeout")
                self.forget(session)
        if self._sessions:
            self._sweep_timer = host.loop.call_later(self._interval, self._sweep)

    async def aclose(self, *, drain: float = 0.0) -> None:
        """Wait up to `drain` seconds for what runs, then end it with SHUTTING_DOWN, and forget every session."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        busy = [session for session in self._sessions.values() if session.idle_since is None]
        if busy and drain > 0:
            waits = [asyncio.ensure_future(session.wait()) for session in busy]
            _, late = await asyncio.wait(waits, timeout=drain)
            for wait in late:
                wait.cancel()
        for session in list(self._sessions.values()):
            session.close("SHUTTING_DOWN", "the broker is shutting down")
        self.detach()
