"""The limiter: which limits a call is charged to, what it costs, what a refused call is told, what is wrong at load."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from enclave_broker.broker.calls.rate_limit import RateLimit, RateLimiter, charge_id_of, refusal
from enclave_broker.broker.store.counters import Charge, Key, LimitDecision, MemoryCounters
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, RateLimitError
from enclave_broker.types.principal import Principal

SECOND = 1_000_000_000
ALICE = Principal("alice")


class Clock:
    now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> MemoryCounters:
    return MemoryCounters(clock)


def call(
    id: str = "c_1", name: str = "tool", session: str = "s_1", principal: Principal = ALICE, **args: Any
) -> ToolCall:
    return ToolCall(id=id, name=name, args=args, session_id=session, principal=principal)


# --- which limits -----------------------------------------------------------------------------------------------------


def test_a_call_needs_room_in_all_limits_and_a_refused_one_costs_nothing() -> None:
    limiter = RateLimiter(
        global_=RateLimit(1000, 60.0), per_session=RateLimit(100, 60.0), per_tool={"expensive:*": RateLimit(10, 60.0)}
    )
    assert [limiter.allow("s_1", "expensive:model") for _ in range(12)] == [True] * 10 + [False] * 2
    assert sum(limiter.allow("s_1", "cheap") for _ in range(200)) == 90
    assert limiter.allow("s_2", "cheap") is True
    assert limiter.allow("s_2", "expensive:model") is False


def test_the_global_limit_counts_everybody() -> None:
    limiter = RateLimiter(global_=RateLimit(25, 60.0), per_session=RateLimit(10, 60.0))
    assert sum(limiter.allow(f"s_{i}", "cheap") for i in range(10) for _ in range(5)) == 25


def test_principals_and_sessions_have_budgets_of_their_own() -> None:
    limiter = RateLimiter(per_principal=RateLimit(2, 60.0))
    whose = [Principal("a"), Principal("a", tenant=""), Principal("a", tenant="b"), Principal("b"), None]
    for principal in whose:
        allowed = [limiter.allow(f"s_{n}", "tool", principal=principal) for n in range(3)]
        assert allowed == [True, True, False]
    assert not limiter.allow("s_1", "tool", principal=Principal("anonymous"))


def test_the_same_session_id_of_two_principals_is_two_sessions() -> None:
    limiter = RateLimiter(per_session=RateLimit(1, 60.0))
    assert limiter.allow("s_mine", "tool", principal=ALICE)
    assert limiter.allow("s_mine", "tool", principal=Principal("bob"))
    assert limiter.charge(call("c_1", session="s_mine", principal=Principal("carol")))
    assert not limiter.charge(call("c_1", session="s_mine", principal=ALICE))


def test_every_pattern_that_fits_the_name_counts() -> None:
    limiter = RateLimiter(
        per_tool={"db:*": RateLimit(3, 60.0), "*:write": RateLimit(1, 60.0), "db:[ab]": RateLimit(1, 60.0)}
    )
    assert limiter.allow("s_1", "db:write")
    assert not limiter.allow("s_2", "fs:write")
    assert limiter.allow("s_1", "db:a")
    assert not limiter.allow("s_1", "db:b")
    assert limiter.allow("s_1", "db:c")
    assert not limiter.allow("s_1", "db:d")
    assert all(limiter.allow("s_1", "other") for _ in range(10))


def test_each_route_has_a_window_of_its_own(counters: MemoryCounters) -> None:
    limiter = RateLimiter(counters=counters)
    limit = RateLimit(1, 60.0)
    assert limiter.charge(call("c_1"), "db:*", limit)
    refused = limiter.charge(call("c_2"), "db:*", limit)
    assert refused.quota is not None
    assert refused.quota.name == "route db:*"
    assert limiter.charge(call("c_2"), "fs:*", limit)
    assert limiter.charge(call("c_3"))


def test_a_route_whose_window_has_another_length_is_counted_anew(counters: MemoryCounters, clock: Clock) -> None:
    limiter = RateLimiter(counters=counters)
    assert limiter.charge(call("c_1"), "db:*", RateLimit(1, 60.0))
    assert limiter.charge(call("c_2"), "db:*", RateLimit(1, 3600.0))
    clock.now += 60 * SECOND
    assert not limiter.charge(call("c_3"), "db:*", RateLimit(1, 3600.0))


def test_without_limits_everything_is_allowed() -> None:
    assert RateLimiter().charge(call()) == LimitDecision(allowed=True, remaining=None)


# --- once per call id -------------------------------------------------------------------------------------------------


def test_a_call_is_charged_once_whoever_asks_and_given_back_when_it_never_started(counters: MemoryCounters) -> None:
    limiter = RateLimiter(global_=RateLimit(2, 60.0), per_session=RateLimit(2, 60.0), counters=counters)
    assert limiter.peek(call("c_1")).remaining == 1
    assert [limiter.charge(call("c_1")).remaining for _ in range(3)] == [1, 1, 1]
    assert limiter.charge(call("c_2")).remaining == 0
    assert not limiter.charge(call("c_3"))
    assert limiter.peek(call("c_1"))
    assert not limiter.peek(call("c_3"))
    assert limiter.release(call("c_1"))
    assert not limiter.release(call("c_1"))
    assert limiter.charge(call("c_3"))
    assert not limiter.charge(call("c_1"))


def test_the_same_call_id_in_another_session_is_another_call() -> None:
    limiter = RateLimiter(global_=RateLimit(2, 60.0))
    assert limiter.charge(call("c_1", session="s_1"))
    assert limiter.charge(call("c_1", session="s_2"))
    assert not limiter.charge(call("c_1", session="s_3"))


async def test_acquire_charges_an_id_once_and_calls_without_one_each_time() -> None:
    limiter = RateLimiter(per_session=RateLimit(3, 60.0))
    assert (await limiter.acquire("s_1", "tool", charge_id="x")).remaining == 2
    assert (await limiter.acquire("s_1", "tool", charge_id="x")).remaining == 2
    assert (await limiter.acquire("s_1", "tool")).remaining == 1
    assert (await limiter.acquire("s_1", "tool", cost=2)).allowed is False
    assert (await limiter.acquire("s_1", "tool", charge_id="")).remaining == 0
    refused = await limiter.acquire("s_1", "tool")
    assert not refused
    assert 0 < refused.retry_after <= 60


# --- costs ------------------------------------------------------------------------------------------------------------


def test_a_limit_may_count_a_call_for_more_than_one(counters: MemoryCounters) -> None:
    limit = RateLimit(10, 60.0, cost=lambda asked: len(asked.args.get("items", "1234")))
    limiter = RateLimiter(global_=RateLimit(100, 60.0, cost=3), per_session=limit, counters=counters)
    assert limiter.charge(call("c_1", items=[1, 2, 3])).remaining == 7
    refused = limiter.charge(call("c_2", items=list(range(8))))
    assert refused.quota is not None
    assert (refused.quota.name, refused.quota.used, refused.quota.cost) == ("per_session", 3, 8)
    assert limiter.allow("s_1", "tool", principal=ALICE)  # without arguments: 4
    assert limiter.charge(call("c_3", items=[1, 2])).remaining == 1


def test_allow_may_ask_for_many_calls_at_once() -> None:
    limiter = RateLimiter(per_session=RateLimit(10, 60.0, cost=2), global_=RateLimit(8, 60.0))
    assert limiter.allow("s_1", "tool", cost=4)
    assert not limiter.allow("s_1", "tool", cost=2)
    assert limiter.allow("s_1", "tool")
    assert limiter.allow("s_2", "tool", cost=3)
    assert not limiter.allow("s_3", "tool")


async def later(_: ToolCall) -> int:
    return 1


@pytest.mark.parametrize("found", [LookupError("the host's secret"), 0, -1, True, 1.0, "1", None, math.nan, later])
def test_a_call_whose_cost_cannot_be_told_is_refused_and_charged_to_nothing(
    found: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def cost(asked: ToolCall) -> int:
        if isinstance(found, Exception):
            raise found
        return later(asked) if found is later else found  # pyright: ignore[reportReturnType] that is what is wrong

    limiter = RateLimiter(global_=RateLimit(1, 60.0), per_tool={"odd": RateLimit(5, 60.0, cost=cost)})
    attempts: list[Callable[[], object]] = [
        lambda: limiter.charge(call(name="odd")),
        lambda: limiter.peek(call(name="odd")),
        lambda: limiter.allow("s_1", "odd"),
    ]
    for attempt in attempts:
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(RateLimitError) as refused:
            attempt()
        assert "'per_tool odd'" in refused.value.message
        assert "cost" in refused.value.message
        assert "secret" not in refused.value.message
        assert refused.value.retry_after == math.inf
        assert "per_tool odd" in caplog.text
    assert limiter.allow("s_1", "tool")


# --- what a refused call is told --------------------------------------------------------------------------------------


def test_the_error_names_the_limit_and_when_the_call_would_fit(counters: MemoryCounters, clock: Clock) -> None:
    limiter = RateLimiter(
        per_session=RateLimit(10, 60.0), per_tool={"expensive:*": RateLimit(2, timedelta(minutes=2))}, counters=counters
    )
    for id in ("c_1", "c_2"):
        assert limiter.charge(call(id, "expensive:model"))
        clock.now += SECOND // 2
    error = refusal("expensive:model", limiter.charge(call("c_3", "expensive:model")))
    assert error.code == "RATE_LIMITED"
    assert error.retry_after == 119.0
    assert error.details == [
        {"type": "quota_info", "limit": 2, "used": 2},
        {"type": "retry_info", "retryDelayMs": 119_000},
    ]
    assert error.message == (
        "tool 'expensive:model' is over the rate limit 'per_tool expensive:*': "
        "2 of 2 in 120 s are used, the call costs 1; try again in 119 s"
    )


def test_a_call_that_will_never_fit_is_told_so(counters: MemoryCounters) -> None:
    limiter = RateLimiter(global_=RateLimit(5, 60.0, cost=lambda _: 6), counters=counters)
    error = refusal("tool", limiter.charge(call()))
    assert error.retry_after == math.inf
    assert error.details == [{"type": "quota_info", "limit": 5, "used": 0}]
    assert error.message.endswith("0 of 5 in 60 s are used, the call costs 6 and will never fit")


# --- at once ----------------------------------------------------------------------------------------------------------


async def test_five_hundred_calls_at_once_get_exactly_ten_a_thousand_times(
    counters: MemoryCounters, clock: Clock
) -> None:
    limiter = RateLimiter(per_session=RateLimit(10, 60.0), counters=counters)
    for _ in range(1_000):
        decisions = await asyncio.gather(*(limiter.acquire("s_1", "tool") for _ in range(500)))
        assert sum(map(bool, decisions)) == 10
        clock.now += 60 * SECOND


def test_threads_that_ask_at_once_get_exactly_ten() -> None:
    for _ in range(20):
        limiter = RateLimiter(per_session=RateLimit(10, 3600.0))
        start = threading.Barrier(5)
        allowed: list[bool] = []

        def ask(
            limiter: RateLimiter = limiter, start: threading.Barrier = start, allowed: list[bool] = allowed
        ) -> None:
            start.wait()
            allowed.extend([limiter.allow("s_1", "tool") for _ in range(100)])

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(allowed) == 10


# --- shared counters --------------------------------------------------------------------------------------------------


class Shared:
    """Counters that have to be awaited, over those in memory."""

    def __init__(self) -> None:
        self._memory = MemoryCounters()

    async def take(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        await asyncio.sleep(0)
        return self._memory.take_nowait(charges, charge_id)

    async def peek(self, charges: Sequence[Charge], charge_id: Key | None = None) -> LimitDecision:
        await asyncio.sleep(0)
        return self._memory.peek_nowait(charges, charge_id)

    async def release(self, charge_id: Key) -> bool:
        await asyncio.sleep(0)
        return self._memory.release_nowait(charge_id)


async def test_over_shared_counters_only_what_is_awaited_works() -> None:
    limiter = RateLimiter(per_session=RateLimit(1, 60.0), counters=Shared())
    for at_once in (
        lambda: limiter.allow("s_1", "tool"),
        lambda: limiter.charge(call()),
        lambda: limiter.peek(call()),
        lambda: limiter.release(call()),
    ):
        with pytest.raises(ConfigurationError, match="acquire"):
            at_once()
    assert await limiter.acquire("s_1", "tool", principal=ALICE, charge_id="c_1")
    assert await limiter.counters.take(limiter.plan(call("c_1")), charge_id_of(call("c_1")))
    assert not await limiter.counters.peek(limiter.plan(call("c_2")), charge_id_of(call("c_2")))
    assert await limiter.counters.release(charge_id_of(call("c_1")))
    assert await limiter.acquire("s_1", "tool", principal=ALICE)


async def test_limiters_that_share_counters_share_what_is_used() -> None:
    shared = Shared()
    first, second = (RateLimiter(global_=RateLimit(2, 60.0), counters=shared) for _ in range(2))
    assert await first.acquire("s_1", "tool")
    assert await second.acquire("s_2", "tool")
    assert not await first.acquire("s_1", "tool")


# --- what is wrong at load --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_calls", [0, -1, True, 1.0, "10", None, math.nan, math.inf, 1_000_001])
def test_max_calls_is_a_positive_int_of_at_most_a_million(max_calls: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"max_calls .* 1,000,000"):
        RateLimit(max_calls, 60.0)


@pytest.mark.parametrize(
    "window",
    [
        0,
        -1,
        0.0,
        1e-10,
        True,
        "60",
        None,
        math.nan,
        math.inf,
        10**400,
        1e300,
        timedelta(0),
        timedelta(days=367),
        timedelta(-1),
    ],
)
def test_a_window_is_a_positive_time_of_at_most_a_year(window: Any) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        RateLimit(10, window)


@pytest.mark.parametrize("cost", [0, -1, 11, True, 1.5, "1", None, later])
def test_a_cost_is_a_positive_int_within_the_limit_or_a_plain_function(cost: Any) -> None:
    with pytest.raises(ConfigurationError, match="cost"):
        RateLimit(10, 60.0, cost=cost)


def test_a_window_is_given_in_seconds_or_as_a_timedelta() -> None:
    assert RateLimit(10, timedelta(minutes=1)) == RateLimit(max_calls=10, window=60) == RateLimit(10, 60.0)
    assert RateLimit(10, timedelta(minutes=1)).window == 60.0
    assert RateLimit(1_000_000, 366 * 86_400.0).max_calls == 1_000_000


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"global_": 10}, "global_"),
        ({"per_principal": (10, 60)}, "per_principal"),
        ({"per_session": "10/minute"}, "per_session"),
        ({"per_tool": {"db:*": 10}}, r"per_tool\['db:\*'\]"),
        ({"per_tool": {"db:*": None}}, r"per_tool\['db:\*'\]"),
        ({"per_tool": RateLimit(10, 60.0)}, "per_tool"),
        ({"per_tool": {"db:[": RateLimit(10, 60.0)}}, r"db:\["),
        ({"counters": "redis://localhost"}, "redis://localhost"),
    ],
)
def test_a_wrong_option_is_named_when_the_limiter_is_made(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RateLimiter(**options)


@pytest.mark.parametrize("cost", [0, -1, True, 1.0, "1", None])
async def test_a_wrong_cost_of_one_call_is_the_callers_error(cost: Any) -> None:
    limiter = RateLimiter(per_session=RateLimit(1, 60.0))
    with pytest.raises(ConfigurationError, match="cost"):
        limiter.allow("s_1", "tool", cost=cost)
    with pytest.raises(ConfigurationError, match="cost"):
        await limiter.acquire("s_1", "tool", cost=cost)
    assert limiter.allow("s_1", "tool")
