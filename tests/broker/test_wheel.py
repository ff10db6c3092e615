from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker.broker.wheel import TICK, Alarm, Wheel
from tests.broker.sessions.support import JumpingLoop

EPSILON = 1e-6  # what sums of floats may be off


class FakeLoop:
    """The part of an event loop that a wheel uses, with a clock that the test moves."""

    def __init__(self, now: float = 0.0, late: float = 1e-6) -> None:
        self.now = now
        self.late = late
        self.timers: list[FakeTimer] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        self.armed += 1
        timer = FakeTimer(self, when, lambda: callback(*args))
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock and call what is due, each at its own time."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when + self.late)
            timer.callback()
            assert self.armed < 200_000, "the wheel turns on the spot"
        self.now = max(self.now, end)

    def hang(self, seconds: float) -> None:
        """Move the clock while nothing runs, as a handler does that blocks; then call what is due."""
        self.now += seconds
        self.advance(0.0)


class FakeTimer:
    def __init__(self, loop: FakeLoop, when: float, callback: Callable[[], object]) -> None:
        self._loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        if self in self._loop.timers:
            self._loop.timers.remove(self)


def wheel_of(loop: FakeLoop, tick: float = TICK) -> Wheel:
    as_loop: Any = loop
    return Wheel(as_loop, tick)


@pytest.mark.parametrize("start", [0.0, 0.049999, 0.05, 12345.678, 3e7])
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.15, 0.3, 1.0, 59.99, 3600.0])
def test_an_alarm_is_never_early_and_at_most_a_tick_late(start: float, seconds: float) -> None:
    loop = FakeLoop(start)
    rang: list[float] = []
    wheel_of(loop).after(seconds, lambda: rang.append(loop.now))
    loop.advance(seconds + 2 * TICK)
    assert len(rang) == 1
    assert start + seconds - EPSILON <= rang[0] <= start + seconds + TICK + EPSILON


def test_a_clock_that_stands_exactly_on_a_tick_does_not_make_the_wheel_spin() -> None:
    loop = FakeLoop(late=0.0)
    rang: list[float] = []
    wheel_of(loop).after(60.0, lambda: rang.append(loop.now))
    loop.advance(61.0)
    assert len(rang) == 1
    assert loop.armed <= 61.0 / TICK


@settings(max_examples=100)
@given(
    st.floats(0, 1e6),
    st.lists(st.tuples(st.sampled_from(["set", "cancel", "advance", "hang"]), st.floats(0, 1)), max_size=40),
)
def test_whatever_happens_each_alarm_rings_once_in_its_time_or_was_cancelled(
    start: float, steps: list[tuple[str, float]]
) -> None:
    loop = FakeLoop(start)
    wheel = wheel_of(loop)
    due: dict[int, float] = {}
    alarms: dict[int, Alarm] = {}
    rang: dict[int, float] = {}
    cancelled: set[int] = set()
    blocked = 0.0
    for number, (what, amount) in enumerate(steps):
        if what == "set":
            due[number] = loop.now + amount

            def ring(number: int = number) -> None:
                assert number not in rang, "an alarm rang twice"
                rang[number] = loop.now

            alarms[number] = wheel.after(amount, ring)
        elif what == "cancel" and alarms:
            chosen = sorted(alarms)[int(amount * (len(alarms) - 1))]
            alarms[chosen].cancel()
            if chosen not in rang:
                cancelled.add(chosen)
        elif what == "advance":
            loop.advance(amount)
        else:
            blocked = max(blocked, amount)
            loop.hang(amount)
    loop.advance(2.0)
    assert rang.keys() == due.keys() - cancelled
    for number, at in rang.items():
        assert due[number] - EPSILON <= at <= due[number] + TICK + blocked + EPSILON
    assert loop.timers == []


def test_alarms_ring_in_the_order_of_their_ticks_and_of_their_setting() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    order: list[str] = []
    for name, seconds in (("late", 0.5), ("first", 0.11), ("second", 0.12), ("early", 0.01)):
        wheel.after(seconds, lambda name=name: order.append(name))
    loop.advance(1.0)
    assert order == ["early", "first", "second", "late"]


def test_a_loop_that_was_blocked_rings_everything_that_was_due_in_order() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    order: list[int] = []
    for number in range(20):
        wheel.after(number * 0.06, lambda number=number: order.append(number))
    loop.hang(10.0)
    assert order == list(range(20))


def test_no_timer_runs_when_the_time_of_the_last_alarm_is_past() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    assert loop.timers == []
    alarms = [wheel.after(1.0, lambda: None) for _ in range(1000)]
    assert len(loop.timers) == 1
    for alarm in alarms:
        alarm.cancel()
    loop.advance(1.2)
    assert loop.timers == []
    armed = loop.armed
    loop.advance(10.0)
    assert loop.armed == armed


def test_thousands_of_alarms_cost_one_timer() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[int] = []
    for number in range(5000):
        wheel.after(0.2, lambda number=number: rang.append(number))
    assert loop.armed == 1
    loop.advance(0.3)
    assert rang == list(range(5000))
    assert loop.armed <= 6


def test_a_cancelled_alarm_is_silent_and_cancelling_again_does_nothing() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[str] = []
    alarm = wheel.after(0.1, lambda: rang.append("cancelled"))
    wheel.after(0.1, lambda: rang.append("other"))
    alarm.cancel()
    alarm.cancel()
    loop.advance(1.0)
    alarm.cancel()
    assert rang == ["other"]


def test_an_alarm_that_is_cancelled_by_another_of_its_tick_is_silent() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[str] = []
    alarms: list[Alarm] = []

    def first() -> None:
        rang.append("first")
        for alarm in alarms:
            alarm.cancel()

    alarms.append(wheel.after(0.1, first))
    alarms.append(wheel.after(0.1, lambda: rang.append("second")))
    loop.advance(1.0)
    assert rang == ["first"]


def test_an_alarm_that_cancels_itself_while_it_rings_harms_no_other() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[str] = []
    alarms: list[Alarm] = []

    def first() -> None:
        rang.append("first")
        alarms[0].cancel()

    alarms.append(wheel.after(0.1, first))
    wheel.after(0.1, lambda: rang.append("of the same tick"))
    wheel.after(0.5, lambda: rang.append("later"))
    loop.advance(1.0)
    wheel.after(0.1, lambda: rang.append("last"))
    loop.advance(1.0)
    assert rang == ["first", "of the same tick", "later", "last"]


def test_an_alarm_may_set_another_even_one_that_is_due_at_once() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[float] = []

    def again() -> None:
        rang.append(loop.now)
        if len(rang) < 5:
            wheel.after(0.0, again)

    wheel.after(0.0, again)
    loop.advance(1.0)
    assert len(rang) == 5
    assert rang == sorted(rang)


def test_a_closed_wheel_forgets_its_alarms() -> None:
    loop = FakeLoop()
    wheel = wheel_of(loop)
    rang: list[int] = []
    alarm = wheel.after(0.1, lambda: rang.append(1))
    wheel.close()
    wheel.close()
    assert loop.timers == []
    loop.advance(1.0)
    alarm.cancel()
    assert rang == []


def test_an_alarm_rings_in_a_real_loop() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        rang: asyncio.Future[float] = loop.create_future()
        wheel = Wheel(loop)
        wheel.after(30.0, lambda: rang.set_result(loop.time()))
        before = loop.time()
        return await rang - before

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        assert 30.0 <= runner.run(scenario()) <= 30.0 + TICK + 1e-3
