from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import Broker, SessionLimits
from enclave_broker.broker.sessions.host import Sources
from enclave_broker.broker.store.records import StepDone
from tests.broker.sessions.support import EPOCH, Chance, jumping, run_jumping, turns, twin_broker

ROOMY = SessionLimits(timeout=1e6, max_timers=100_000, max_tool_calls=10_000)


async def value_of(code: str, limits: SessionLimits = ROOMY) -> Any:
    async with twin_broker(limits=limits) as broker:
        result = await broker.execute(code)
    assert result.ok, result.error
    return result.value


@jumping
async def test_timers_fire_in_the_order_of_their_times() -> None:
    code = """const order = [];
      for (const ms of [30, 10, 20, 0, 10.5, 25]) setTimeout(() => order.push(ms), ms);
      await sleep(100); return order"""
    assert await value_of(code) == [0, 10, 10.5, 20, 25, 30]


@pytest.mark.parametrize("uptime", [0.0, 1000.0, 1e5, 3e7])  # seconds: a machine that has run for a year, too
def test_timers_of_the_same_time_fire_in_the_order_in_which_they_were_set(uptime: float) -> None:
    code = """const order = [];
      for (let i = 0; i < 100; i++) setTimeout(() => order.push(i), 10);
      await sleep(100); return order"""
    assert run_jumping(lambda: value_of(code), uptime) == list(range(100))


@jumping
async def test_each_timer_runs_its_microtasks_before_the_next_timer() -> None:
    code = """const order = [];
      for (const n of [1, 2])
        setTimeout(() => { order.push("t" + n); Promise.resolve().then(() => order.push("m" + n)) }, 5);
      await sleep(50); return order"""
    assert await value_of(code) == ["t1", "m1", "t2", "m2"]


@jumping
async def test_a_cleared_timer_never_fires_and_clearing_nonsense_does_nothing() -> None:
    code = """const order = [];
      const a = setTimeout(() => order.push("a"), 10), b = setTimeout(() => order.push("b"), 20);
      setTimeout(() => clearTimeout(b), 15); clearTimeout(a); clearTimeout(a);
      for (const odd of [undefined, null, -1, 1e9, "x", {}, NaN]) clearTimeout(odd);
      await sleep(100); clearTimeout(b); return order"""
    assert await value_of(code) == []


@jumping
async def test_a_timer_that_clears_its_twin_of_the_same_time_wins() -> None:
    code = """const order = []; let b;
      setTimeout(() => { order.push("a"); clearTimeout(b) }, 10); b = setTimeout(() => order.push("b"), 10);
      await sleep(100); return order"""
    assert await value_of(code) == ["a"]


@jumping
async def test_a_timer_may_set_timers_of_its_own() -> None:
    code = """let n = 0; const start = Date.now();
      await new Promise(done => { const tick = () => ++n < 50 ? setTimeout(tick, 100) : done(); tick() });
      return [n, Date.now() - start]"""
    n, elapsed = await value_of(code)
    assert n == 50
    assert 4900 <= elapsed <= 4900 + 50


@pytest.mark.parametrize(
    ("delay", "least", "most"),
    [
        ("0", 0, 5),
        ("-5", 0, 5),
        ("NaN", 0, 5),
        ("undefined", 0, 5),
        ("'20'", 20, 25),
        ("1.5", 1, 5),
    ],
)
@jumping
async def test_a_delay_is_a_number_of_milliseconds_from_zero(delay: str, least: int, most: int) -> None:
    code = f"const t = Date.now(); await new Promise(r => setTimeout(r, {delay})); return Date.now() - t"
    assert least <= await value_of(code, SessionLimits(timeout=3e6)) <= most


@pytest.mark.parametrize(
    ("delay", "recorded"),
    [("1e9", 1e9), ("2 ** 31 - 1", 2**31 - 1), ("2 ** 31", 2**31 - 1), ("1e300", 2**31 - 1), ("Infinity", 0)],
)
@jumping
async def test_a_delay_beyond_the_longest_is_cut_to_it_in_the_log(delay: str, recorded: float) -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        session.begin(f"await new Promise(r => setTimeout(r, {delay}))")
        await turns(20)
        timers = [record.fact.timers for record in session.log.records if isinstance(record.fact, StepDone)]
        await session.cancel()
    assert timers[0] in ([(1, recorded)], [(1, 2**31 - 1)])


@jumping
async def test_many_timers_fire_each_once() -> None:
    code = """let n = 0; for (let i = 0; i < 5000; i++) setTimeout(() => n++, i % 97);
      await sleep(200); return n"""
    assert await value_of(code) == 5000


@jumping
async def test_too_many_timers_are_an_error_that_can_be_caught() -> None:
    code = """try { for (;;) setTimeout(() => {}, 1e6) } catch (e) { return [e.code, e.message.includes("10")] }"""
    assert (await value_of(code, SessionLimits(max_timers=10)))[0] == "TIMER_LIMIT"


@jumping
async def test_callbacks_get_their_arguments_and_a_throwing_one_harms_no_other() -> None:
    code = """const order = [];
      setTimeout((a, b) => order.push([a, b]), 1, "x", 2); setTimeout(() => { throw new Error("t") }, 2);
      setTimeout(() => order.push("after"), 3); await sleep(50); return order"""
    assert await value_of(code) == [["x", 2], "after"]


@jumping
async def test_the_scripts_clock_stands_while_it_runs_and_never_goes_back() -> None:
    code = """const seen = [Date.now()]; for (let i = 0; i < 1e5; i++); seen.push(Date.now());
      await sleep(1000); seen.push(Date.now()); return seen"""
    first, second, third = await value_of(code)
    assert first == second == round((EPOCH + 1000) * 1000)
    assert third - second == pytest.approx(1000, abs=2)


def test_a_clock_that_goes_back_is_not_seen_by_the_script() -> None:
    times = iter([100.0, 100.0, 100.0, 50.0, 25.0, 12.0, 6.0])

    async def scenario() -> Any:
        sources = Sources(now=lambda: next(times, 1.0), random=Chance())
        async with twin_broker(sources=sources) as broker:
            return (await broker.execute("const a = Date.now(); await sleep(5); return [a, Date.now()]")).value

    first, second = run_jumping(scenario)
    assert second >= first


async def test_timers_fire_in_a_real_worker_too(broker: Broker) -> None:
    code = """const order = []; for (const ms of [9, 3, 3, 6]) setTimeout(() => order.push(ms), ms);
      await sleep(30); return order"""
    assert (await broker.execute(code)).value == [3, 3, 6, 9]


@jumping
async def test_timers_race_with_calls_in_the_order_of_the_log() -> None:
    async def slow(ms: int) -> int:
        await asyncio.sleep(ms / 1000)
        return ms

    code = """const order = []; const jobs = [];
      for (const ms of [5, 15, 25]) jobs.push(callTool("slow", {ms}).then(v => order.push("call " + v)));
      for (const ms of [10, 20, 30]) jobs.push(sleep(ms).then(() => order.push("timer " + ms)));
      await Promise.all(jobs); return order"""
    async with twin_broker(tools={"slow": slow}) as broker:
        result = await broker.execute(code)
    assert result.value == ["call 5", "timer 10", "call 15", "timer 20", "call 25", "timer 30"]
