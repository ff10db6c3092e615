"""The sessions of a broker: admission, look-up, expiry. Sessions themselves are sessions/session.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from enclave_broker.broker.sessions.asking import only_waits_for_people
from enclave_broker.broker.sessions.gone import Gone
from enclave_broker.broker.sessions.host import Host, Sources, host_without_runtime
from enclave_broker.broker.sessions.retained import Retained
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.sessions.shares import Share, Shares, owner_of
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.types.errors import (
    ClosedError,
    ConfigurationError,
    OverloadedError,
    SessionExistsError,
    SessionNotFoundError,
)
from enclave_broker.types.ids import check_session_id, new_session_id
from enclave_broker.types.limits import SessionLimits, seconds, whole
from enclave_broker.types.principal import ANONYMOUS, Principal
from enclave_broker.types.principal_limits import PrincipalLimits

__all__ = ["SessionManager"]

RETRY_AFTER = 1.0
NO_FACTS: Mapping[str, Any] = MappingProxyType({})
MAX_CLOSED = 1000
MAX_CLOSED_BYTES = 64 << 20
"""Of the sessions that are over, so many and so much stay readable."""
MAX_GONE = 100_000
"""Ids of sessions that had to make room before their time."""
LIST_LIMIT = 100

Key = tuple[str | None, str, str]
"""Tenant, subject and id."""


class SessionManager:
    """At most `max_concurrent_sessions` that are open at a time.

    One with nothing to run ends `session_timeout` seconds after its last execution and is forgotten; one that is over
    stays readable for `retention` seconds, as long as there are no more than `max_retained` and `max_retained_bytes`
    (who has more than his part loses his oldest); `cleanup_interval` is how often that is looked at. `per_principal`
    is what all sessions of one principal may take together. A run that a client has started without `detach` is
    cancelled when nobody has watched it for `grace` seconds of active time. All in seconds.

    Raises ConfigurationError for a value of the wrong type or range.
    """

    def __init__(
        self,
        *,
        max_concurrent_sessions: int = 1000,
        session_timeout: float = 60.0,
        cleanup_interval: float = 10.0,
        grace: float = 30.0,
        retention: float = 600.0,
        max_retained: int = MAX_CLOSED,
        max_retained_bytes: int = MAX_CLOSED_BYTES,
        per_principal: PrincipalLimits | None = None,
    ) -> None:
        self._maximum = whole(max_concurrent_sessions, "max_concurrent_sessions", least=1)
        self._timeout = seconds(session_timeout, "session_timeout")
        self._interval = seconds(cleanup_interval, "cleanup_interval")
        self._grace = seconds(grace, "grace")
        self._retention = seconds(retention, "retention")
        self._retained = Retained(
            whole(max_retained, "max_retained", least=0), whole(max_retained_bytes, "max_retained_bytes", least=0)
        )
        if per_principal is not None and not isinstance(per_principal, PrincipalLimits):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"per_principal is a PrincipalLimits, not {per_principal!r}")
        self.shares = Shares(per_principal or PrincipalLimits())
        """What each principal has."""
        self._sessions: dict[Key, Session] = {}
        self._ids: dict[str, list[Session]] = {}
        """An id that a client chose is a key within its principal only."""
        self._open = 0
        """How many of the sessions are not closed."""
        self._gone = Gone(MAX_GONE)
        self._refusing = False
        self._host: Host | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    def attach(self, host: Host) -> None:
        """The broker has started: sessions may be made."""
        self.detach()
        self._take(host)

    def _take(self, host: Host) -> None:
        self._host = host
        self.shares.time = host.loop.time

    def detach(self) -> None:
        """Forget everything: the loop that it belonged to is over."""
        self._sessions.clear()
        self._ids.clear()
        self._retained.clear()
        self._gone.clear()
        self.shares.clear()
        self._open = 0
        self._refusing = False
        self._sweep_timer = None
        self._host = None

    @property
    def refusing(self) -> bool:
        """Whether no more sessions are made."""
        return self._refusing

    def shut_down(self) -> None:
        """End every session with SHUTTING_DOWN, and make no more. Idempotent."""
        self._refusing = True
        for session in list(self._sessions.values()):
            if not session.closed:
                session.close("SHUTTING_DOWN", "the broker is shutting down")

    def open(
        self,
        *,
        sources: Sources,
        principal: Principal,
        limits: SessionLimits,
        allowed: tuple[Glob, ...] | None,
        metadata: Mapping[str, Any],
        session_id: str | None = None,
        single: bool = False,
        manual: bool = False,
        detached: bool = True,
        context: Mapping[str, Any] = NO_FACTS,
    ) -> Session:
        """A new session; `single`: it is closed after one execution. `detached`: it needs nobody who watches.

        Raises OverloadedError beyond the maximum (RATE_LIMITED beyond the principal's own), SessionExistsError for an
        id that is taken, ConfigurationError for one that is no session id, ClosedError.
        """
        host = self._host
        if host is None or self._refusing:
            raise ClosedError("the broker is shutting down" if host else "the broker has not started or is closed")
        id = new_session_id(sources.random) if session_id is None else _checked(session_id)
        key = _key(principal, id)
        if key in self._sessions:
            raise SessionExistsError(f"session {id} exists already")
        if session_id is not None and self._gone.has(owner_of(principal), id, host.loop.time()):
            raise SessionExistsError(f"session {id} was here and is over: its events are forgotten, it runs once")
        if self._open >= self._maximum:
            raise OverloadedError(
                f"{self._maximum} sessions are open, the maximum (max_concurrent_sessions)", retry_after=RETRY_AFTER
            )
        share = self._share_with_room(principal)
        session = Session(
            host,
            id,
            sources=sources,
            principal=principal,
            limits=limits,
            allowed=allowed,
            metadata=metadata,
            context=context,
            keeper=self,
            single=single,
            manual=manual,
            chosen=session_id is not None,
            grace=None if detached else self._grace,
        )
        if share.limits is not None:
            session.spend = partial(self._spent, principal)
        self._open += 1
        share.add(session)
        self._sessions[key] = session
        self._ids.setdefault(id, []).append(session)
        self._sweep_later()
        return session

    def _share_with_room(self, principal: Principal) -> Share:
        """The principal's share, if it has room for one more session. Raises OverloadedError, RATE_LIMITED."""
        share = self.shares.of(principal)
        if share.limits is not None:
            try:
                share.check()
                while share.retained and share.is_over_bytes:
                    self._make_room(next(iter(share.retained)))
                share.check_bytes()
            except OverloadedError:
                self.shares.look(share)
                raise
            share = self.shares.of(principal)  # it may have been forgotten with the last session that made room
        return share

    def _spent(self, principal: Principal, cpu_us: int) -> None:
        """A script of the principal has used CPU time. Its session may be forgotten already."""
        self.shares.of(principal).spent(cpu_us)
        self._sweep_later()

    async def create(
        self,
        *,
        user_id: str | None = None,
        principal: Principal | None = None,
        metadata: Mapping[str, Any] | None = None,
        limits: SessionLimits | None = None,
        session_id: str | None = None,
    ) -> Session:
        """A new session without code, as `Broker.create_session` makes them, with every tool allowed.

        A manager that no broker has keeps sessions all the same, but nothing can be executed in them. Raises as `open`.
        """
        if user_id is not None:
            if principal is not None:
                raise ConfigurationError("principal and user_id say the same thing: give one of them")
            principal = Principal(user_id)
        if self._host is None and not self._refusing:
            self._take(host_without_runtime(asyncio.get_running_loop()))
        return self.open(
            sources=Sources(),
            principal=principal or ANONYMOUS,
            limits=limits or SessionLimits(),
            allowed=None,
            metadata=metadata or {},
            session_id=session_id,
        )

    def get(self, id: str) -> Session | None:
        """This node's session of an id; the oldest, should several principals have chosen it."""
        sessions = self._ids.get(id)
        return sessions[0] if sessions else None

    def find_called(self, id: str, principal: Principal | None) -> Session:
        """The session that a call names: of its principal and nobody else's, if it says which one.

        Raises SessionNotFoundError, and ConfigurationError for an id that several principals have chosen, where nothing
        says whose is meant.
        """
        sessions = self._ids.get(id, [])
        if principal is not None:
            own = [each for each in sessions if owner_of(each.principal) == owner_of(principal)]
            sessions = own if own or owner_of(principal) != owner_of(ANONYMOUS) else sessions  # it says nothing
        if len(sessions) > 1:
            raise ConfigurationError(f"several principals have a session {id}: nothing says whose is meant")
        if not sessions:
            raise SessionNotFoundError("no such session")
        return sessions[0]

    def find_for(self, principal: Principal, id: str) -> Session:
        """The session of an id that this principal has made. Raises SessionNotFoundError, also for somebody else's."""
        if (session := self._sessions.get(_key(principal, id))) is None:
            raise SessionNotFoundError("no such session")
        return session

    async def find(self, id: str) -> Session | None:
        """The session of an id, any node's. (There is one node today.)"""
        return self.get(id)

    def list(
        self,
        *,
        user_id: str | None = None,
        tenant: str | None = None,
        state: str | None = None,
        after: str | None = None,
        limit: int | None = LIST_LIMIT,
    ) -> Sequence[Session]:
        """Oldest first: of one user, tenant or state, those after the session with the id `after`, at most `limit`.

        None is all of them.
        """
        found = [
            session
            for session in self._sessions.values()
            if (user_id is None or session.user_id == user_id)
            and (tenant is None or session.principal.tenant == tenant)
            and (state is None or session.state == state)
        ]
        if after is not None:
            place = next((n for n, session in enumerate(found) if session.id == after), len(found))
            found = found[place + 1 :]
        return found if limit is None else found[:limit]

    def list_for(self, principal: Principal, *, state: str | None = None) -> Sequence[Session]:
        """All of a principal's own, the oldest first."""
        share = self.shares.find(principal)
        sessions = () if share is None else share.sessions.values()
        return [session for session in sessions if state is None or session.wire_state == state]

    async def destroy(self, id: str) -> bool:
        """Cancel what runs in the session and forget it; False if there is no such session.

        Raises ConfigurationError for an id that several principals have chosen.
        """
        return id in self._ids and await self._destroyed(self.find_called(id, None))

    async def destroy_for(self, principal: Principal, id: str) -> bool:
        """The same, for a principal's own session."""
        session = self._sessions.get(_key(principal, id))
        return session is not None and await self._destroyed(session)

    async def _destroyed(self, session: Session) -> bool:
        async def end() -> bool:
            session.close("SESSION_CANCELLED", "the session was destroyed", status="cancelled")
            self.forget(session)
            return True

        return await session.host.here(end)

    # -- Keeper (sessions/session.py) ------------------------------------------------------------------------------

    def closed(self, session: Session) -> None:
        """A closed session makes room; it stays readable while there are few and small enough of them."""
        key = _key(session.principal, session.id)
        if self._sessions.get(key) is not session:
            return
        share = self.shares.of(session.principal)
        self._open -= 1
        share.closed()
        self._retained.add(session, share)
        while (surplus := self._retained.one_too_many(share)) is not None:
            self._make_room(surplus)

    def _make_room(self, session: Session) -> None:
        """It is forgotten before its time: who asks again for the run of an id of its own must not get a second one."""
        if session.chosen and self._host is not None:
            self._gone.add(owner_of(session.principal), session.id, self._host.loop.time() + self._retention)
        self.forget(session)

    def forget(self, session: Session) -> None:
        """Nothing of it is left here."""
        key = _key(session.principal, session.id)
        if self._sessions.get(key) is not session:
            return
        del self._sessions[key]
        same = self._ids[session.id]
        same.remove(session)
        if not same:
            del self._ids[session.id]
        share = self.shares.of(session.principal)
        if not self._retained.drop(session):
            self._open -= 1
            share.closed()
        share.remove(session)
        if session.closed:
            session.release()

    def _sweep(self) -> None:
        host = self._host
        self._sweep_timer = None
        if host is None:
            return
        now = host.loop.time()
        for session in [s for s in self._sessions.values() if s.idle_since is not None]:
            patience = self._retention if session.closed else self._timeout
            if session.idle_since is not None and now - session.idle_since >= patience:
                session.close("SESSION_EXPIRED", "the session had nothing to run for its session_timeout")
                self.forget(session)
        self._gone.expire(now)
        self.shares.expire()
        if self._sessions or self._gone or self.shares:
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweep_timer is None and self._host is not None:
            self._sweep_timer = self._host.loop.call_later(self._interval, self._sweep)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self, *, drain: float = 0.0) -> None:
        """Wait up to `drain` seconds for what runs, but for no person; end all with SHUTTING_DOWN and forget it."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        busy = [each for each in self._sessions.values() if each.idle_since is None and not only_waits_for_people(each)]
        if busy and drain > 0:
            waits = [asyncio.ensure_future(session.wait()) for session in busy]
            _, late = await asyncio.wait(waits, timeout=drain)
            for wait in late:
                wait.cancel()
        for session in list(self._sessions.values()):
            session.close("SHUTTING_DOWN", "the broker is shutting down")
        self.detach()


def _key(principal: Principal, id: str) -> Key:
    return principal.tenant, principal.subject, id


def _checked(id: str) -> str:
    try:
        return check_session_id(id)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
