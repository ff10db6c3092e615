from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from enclave_broker import SessionLimits, ToolError
from enclave_broker.broker.sessions.replay import Divergence, recorded_executions, replay
from enclave_broker.broker.store.records import (
    CallRequested,
    CallSettled,
    Ended,
    ExecutionStarted,
    Printed,
    Record,
    StepDone,
    TimerExpired,
)
from enclave_broker.runtime.memory import MemoryRuntime
from enclave_broker.types.events import LogEvent, StdoutEvent
from enclave_broker.types.messages import CallFulfilled, TimerFired
from tests.broker.sessions.support import events_of, loop_sources, run_jumping, twin_broker, twin_session, within

CODE = """
const seen = [Date.now(), Math.random(), crypto.randomUUID()];
console.log("start", ...seen);
const first = await Promise.race([1, 2, 3].map(n => callTool("later", {n})));
console.warn("first", first);
setTimeout(() => console.log("timer", Date.now()), 5);
await sleep(20);
try { await callTool("fail") } catch (e) { console.error(e.code, e.message) }
return {first, seen, again: [Date.now(), Math.random()]};
"""


async def later(n: int) -> int:
    await asyncio.sleep((4 - n) / 100)
    return n * 10


async def fail() -> None:
    raise ToolError("no", code="NO")


def record(code: str = CODE, **options: Any) -> list[Record]:
    """The log of one run."""

    async def scenario() -> list[Record]:
        async with twin_session(tools={"later": later, "fail": fail}, **options) as session:
            await session.execute(code)
            return session.log.records

    return run_jumping(scenario)


@pytest.fixture
async def runtime() -> AsyncIterator[MemoryRuntime]:
    made = MemoryRuntime()
    await made.start()
    yield made
    await made.aclose()


def changed(records: list[Record], kind: type, at: int = 0, **fields: Any) -> list[Record]:
    """The same log with one fact of this kind changed."""
    found = [record.index for record in records if isinstance(record.fact, kind)]
    fact: Any = records[found[at]].fact
    copy = list(records)
    copy[found[at]] = msgspec.structs.replace(copy[found[at]], fact=msgspec.structs.replace(fact, **fields))
    return copy


def without(records: list[Record], kind: type, at: int = 0) -> list[Record]:
    found = [record.index for record in records if isinstance(record.fact, kind)]
    return [record for record in records if record.index != found[at]]


def script_side(records: list[Record]) -> list[Any]:
    """What two runs with the same sources have in common: everything but durations."""
    return [
        (record.fact.call_id, record.fact.name, bytes(record.fact.args))
        if isinstance(record.fact, CallRequested)
        else (record.fact.timers, record.fact.inputs)
        if isinstance(record.fact, StepDone)
        else (record.fact.value, record.fact.status)
        if isinstance(record.fact, Ended)
        else record.fact
        for record in records
        if not isinstance(record.fact, ExecutionStarted)
    ]


def test_two_runs_of_the_same_sources_make_the_same_log() -> None:
    one, two = record(), record()
    assert script_side(one) == script_side(two)
    assert events_of_log(one) == events_of_log(two)


def test_another_seed_and_another_time_make_another_log() -> None:
    ours, theirs = record(), record(sources=loop_sources("another"))
    (one,), (two,) = ([r.fact for r in log if isinstance(r.fact, Ended)] for log in (ours, theirs))
    assert one.value["seen"][0] == two.value["seen"][0]
    assert one.value["seen"][1:] != two.value["seen"][1:]


async def test_an_untouched_log_comes_out_the_same(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    assert await replay(records, runtime) is None
    assert await replay(records, runtime) is None


async def test_a_log_is_replayed_without_any_tool(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record, "return await callTool('later', {n: 1})")
    (execution,) = recorded_executions(records)
    assert execution.calls == [("later", b'{"n":1}')]
    assert await replay(records, runtime) is None


async def divergence(records: list[Record], runtime: MemoryRuntime) -> Divergence:
    found = await within(replay(records, runtime), 5)
    assert found is not None, "the change went unnoticed"
    return found


async def test_a_changed_result_of_a_call_is_noticed_where_it_shows(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    settled = next(r.fact for r in records if isinstance(r.fact, CallSettled))
    assert isinstance(settled.input, CallFulfilled)
    other = msgspec.structs.replace(settled.input, value=msgspec.Raw(b"31"))
    found = await divergence(changed(records, CallSettled, input=other), runtime)
    assert found.what == "output"
    assert "first 30" in found.recorded
    assert "first 31" in found.replayed


async def test_a_changed_time_of_an_input_is_noticed(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    fired = next(r.fact for r in records if isinstance(r.fact, TimerExpired))
    assert isinstance(fired.input, TimerFired)
    other = msgspec.structs.replace(fired.input, now=fired.input.now + 1)
    assert (await divergence(changed(records, TimerExpired, input=other), runtime)).what == "output"


@pytest.mark.parametrize(
    ("field", "value"), [("name", "other"), ("args", msgspec.Raw(b'{"n":2}')), ("args", msgspec.Raw(b"{}"))]
)
async def test_a_changed_call_is_named(runtime: MemoryRuntime, field: str, value: Any) -> None:
    records = await asyncio.to_thread(record)
    found = await divergence(changed(records, CallRequested, at=2, **{field: value}), runtime)
    assert found.what == "calls[2]"
    assert found.replayed == [("later", b'{"n":3}')]


async def test_a_call_too_few_or_too_many_is_named(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    assert (await divergence(without(records, CallRequested, at=3), runtime)).what == "calls[3]"
    extra = next(r for r in records if isinstance(r.fact, CallRequested))
    assert (await divergence([*records, extra], runtime)).what == "calls[4]"


async def test_a_changed_timer_is_named(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    at, step = next((n, f) for n, f in enumerate(r.fact for r in records if isinstance(r.fact, StepDone)) if f.timers)
    id, _ = step.timers[0]
    found = await divergence(changed(records, StepDone, at, timers=[(id, 6.0), *step.timers[1:]]), runtime)
    assert found.what == "timers[0]"


async def test_changed_output_is_noticed(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    at = next(r.index for r in records if isinstance(r.fact, Printed) and isinstance(r.public, LogEvent))
    event: Any = records[at].public
    copy = list(records)
    copy[at] = msgspec.structs.replace(copy[at], public=msgspec.structs.replace(event, message="forged"))
    assert (await divergence(copy, runtime)).what == "output"


@pytest.mark.parametrize("changes", [{"value": {"first": 1}}, {"value": None}])
async def test_a_changed_end_is_noticed(runtime: MemoryRuntime, changes: dict[str, Any]) -> None:
    records = await asyncio.to_thread(record)
    assert (await divergence(changed(records, Ended, **changes), runtime)).what == "end"


async def test_another_engine_is_named_before_anything_runs(runtime: MemoryRuntime) -> None:
    records = await asyncio.to_thread(record)
    found = await divergence(changed(records, ExecutionStarted, engine="0" * 64), runtime)
    assert (found.what, found.recorded) == ("engine", "0" * 64)


@pytest.mark.parametrize("change", [{"seed": 1}, {"now": 0.0}, {"code": "return 1"}])
async def test_another_start_is_noticed(runtime: MemoryRuntime, change: dict[str, Any]) -> None:
    records = await asyncio.to_thread(record)
    start = next(r.fact for r in records if isinstance(r.fact, ExecutionStarted))
    message = msgspec.structs.replace(start.message, **change)
    assert (await divergence(changed(records, ExecutionStarted, message=message), runtime)).what


@pytest.mark.parametrize("kind", [CallSettled, TimerExpired])
async def test_a_missing_input_is_noticed_and_not_waited_for(runtime: MemoryRuntime, kind: type) -> None:
    records = await asyncio.to_thread(record)
    assert (await divergence(without(records, kind), runtime)).what


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("console.log('a'); await sleep(1); console.log('b'); for (;;) {}", SessionLimits(cpu_time=0.05)),
        ("console.log('a'); for (;;) console.log('b')", SessionLimits(max_stdout_bytes=500)),
        ("console.log('a'); await sleep(1); for (;;) console.log('b')", SessionLimits(max_stdout_bytes=500)),
        ("for (let i = 0; ; i++) { console.log(i); await sleep(1) }", SessionLimits(max_log_bytes=500)),
        ("callTool('later', {n: 1}); await callTool('fail')", SessionLimits(cancel_on_first_error=True)),
        ("await sleep(1e6)", SessionLimits(timeout=1)),
        ("await sleep(1e6)", SessionLimits(deadline=1)),
    ],
)
async def test_a_replay_obeys_the_recorded_verdict(runtime: MemoryRuntime, code: str, limits: SessionLimits) -> None:
    records = await asyncio.to_thread(record, code, limits=limits)
    assert events_of_log(records)[-1] == "final"
    assert await within(replay(records, runtime), 20) is None


async def test_output_before_a_verdict_is_compared_too(runtime: MemoryRuntime) -> None:
    code = "console.log('honest'); await sleep(1); for (;;) {}"
    records = await asyncio.to_thread(record, code, limits=SessionLimits(cpu_time=0.05))
    at = next(r.index for r in records if isinstance(r.public, StdoutEvent))
    event: Any = records[at].public
    copy = list(records)
    copy[at] = msgspec.structs.replace(copy[at], public=msgspec.structs.replace(event, chunk="forged\n"))
    assert (await divergence(copy, runtime)).what == "output"


async def test_every_execution_of_a_session_is_compared(runtime: MemoryRuntime) -> None:
    async def two() -> list[Record]:
        async with twin_broker() as broker, await broker.create_session() as session:
            await session.execute("return 1")
            await session.execute("console.log('second'); return 2")
            assert [event.type for event in events_of(session)].count("final") == 2
            return session.log.records

    records = await asyncio.to_thread(run_jumping, two)
    assert [execution.end for execution in recorded_executions(records)] == [1, 2]
    assert await replay(records, runtime) is None
    assert (await divergence(changed(records, Ended, at=1, value=3), runtime)) == Divergence("end", 3, 2)


def events_of_log(records: list[Record]) -> list[str]:
    return [record.public.type for record in records if record.public is not None]
