"""Any calls at any times against a model that knows only the definition: no window may hold more than its limit.

The model keeps every call that was let through and, for each new one, adds up every window there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker.broker.calls.rate_limit import RateLimit, RateLimiter
from enclave_broker.broker.store.counters import MemoryCounters
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.principal import Principal

SECOND = 1_000_000_000

# Of each, which calls it counts, as (limit's name, whose).
LIMITS = ["global", "per_principal", "per_session", "per_tool db:*", "per_tool db:write", "route *"]
PRINCIPALS = [Principal("alice"), Principal("alice", tenant="acme"), Principal("bob")]
SESSIONS = ["s_1", "s_2"]
TOOLS = ["db:read", "db:write", "mail"]


def counted_by(limit: str, call: ToolCall) -> object:
    """What the call is counted with under the limit; None if it isn't."""
    whose = (call.principal.subject, call.principal.tenant)
    match limit:
        case "per_principal":
            return whose
        case "per_session":
            return (call.session_id, whose)
        case "per_tool db:*":
            return "all" if call.name.startswith("db:") else None
        case "per_tool db:write":
            return "all" if call.name == "db:write" else None
        case _:
            return "all"


@dataclass
class Model:
    limits: dict[str, tuple[int, int]]
    """Maximum and length in nanoseconds."""
    admitted: list[tuple[int, ToolCall]] = field(default_factory=list[tuple[int, ToolCall]])

    def fits(self, now: int, call: ToolCall) -> bool:
        return all(self.fits_limit(limit, now, call) for limit in self.limits)

    def fits_limit(self, limit: str, now: int, call: ToolCall) -> bool:
        if counted_by(limit, call) is None:
            return True
        most, length = self.limits[limit]
        together = [
            (then, other.args["cost"])
            for then, other in [*self.admitted, (now, call)]
            if counted_by(limit, other) == counted_by(limit, call)
        ]
        # A window that is over its limit stays so when it is moved to begin with the first call in it.
        return all(
            sum(cost for then, cost in together if start <= then < start + length) <= most for start, _ in together
        )

    def is_charged(self, now: int, call: ToolCall) -> bool:
        """Whether a window still holds what was charged under the same id."""
        return any(
            same(call, other) and counted_by(limit, other) is not None and now - then < length
            for then, other in self.admitted
            for limit, (_, length) in self.limits.items()
        )

    def fits_from(self, now: int, call: ToolCall) -> float:
        """The first time from now on when the call fits: room comes only where a window ends."""
        ends = {then + length for then, _ in self.admitted for _, length in self.limits.values()}
        return next((end for end in sorted(ends) if end > now and self.fits(end, call)), math.inf)


def same(call: ToolCall, other: ToolCall) -> bool:
    return (call.id, call.session_id, call.principal) == (other.id, other.session_id, other.principal)


lengths = st.sampled_from([1, 2, 5])
limits_of = st.dictionaries(st.sampled_from(LIMITS), st.tuples(st.integers(1, 5), lengths), min_size=1)
calls = st.builds(
    ToolCall,
    id=st.integers(1, 8).map(lambda number: f"c_{number}"),
    name=st.sampled_from(TOOLS),
    args=st.integers(1, 3).map(lambda cost: {"cost": cost}),
    session_id=st.sampled_from(SESSIONS),
    principal=st.sampled_from(PRINCIPALS),
)
steps = st.tuples(
    st.sampled_from([0, 0, 0, 1, SECOND // 3, SECOND - 1, SECOND, SECOND + 1, 2 * SECOND, 5 * SECOND]),
    calls,
    st.sampled_from(["charge", "charge", "charge", "peek", "charge again", "release"]),
    st.integers(0, 1_000),
)


def cost_of(call: ToolCall) -> int:
    return call.args["cost"]


def limiter_of(limits: dict[str, tuple[int, int]], counters: MemoryCounters) -> tuple[RateLimiter, RateLimit | None]:
    made = {name: RateLimit(most, seconds, cost=cost_of) for name, (most, seconds) in limits.items()}
    limiter = RateLimiter(
        global_=made.get("global"),
        per_principal=made.get("per_principal"),
        per_session=made.get("per_session"),
        per_tool={name.split()[1]: limit for name, limit in made.items() if name.startswith("per_tool")},
        counters=counters,
    )
    return limiter, made.get("route *")


@settings(max_examples=300, deadline=None)
@given(limits=limits_of, steps=st.lists(steps, min_size=1, max_size=40))
def test_what_is_admitted_is_all_that_no_window_forbids(
    limits: dict[str, tuple[int, int]], steps: list[tuple[int, ToolCall, str, int]]
) -> None:
    now = 3 * SECOND
    counters = MemoryCounters(lambda: now)
    limiter, route_limit = limiter_of(limits, counters)
    model = Model({name: (most, seconds * SECOND) for name, (most, seconds) in limits.items()})
    for passed, call, what, choice in steps:
        now += passed
        if model.admitted and what in {"charge again", "release"}:
            call = model.admitted[-1 - choice % len(model.admitted)][1]
        if what == "release":
            limiter.release(call)
            model.admitted = [(then, other) for then, other in model.admitted if not same(call, other)]
            continue
        decision = (limiter.peek if what == "peek" else limiter.charge)(call, "*", route_limit)
        charged = model.is_charged(now, call)
        assert decision.allowed == (charged or model.fits(now, call))
        if decision.allowed:
            assert decision.retry_after == 0
            if what != "peek" and not charged:
                model.admitted.append((now, call))
            continue
        first = model.fits_from(now, call)
        assert decision.quota is not None
        assert not model.fits_limit(decision.quota.name, now, call)
        if first == math.inf:
            assert decision.retry_after == math.inf
        else:
            assert math.isclose(decision.retry_after, (first - now) / SECOND, rel_tol=1e-15)
            assert not model.fits_limit(decision.quota.name, int(first) - 1, call)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SECOND // 3), st.integers(1, 4)), min_size=50, max_size=300))
def test_a_long_log_that_is_cut_off_again_and_again_stays_exact(charges: list[tuple[int, int]]) -> None:
    now = 0
    limiter = RateLimiter(global_=RateLimit(12, 1.0), counters=MemoryCounters(lambda: now))
    admitted: list[tuple[int, int]] = []
    for passed, cost in charges:
        now += passed
        used = sum(units for then, units in admitted if now - then < SECOND)
        assert limiter.allow("s_1", "tool", cost=cost) == (used + cost <= 12)
        if used + cost <= 12:
            admitted.append((now, cost))
