"""Counters by themselves: what a window admits, once per id, all or nothing, and what is left in memory."""

from __future__ import annotations

import gc
import math
import sys
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from enclave_broker.broker.store.counters import Charge, Counters, MemoryCounters, QuotaInfo

SECOND = 1_000_000_000


class Clock:
    now = 7 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory"])
def counters(clock: Clock) -> Counters:
    return MemoryCounters(clock)


@pytest.fixture
def memory(clock: Clock) -> MemoryCounters:
    return MemoryCounters(clock)


def charge(key: str, max_calls: int = 3, seconds: float = 60, cost: int = 1) -> Charge:
    return Charge((key,), int(seconds * SECOND), max_calls, cost, f"limit {key}")


# --- the contract of every implementation ---------------------------------------------------------------------------


async def test_as_much_as_the_limit_is_admitted_and_no_more(counters: Counters) -> None:
    decisions = [await counters.take([charge("a")]) for _ in range(5)]
    assert [bool(decision) for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]


async def test_a_call_fits_again_at_the_very_nanosecond_that_was_told(counters: Counters, clock: Clock) -> None:
    start = clock.now
    for offset in (0, 1, 10 * SECOND):
        clock.now = start + offset
        assert await counters.take([charge("a")])
    assert (await counters.take([charge("a")])).retry_after == 50.0
    # The nearest float to 50.000000001 is a little too short.
    assert (await counters.take([charge("a", cost=2)])).retry_after == math.nextafter(50.000_000_001, math.inf)
    assert (await counters.take([charge("a", cost=3)])).retry_after == 60.0
    clock.now = start + 60 * SECOND - 1
    assert not await counters.take([charge("a")])
    clock.now += 1
    assert await counters.take([charge("a")])
    assert not await counters.take([charge("a")])
    clock.now += 1
    assert await counters.take([charge("a")])


async def test_who_waits_as_long_as_told_never_waits_too_short(counters: Counters, clock: Clock) -> None:
    for length in (1, 3, 7, 10**9 + 1, 86_400 * SECOND - 1, 366 * 86_400 * SECOND + 1):
        one = Charge((str(length),), length, 1, 1, "x")
        assert await counters.take([one])
        seconds = (await counters.take([one])).retry_after
        numerator, denominator = seconds.as_integer_ratio()
        assert numerator * SECOND >= length * denominator
        assert seconds <= length / SECOND * (1 + 1e-15)


async def test_a_refusal_charges_none_of_the_limits_and_names_the_one_that_lasts_longest(counters: Counters) -> None:
    assert await counters.take([charge("short", 1, 10), charge("long", 1, 60)])
    refused = await counters.take([charge("wide", 9), charge("short", 1, 10), charge("long", 1, 60)])
    assert refused.quota == QuotaInfo("limit long", limit=1, used=1, window=60.0, cost=1)
    assert (refused.allowed, refused.retry_after, refused.remaining) == (False, 60.0, 0)
    assert (await counters.peek([charge("wide", 9)])).remaining == 8


async def test_what_costs_more_than_the_limit_never_fits(counters: Counters) -> None:
    refused = await counters.take([charge("a", 3, cost=4)])
    assert not refused
    assert refused.retry_after == math.inf
    assert refused.remaining == 3
    assert await counters.take([charge("a", 3, cost=3)])


async def test_nothing_that_limits_lets_everything_through(counters: Counters) -> None:
    decision = await counters.take([], ("id",))
    assert (decision.allowed, decision.remaining, decision.retry_after, decision.quota) == (True, None, 0.0, None)


async def test_an_id_is_charged_once_while_its_longest_window_holds_it(counters: Counters, clock: Clock) -> None:
    charges = [charge("short", 1, 10), charge("long", 2, 60)]
    assert await counters.take(charges, ("id",))
    again = await counters.take(charges, ("id",))
    assert (again.allowed, again.remaining) == (True, 0)
    assert not await counters.take(charges, ("other",))
    clock.now += 59 * SECOND
    assert (await counters.peek(charges, ("id",))).remaining == 1
    clock.now += SECOND
    assert (await counters.take(charges, ("id",))).remaining == 0
    assert not await counters.peek(charges, ("other",))


async def test_an_id_is_charged_anew_when_it_is_over_though_its_key_is_in_use(counters: Counters, clock: Clock) -> None:
    start = clock.now
    for second, id in ((0, "first"), (30, "id"), (59, "last")):
        clock.now = start + second * SECOND
        assert await counters.take([charge("a", 9)], (id,))
    clock.now = start + 90 * SECOND - 1
    assert (await counters.take([charge("a", 9)], ("id",))).remaining == 7
    clock.now += 1
    assert (await counters.take([charge("a", 9)], ("id",))).remaining == 7
    assert (await counters.peek([charge("a", 9)])).remaining == 6


async def test_a_refused_id_is_charged_when_there_is_room(counters: Counters, clock: Clock) -> None:
    assert await counters.take([charge("a", 1)], ("first",))
    assert not await counters.take([charge("a", 1)], ("second",))
    clock.now += 60 * SECOND
    assert await counters.take([charge("a", 1)], ("second",))
    assert not await counters.take([charge("a", 1)], ("third",))


async def test_what_is_released_was_never_charged(counters: Counters, clock: Clock) -> None:
    both = [charge("a", 10, cost=3), charge("b", 10, 10, cost=2)]
    assert await counters.take(both, ("1",))
    assert await counters.take(both, ("2",))  # at the same time, in one entry
    clock.now += SECOND
    assert await counters.take(both, ("3",))
    assert await counters.release(("2",))
    assert not await counters.release(("2",))
    assert (await counters.peek([charge("a", 10, cost=4)])).remaining == 0
    assert (await counters.peek([charge("b", 10, 10, cost=6)])).remaining == 0
    assert await counters.take(both, ("2",))
    refused = await counters.peek(both, ("4",))
    assert refused.retry_after == 59.0
    assert refused.quota is not None
    assert refused.quota.used == 9


async def test_releasing_what_is_over_gives_nothing_back(counters: Counters, clock: Clock) -> None:
    assert await counters.take([charge("a", 1, 10), charge("b", 9, 60)], ("id",))
    clock.now += 10 * SECOND
    assert await counters.take([charge("a", 1, 10)])
    assert await counters.release(("id",))
    assert not await counters.peek([charge("a", 1, 10)])
    assert (await counters.peek([charge("b", 9, 60)])).remaining == 8


async def test_a_peek_charges_nothing(counters: Counters) -> None:
    for _ in range(5):
        assert (await counters.peek([charge("a", 1)], ("id",))).remaining == 0
    assert await counters.take([charge("a", 1)], ("id",))
    assert not await counters.peek([charge("a", 1)])


async def test_a_limit_that_is_lowered_holds_for_what_was_charged_before(counters: Counters) -> None:
    assert await counters.take([charge("a", 5, cost=4)])
    lowered = await counters.take([charge("a", 2)])
    assert (lowered.allowed, lowered.remaining, lowered.retry_after) == (False, 0, 60.0)
    assert (await counters.take([charge("a", 9)])).remaining == 4


# --- in memory ------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_frees_nothing(memory: MemoryCounters, clock: Clock) -> None:
    clock.now += 5 * SECOND
    assert memory.take_nowait([charge("a", 1)])
    clock.now -= 100 * SECOND
    assert memory.take_nowait([charge("a", 1)]).retry_after == 60.0


def test_a_refused_call_leaves_no_key(memory: MemoryCounters) -> None:
    assert memory.take_nowait([charge("a", 1)])
    for number in range(100):
        assert not memory.take_nowait([charge(f"session {number}"), charge("a", 1)], (str(number),))
        assert memory.peek_nowait([charge(f"session {number}")])
    assert len(memory) == 1


def test_keys_whose_windows_are_empty_are_dropped_by_later_calls(memory: MemoryCounters, clock: Clock) -> None:
    for number in range(5_000):
        charges = [charge("all", 10**6, 600), charge(f"session {number}", 9, 60 + number % 7)]
        assert memory.take_nowait(charges, (str(number),))
    assert len(memory) == 5_001
    clock.now += 66 * SECOND
    for _ in range(10):  # each drops a bounded number
        memory.peek_nowait([])
    assert len(memory) == 1
    clock.now += 600 * SECOND
    for _ in range(10):
        memory.peek_nowait([])
    assert len(memory) == 0


def test_a_key_that_is_used_now_and_then_is_kept_until_its_last_charge_is_over(
    memory: MemoryCounters, clock: Clock
) -> None:
    for _ in range(20):
        assert memory.take_nowait([charge("a", 3)])
        clock.now += 25 * SECOND
        memory.peek_nowait([])
        assert len(memory) == 1
    clock.now += 35 * SECOND - 1
    memory.peek_nowait([])
    assert len(memory) == 1
    clock.now += 1
    memory.peek_nowait([])
    assert len(memory) == 0


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def memory_is_traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("memory_is_traced")
def test_a_busy_key_holds_no_more_than_its_window(memory: MemoryCounters, clock: Clock) -> None:
    def work(number: int) -> None:
        for step in range(number, number + 2_000):
            clock.now += SECOND
            memory.take_nowait([charge("busy", 50)], (f"id {step}",))
            memory.take_nowait([charge("released", 50)], (f"released {step}",))
            memory.release_nowait((f"released {step}",))
            memory.take_nowait([charge("refused", 1)], (f"refused {step}",))

    work(0)
    before = traced()
    work(2_000)
    work(4_000)
    assert traced() - before < 20_000
    assert len(memory) == 3


@pytest.mark.usefixtures("memory_is_traced")
def test_what_is_released_leaves_nothing(memory: MemoryCounters, clock: Clock) -> None:
    def work() -> None:
        for number in range(2_000):
            clock.now += 1
            assert memory.take_nowait([charge("a", 5)], (f"id {number}",))
            assert memory.release_nowait((f"id {number}",))

    memory.take_nowait([charge("a", 5)])
    work()
    before = traced()
    work()
    work()
    assert traced() - before < 10_000


@pytest.mark.usefixtures("memory_is_traced")
def test_a_charge_without_an_id_takes_some_bytes_only(memory: MemoryCounters, clock: Clock) -> None:
    one = [charge("a", 100_000)]
    memory.take_nowait(one)
    before = traced()
    for _ in range(20_000):
        clock.now += 1
        assert memory.take_nowait(one)
    assert traced() - before < 20_000 * 24


@pytest.mark.usefixtures("memory_is_traced")
def test_nothing_is_left_when_every_window_is_empty(memory: MemoryCounters, clock: Clock) -> None:
    before = traced()
    for number in range(3_000):
        memory.take_nowait([charge("all", 10**6, 90), charge(f"{number}", 9, 60)], (f"id {number}",))
    clock.now += 90 * SECOND
    for _ in range(10):
        memory.peek_nowait([])
    assert len(memory) == 0
    # Tables of a dictionary and a list shrink only when they are filled anew.
    assert traced() - before < 600_000


@pytest.fixture
def threads_take_turns() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_take_turns")
def test_threads_together_get_exactly_the_limit(memory: MemoryCounters) -> None:
    admitted: list[int] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        decisions = [memory.take_nowait([charge("a", 777), charge("b", 1_000)]) for _ in range(1_000)]
        admitted.append(sum(map(bool, decisions)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 777
    assert memory.peek_nowait([charge("b", 1_000)]).remaining == 222
