"""Calls that a script doesn't await: those that started are waited for, others don't start."""

from __future__ import annotations

import asyncio

import pytest

from enclave_broker import ExecutionResult, SessionLimits, ToolError
from enclave_broker.types.events import Event
from tests.broker.sessions.support import jumping, turns, twin_broker, within


class House:
    """Tools that wait for the test, and what ran."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.ran: list[str] = []

    async def wait(self) -> str:
        self.began.set()
        await self.gate.wait()
        self.ran.append("wait")
        return "waited"

    async def note(self, text: str) -> None:
        self.ran.append(text)

    async def fail(self) -> None:
        await self.gate.wait()
        self.ran.append("fail")
        raise ToolError("no")


def outcomes(result: ExecutionResult[object]) -> list[tuple[str, str]]:
    return [(call.name, call.outcome) for call in result.calls]


@jumping
async def test_a_started_call_is_waited_for_before_the_final() -> None:
    house = House()
    events: list[Event] = []
    async with twin_broker(tools={"wait": house.wait}) as broker:
        run = asyncio.ensure_future(broker.execute("callTool('wait'); return 1", on_event=events.append))
        await house.began.wait()
        await turns(50)
        assert not run.done()
        assert "final" not in [event.type for event in events]
        house.gate.set()
        result = await run
    assert (result.value, outcomes(result)) == (1, [("wait", "done")])
    assert [event.type for event in events][-2:] == ["tool_result_applied", "final"]


@jumping
async def test_a_queued_call_does_not_start_any_more() -> None:
    house = House()
    code = "callTool('wait'); callTool('note', {text: 'queued'}); return 1"
    async with twin_broker(tools={"wait": house.wait, "note": house.note}) as broker:
        run = asyncio.ensure_future(broker.execute(code, limits=SessionLimits(max_concurrent_calls=1)))
        await house.began.wait()
        house.gate.set()
        result = await run
    assert outcomes(result) == [("wait", "done"), ("note", "not_run")]
    assert house.ran == ["wait"]


@jumping
async def test_a_call_that_a_callback_makes_after_the_end_does_not_start() -> None:
    house = House()
    code = "callTool('wait').then(() => callTool('note', {text: 'late'})); return 1"
    async with twin_broker(tools={"wait": house.wait, "note": house.note}) as broker:
        run = asyncio.ensure_future(broker.execute(code))
        await house.began.wait()
        house.gate.set()
        result = await within(run)
    assert (result.value, outcomes(result)) == (1, [("wait", "done"), ("note", "not_run")])
    assert house.ran == ["wait"]


@jumping
async def test_what_a_callback_prints_after_the_end_counts() -> None:
    house = House()
    async with twin_broker(tools={"wait": house.wait}) as broker:
        run = asyncio.ensure_future(broker.execute("callTool('wait').then(v => console.log(v)); return 1"))
        await house.began.wait()
        house.gate.set()
        result = await run
    assert result.stdout == "waited\n"


@pytest.mark.parametrize("handled", ["", ".catch(() => {})", ".then(() => { throw new Error('in a callback') })"])
@jumping
async def test_its_failure_does_not_fail_the_run(handled: str) -> None:
    house = House()
    async with twin_broker(tools={"fail": house.fail}) as broker:
        run = asyncio.ensure_future(broker.execute(f"callTool('fail'){handled}; return 1"))
        await turns(100)
        house.gate.set()
        result = await within(run)
    assert (result.ok, result.value, outcomes(result)) == (True, 1, [("fail", "failed")])


@jumping
async def test_a_failed_script_waits_for_its_calls_too() -> None:
    house = House()
    async with twin_broker(tools={"wait": house.wait}) as broker:
        run = asyncio.ensure_future(broker.execute("callTool('wait'); await sleep(1); throw new Error('mine')"))
        await house.began.wait()
        house.gate.set()
        result = await run
    assert result.error is not None
    assert (result.error.message, outcomes(result)) == ("mine", [("wait", "done")])


@jumping
async def test_the_wait_ends_with_the_calls_own_timeout() -> None:
    house = House()
    async with twin_broker(tools={"wait": house.wait}, limits=SessionLimits(tool_timeout=2)) as broker:
        result = await within(broker.execute("callTool('wait'); return 1"), 30)
    assert (result.ok, outcomes(result)) == (True, [("wait", "unknown")])
    assert result.calls[0].error is not None
    assert result.calls[0].error.code == "TOOL_TIMEOUT"


@jumping
async def test_the_wait_ends_with_the_sessions_timeout() -> None:
    house = House()
    async with twin_broker(tools={"wait": house.wait}, limits=SessionLimits(timeout=2)) as broker:
        result = await within(broker.execute("callTool('wait'); return 1"), 30)
    assert result.error is not None
    assert (result.error.code, outcomes(result)) == ("SESSION_EXPIRED", [("wait", "unknown")])


@jumping
async def test_a_script_that_has_ended_does_not_wait_for_its_timers() -> None:
    async with twin_broker() as broker:
        result = await broker.execute("setTimeout(() => console.log('never'), 10_000); return 1")
    assert (result.value, result.stdout) == (1, "")
    assert result.stats.duration < 1


@jumping
async def test_an_unawaited_failure_ends_a_run_that_cancels_on_the_first_error() -> None:
    house = House()
    house.gate.set()
    async with twin_broker(tools={"fail": house.fail}, limits=SessionLimits(cancel_on_first_error=True)) as broker:
        result = await broker.execute("callTool('fail').catch(() => {}); await sleep(1000); return 1")
    assert result.error is not None
    assert (result.ok, result.error.message) == (False, "no")
