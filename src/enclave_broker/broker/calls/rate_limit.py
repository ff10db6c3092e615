"""Rate limits: which windows a call is charged to and for how much, and what a refused call is told.

The windows themselves, and the one step that tests and charges, are store/counters.py's. The chain peeks before people
are asked, charges before the handler starts, and releases what was charged when the start could not be recorded.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeGuard, cast

from enclave_broker.broker.store.counters import NANOSECONDS, Charge, Counters, Key, LimitDecision, MemoryCounters
from enclave_broker.broker.tools.glob_index import GlobIndex
from enclave_broker.broker.tools.globs import compile_glob
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, RateLimitError
from enclave_broker.types.principal import ANONYMOUS, Principal

__all__ = ["LimitDecision", "RateLimit", "RateLimiter", "charge_id_of", "refusal"]

log = logging.getLogger("enclave_broker.calls")

Cost = int | Callable[[ToolCall], int]

_MAX_SHOWN = 10**12  # a cost in a message
_MAX_CALLS = 1_000_000  # a key may hold as many times, of 16 bytes each
_MAX_WINDOW = 366 * 86_400  # seconds: a key is held as long


@dataclass(frozen=True, init=False)
class RateLimit:
    """At most `max_calls` in any stretch of `window` seconds, and as many as that whenever they are asked for.

    `cost`: what one call counts for, a whole number of 1 or more or a function of the call that returns one; a call
    whose function raises or returns anything else is refused. Such a function sees in `args` the validated arguments,
    defaults filled in. Raises ConfigurationError, also for more than a million calls or a year.
    """

    max_calls: int
    window: float
    cost: Cost
    window_ns: int = field(repr=False, compare=False)

    def __init__(self, max_calls: int, window: float | timedelta, *, cost: Cost = 1) -> None:
        if not _is_positive(max_calls) or max_calls > _MAX_CALLS:
            raise ConfigurationError(f"max_calls is a whole number from 1 to {_MAX_CALLS:,}, not {max_calls!r}")
        seconds = cast("Any", window.total_seconds() if isinstance(window, timedelta) else window)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ConfigurationError(f"window is seconds, as a number or a timedelta, not {window!r}")
        if not 0 < seconds <= _MAX_WINDOW or (window_ns := round(seconds * NANOSECONDS)) == 0:
            raise ConfigurationError(f"window is more than 0 seconds and at most 366 days, not {window!r}")
        if inspect.iscoroutinefunction(cost):
            raise ConfigurationError("cost is an int or a plain function, not a coroutine function")
        if not callable(cost) and (not _is_positive(cost) or cost > max_calls):
            raise ConfigurationError(f"cost is an int from 1 to max_calls={max_calls}, or a function, not {cost!r}")
        fields = {"max_calls": max_calls, "window": float(seconds), "cost": cost, "window_ns": window_ns}
        for name, value in fields.items():
            object.__setattr__(self, name, value)


class RateLimiter:
    """Every limit that applies to a call has to have room for it; it is then charged to all of them, else to none.

    `global_` counts all calls, `per_principal` and `per_session` those of each, and each pattern of `per_tool` all
    calls whose name fits it, whoever makes them; several patterns may fit. All who are not known are one principal,
    and a session is its principal's. `counters`: where it is counted, in this process unless given.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        global_: RateLimit | None = None,
        per_principal: RateLimit | None = None,
        per_session: RateLimit | None = None,
        per_tool: Mapping[str, RateLimit] | None = None,
        counters: Counters | str | None = None,
    ) -> None:
        if isinstance(counters, str):
            raise ConfigurationError(f"counters are an object, not {counters!r}: URLs are not known yet")
        self.counters: Counters = MemoryCounters() if counters is None else counters
        self._memory = self.counters if isinstance(self.counters, MemoryCounters) else None
        self._global = _quota(global_, "global_")
        self._per_principal = _quota(per_principal, "per_principal")
        self._per_session = _quota(per_session, "per_session")
        general = (self._global, self._per_principal, self._per_session)
        asks = any(quota is not None and quota.asks for quota in general)
        # The same for all calls of a session, unless a cost depends on the call.
        self._usual = None if asks else lru_cache(maxsize=1_024)(self._general)
        # Nearly all calls are to a few tools.
        self._per_tool = None if per_tool is None else lru_cache(maxsize=1_024)(_index(per_tool).matching)

    @property
    def is_empty(self) -> bool:
        """Whether it has no limit of its own."""
        return self._global is self._per_principal is self._per_session is self._per_tool is None

    @property
    def is_local(self) -> bool:
        """Whether this process counts alone, so that a charge needs no await."""
        return self._memory is not None

    def allow(self, session_id: str, tool_name: str, *, principal: Principal | None = None, cost: int = 1) -> bool:
        """Charge a call that is about to be made, if it has room; a refused call costs nothing.

        `cost`: how many calls it counts for. A limit's cost function sees a call without arguments. Raises
        RateLimitError if such a function fails, ConfigurationError for a bad `cost` and over shared counters.
        """
        call = _call_of(session_id, tool_name, principal)
        return self._nowait().take_nowait(self.plan(call, times=_checked_cost(cost))).allowed

    async def acquire(
        self,
        session_id: str,
        tool_name: str,
        *,
        principal: Principal | None = None,
        cost: int = 1,
        charge_id: str | None = None,
    ) -> LimitDecision:
        """As `allow`, over any counters. The same `charge_id` of a session is charged once while a window holds it."""
        call = _call_of(session_id, tool_name, principal, charge_id or "")
        charges = self.plan(call, times=_checked_cost(cost))
        return await self.counters.take(charges, None if charge_id is None else charge_id_of(call))

    def asks(self, name: str, route_limit: RateLimit | None = None) -> bool:
        """Whether a limit that applies to a tool of this name has a cost function, which sees the arguments."""
        if self._usual is None or (route_limit is not None and not isinstance(route_limit.cost, int)):
            return True
        return self._per_tool is not None and any(quota.asks for quota in self._per_tool(name))

    def charge(
        self, call: ToolCall, route: str = "", route_limit: RateLimit | None = None, *, life: str = ""
    ) -> LimitDecision:
        """Charge a call, once per its id, if it has room. `route`: the pattern whose limit is `route_limit`.

        `life` as in `charge_id_of`. Raises RateLimitError if a cost function fails, ConfigurationError over shared
        counters.
        """
        return self._nowait().take_nowait(self.plan(call, route, route_limit), charge_id_of(call, life))

    def peek(
        self, call: ToolCall, route: str = "", route_limit: RateLimit | None = None, *, life: str = ""
    ) -> LimitDecision:
        """What `charge` would decide now. Raises as `charge`."""
        return self._nowait().peek_nowait(self.plan(call, route, route_limit), charge_id_of(call, life))

    def release(self, call: ToolCall, *, life: str = "") -> bool:
        """Give back what a call was charged, since it was never started; False if it wasn't. Raises as `charge`."""
        return self._nowait().release_nowait(charge_id_of(call, life))

    def plan(
        self, call: ToolCall, route: str = "", route_limit: RateLimit | None = None, *, times: int = 1
    ) -> list[Charge]:
        """What `charge` takes from `counters`, under the id `charge_id_of(call)`, of a call that counts for `times`.

        Raises RateLimitError if a cost function fails.
        """
        if self._usual is not None and times == 1:
            charges = list(self._usual(call.session_id, _who(call.principal)))
        else:
            charges = self._general(call.session_id, _who(call.principal), call, times)
        if self._per_tool is not None:
            charges += [quota.charge(call, times) for quota in self._per_tool(call.name)]
        if route_limit is not None:
            charges.append(_Quota(route_limit, "route", route).charge(call, times))
        return charges

    def _general(self, session_id: str, who: Key, call: ToolCall | None = None, times: int = 1) -> list[Charge]:
        """What is charged whatever the tool. `call` is for cost functions."""
        charges: list[Charge] = []
        if (quota := self._global) is not None:
            charges.append(quota.charge(call, times))
        if (quota := self._per_principal) is not None:
            charges.append(quota.charge(call, times, who))
        if (quota := self._per_session) is not None:
            charges.append(quota.charge(call, times, (session_id, *who)))
        return charges

    def _nowait(self) -> MemoryCounters:
        if self._memory is None:
            raise ConfigurationError("shared counters have to be awaited: use `await limiter.acquire(...)`")
        return self._memory


class _Quota:
    """One limit and whose calls it counts: those of a `kind`, maybe of a pattern, maybe apart for each `whose`."""

    __slots__ = ("_cost", "_one")

    def __init__(self, limit: RateLimit, kind: str, pattern: str = "") -> None:
        self._cost = limit.cost
        key = (kind, pattern, str(limit.window_ns))  # of another length is another window
        self._one = Charge(key, limit.window_ns, limit.max_calls, 1, f"{kind} {pattern}" if pattern else kind)

    @property
    def asks(self) -> bool:
        """Whether a function of the call tells the cost."""
        return not isinstance(self._cost, int)

    def charge(self, call: ToolCall | None, times: int, whose: Key = ()) -> Charge:
        """`call` may be None for a quota that doesn't ask."""
        one = self._one
        if isinstance(self._cost, int):
            cost = self._cost
        else:
            assert call is not None
            cost = _asked(self._cost, one.name, call)
        cost *= times
        if cost == 1 and not whose:
            return one
        return Charge(one.key + whose, one.window_ns, one.max_calls, cost, one.name)


def charge_id_of(call: ToolCall, life: str = "") -> Key:
    """A call's id is its session's, and a session's its principal's: the host, or a client, may have chosen them.

    `life` tells a session from an earlier one that had its id.
    """
    return (call.id, call.session_id, life, *_who(call.principal))


def refusal(tool_name: str, decision: LimitDecision) -> RateLimitError:
    """The error of a call that was refused, with the wire's `quota_info` and `retry_info`."""
    quota = decision.quota
    assert quota is not None
    details: list[dict[str, Any]] = [{"type": "quota_info", "limit": quota.limit, "used": quota.used}]
    state = f"{quota.used} of {quota.limit} in {quota.window:g} s are used, the call costs {_written(quota.cost)}"
    if math.isinf(decision.retry_after):
        state += " and will never fit"
    else:
        milliseconds = math.ceil(decision.retry_after * 1000)
        details.append({"type": "retry_info", "retryDelayMs": milliseconds})
        state += f"; try again in {milliseconds / 1000:.12g} s"
    message = f"tool {tool_name!r} is over the rate limit {quota.name!r}: {state}"
    return RateLimitError(message, retry_after=decision.retry_after, details=details)


def _call_of(session_id: str, tool_name: str, principal: Principal | None, id: str = "") -> ToolCall:
    return ToolCall(id=id, name=tool_name, args={}, session_id=session_id, principal=principal or ANONYMOUS)


def _who(principal: Principal) -> Key:
    return (principal.subject,) if principal.tenant is None else (principal.subject, principal.tenant)


def _asked(cost: Callable[[ToolCall], int], name: str, call: ToolCall) -> int:
    """What a cost function says. Raises RateLimitError when that is no cost."""
    try:
        found: object = cost(call)
    except BaseException as error:  # a callback's boundary: not even SystemExit may end the loop
        log.exception("rate limit %s: the cost function failed for tool %s", name, call.name)
        raise _no_cost(name, call, "failed") from error
    if not _is_positive(found):
        if inspect.iscoroutine(found):
            found.close()
        returned = _written(found) if type(found) is int else f"a value of type {type(found).__name__}"
        log.error("rate limit %s: the cost function returned %s for tool %s", name, returned, call.name)
        raise _no_cost(name, call, f"returned {returned}, and a whole number of 1 or more is needed")
    return found


def _no_cost(name: str, call: ToolCall, what: str) -> RateLimitError:
    reason = f"its cost under the rate limit {name!r} can't be told, since the limit's cost function {what}"
    return RateLimitError(f"tool {call.name!r}: {reason}", retry_after=math.inf)


def _written(number: int) -> str:
    """Bounded: Python itself refuses to write numbers of thousands of digits."""
    if abs(number) <= _MAX_SHOWN:
        return str(number)
    return f"more than {_MAX_SHOWN:,}" if number > 0 else f"less than {-_MAX_SHOWN:,}"


def _is_positive(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _quota(limit: RateLimit | None, kind: str) -> _Quota | None:
    return None if limit is None else _Quota(_checked(limit, kind), kind.rstrip("_"))


def _checked(limit: object, name: str) -> RateLimit:
    if not isinstance(limit, RateLimit):
        raise ConfigurationError(f"{name} is a RateLimit, such as RateLimit(100, 60.0), not {limit!r}")
    return limit


def _checked_cost(cost: int) -> int:
    if not _is_positive(cost):
        raise ConfigurationError(f"cost is a positive int, not {cost!r}")
    return cost


def _index(per_tool: Mapping[str, RateLimit]) -> GlobIndex[_Quota]:
    if not isinstance(cast("Any", per_tool), Mapping):
        raise ConfigurationError(f"per_tool maps patterns to limits, not {per_tool!r}")
    return GlobIndex(
        [
            (compile_glob(pattern), _Quota(_checked(limit, f"per_tool[{pattern!r}]"), "per_tool", pattern))
            for pattern, limit in per_tool.items()
        ]
    )
