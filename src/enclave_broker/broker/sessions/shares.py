"""What each principal has of a broker: its sessions, streams and CPU time, and whether there is room for one more.

Counted as they come and go, by sessions/manager.py; a principal of whom nothing is left is forgotten. The caps are
types/principal_limits.py's. Which sessions that are over stay readable is sessions/retained.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from enclave_broker.types.errors import OverloadedError
from enclave_broker.types.principal import Principal
from enclave_broker.types.principal_limits import PrincipalLimits

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.session import Session

__all__ = ["Owner", "Share", "Shares", "owner_of"]

Owner = tuple[str | None, str]
"""Tenant and subject: who a principal is. Roles and claims are facts about him."""

SOON, LATER = 1.0, 10.0
"""Seconds after which asking again makes sense: where a run's end makes room, and where a person has to act."""


def owner_of(principal: Principal) -> Owner:
    return principal.tenant, principal.subject


class Share:
    """One principal's part. `limits` is None for who has no caps."""

    __slots__ = (
        "_cpu",
        "_cpu_at",
        "_shares",
        "limits",
        "open",
        "owner",
        "retained",
        "retained_bytes",
        "sessions",
        "streams",
    )

    def __init__(self, shares: Shares, owner: Owner, limits: PrincipalLimits | None) -> None:
        self._shares = shares
        self.owner = owner
        self.limits = limits
        self.sessions: dict[str, Session] = {}
        """By id, the oldest first."""
        self.open = 0
        """How many of them are not closed."""
        self.retained: dict[Session, int] = {}
        """Those that are over and stay readable, with what their logs weighed then, the oldest first."""
        self.retained_bytes = 0
        self.streams = 0
        self._cpu = 0.0
        """CPU seconds as of `_cpu_at`, less what the time has paid back: `cpu_time` in every `cpu_window`."""
        self._cpu_at = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.sessions and not self.streams and (not self._cpu or self.cpu_used() == 0.0)

    # -- sessions --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whether there is room for one more session, but for its bytes. Raises OverloadedError, RATE_LIMITED."""
        limits = self.limits
        if limits is None:
            return
        if self.open >= limits.max_sessions:
            raise _refusal("open sessions", "max_sessions", limits.max_sessions, self.open, SOON, "wait, or cancel one")
        if self.open >= limits.max_waiting and (waiting := self.count_waiting()) >= limits.max_waiting:
            cure = "answer or cancel what they wait for"
            raise _refusal("sessions that wait", "max_waiting", limits.max_waiting, waiting, LATER, cure)
        if self._cpu and (used := self.cpu_used()) >= limits.cpu_time:
            rate = limits.cpu_time / limits.cpu_window
            after = max((used - limits.cpu_time) / rate, SOON)
            name = f"CPU seconds in {limits.cpu_window:g} s"
            raise _refusal(
                name, "cpu_time", limits.cpu_time, math.ceil(used * 1000) / 1000, after, "wait, or compute less"
            )

    def check_bytes(self) -> None:
        """Raises OverloadedError, RATE_LIMITED, when the logs are over `max_bytes`."""
        if self.is_over_bytes and self.limits is not None:
            limit, used = self.limits.max_bytes, self.count_bytes()
            raise _refusal("bytes of logs", "max_bytes", limit, used, LATER, "delete a session, or let some end")

    @property
    def is_over_bytes(self) -> bool:
        return self.limits is not None and self.count_bytes() >= self.limits.max_bytes

    def count_bytes(self) -> int:
        """What the logs weigh, of open sessions and of those that stay readable."""
        live = 0
        if self.open:
            live = sum(each.log.size_bytes for each in self.sessions.values() if not each.closed)
        return live + self.retained_bytes

    def count_waiting(self) -> int:
        """Sessions in which all that is pending is a person or a client."""
        return sum(_waits(session) for session in self.sessions.values())

    def add(self, session: Session) -> None:
        self.sessions[session.id] = session
        self.open += 1

    def closed(self) -> None:
        """One of the sessions is open no more."""
        self.open -= 1

    def remove(self, session: Session) -> None:
        """It is forgotten; `closed` was said before if it was open."""
        del self.sessions[session.id]
        self._shares.look(self)

    # -- streams ---------------------------------------------------------------------------------------------------

    def take_stream(self) -> Callable[[], None]:
        """One more answer is read; call once what is returned when it has ended. Raises OverloadedError."""
        limits = self.limits
        if limits is not None and self.streams >= limits.max_streams:
            raise _refusal("open streams", "max_streams", limits.max_streams, self.streams, SOON, "close one")
        self.streams += 1
        return self._give_back

    def _give_back(self) -> None:
        self.streams -= 1
        self._shares.look(self)

    # -- CPU -------------------------------------------------------------------------------------------------------

    def spent(self, cpu_us: int) -> None:
        """A script has used so many microseconds of CPU time."""
        self._cpu = self.cpu_used() + cpu_us / 1e6
        self._cpu_at = self._shares.time()

    def cpu_used(self) -> float:
        """CPU seconds that are not paid back yet."""
        limits = self.limits
        if limits is None or not self._cpu:
            return 0.0
        paid = (self._shares.time() - self._cpu_at) * limits.cpu_time / limits.cpu_window
        return max(0.0, self._cpu - paid)


class Shares:
    """Every principal that has something."""

    def __init__(self, limits: PrincipalLimits) -> None:
        self._limits = limits
        self._shares: dict[Owner, Share] = {}
        self.time: Callable[[], float] = lambda: 0.0
        """Seconds of the loop that the sessions belong to."""

    def __len__(self) -> int:
        return len(self._shares)

    def of(self, principal: Principal) -> Share:
        """A principal's share. One that stays empty has to be looked at (`look`), or it stays."""
        owner = owner_of(principal)
        share = self._shares.get(owner)
        if share is None:
            free = principal.is_anonymous and principal.tenant is None and not self._limits.anonymous
            share = self._shares[owner] = Share(self, owner, None if free else self._limits)
        return share

    def take_stream(self, principal: Principal) -> Callable[[], None] | None:
        """Count one more answer that a principal reads; call once what comes back when it has ended. None: no caps.

        Raises OverloadedError, RATE_LIMITED, beyond `max_streams`.
        """
        share = self.of(principal)
        if share.limits is not None:
            return share.take_stream()
        self.look(share)
        return None

    def find(self, principal: Principal) -> Share | None:
        return self._shares.get(owner_of(principal))

    def look(self, share: Share) -> None:
        """Forget it if nothing is left of it."""
        if share.is_empty and self._shares.get(share.owner) is share:
            del self._shares[share.owner]

    def expire(self) -> None:
        """Forget those of whom only CPU time was left that is paid back."""
        for share in list(self._shares.values()):
            self.look(share)

    def clear(self) -> None:
        self._shares.clear()


def _waits(session: Session) -> bool:
    execution = session.execution
    return execution is not None and execution.clock is not None and execution.clock.stands


def _refusal(what: str, name: str, limit: float, used: float, retry_after: float, cure: str) -> OverloadedError:
    """Under the wire's RATE_LIMITED: it is the principal that has to wait, not everybody."""
    delay = math.ceil(retry_after)
    details = [
        {"type": "quota_info", "limit": limit, "used": used},
        {"type": "retry_info", "retryDelayMs": delay * 1000},
    ]
    message = f"{used:,} {what}; one principal may have {limit:,} ({name}): {cure}; try again in {delay} s"
    return OverloadedError(message, code="RATE_LIMITED", retry_after=retry_after, details=details)
