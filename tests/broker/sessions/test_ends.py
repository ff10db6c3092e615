"""How an execution ends that its script doesn't end: expiry, deadline, limits, cancel, a lost runtime."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from enclave_broker import (
    Broker,
    DeadlineExceededEvent,
    ExecutionResult,
    Principal,
    SessionClosedError,
    SessionLimits,
)
from enclave_broker.broker.store.records import Ended
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.events import Event
from tests.broker.sessions.support import (
    HandRuntime,
    check_log,
    finals,
    jumping,
    loop_sources,
    turns,
    twin_broker,
    twin_session,
    within,
)

FOREVER = "await new Promise(resolve => setTimeout(resolve, 1e9))"


def code_of(result: ExecutionResult[object]) -> str:
    assert result.error is not None
    return result.error.code


class Waiting:
    """A tool that waits and says how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def wait(self) -> None:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


@pytest.mark.parametrize(
    "code", [FOREVER, "for (let i = 0; ; i++) await sleep(7)", "await callTool('wait')", "callTool('wait'); return 1"]
)
@jumping
async def test_a_timeout_ends_what_is_active_as_session_expired(code: str) -> None:
    tool = Waiting()
    limits = SessionLimits(timeout=5, max_timers=1_000_000)
    async with twin_session(tools={"wait": tool.wait}, limits=limits) as session:
        result = await within(session.execute(f"console.log('kept'); {code}"), 100)
        check_log(session.log.records)
        with pytest.raises(SessionClosedError):
            await session.execute("return 1")
    assert (result.ok, result.status, code_of(result), result.stdout) == (False, "failed", "SESSION_EXPIRED", "kept\n")
    assert 5 <= result.stats.duration <= 5.5


@jumping
async def test_a_deadline_is_an_event_before_the_final_and_its_code() -> None:
    events: list[Event] = []
    async with twin_broker() as broker:
        result = await within(broker.execute(FOREVER, deadline=2, on_event=events.append), 100)
    assert code_of(result) == "DEADLINE_EXCEEDED"
    assert [event.type for event in events] == ["session_init", "deadline_exceeded", "final"]
    exceeded = events[1]
    assert isinstance(exceeded, DeadlineExceededEvent)
    assert exceeded.budget_ms == 2000
    assert 2000 <= exceeded.elapsed_ms <= 2500


@pytest.mark.parametrize(("timeout", "deadline"), [(2.0, 2.0), (2.0, 2.001), (2.001, 2.0), (0.01, 0.01)])
@jumping
async def test_timeout_and_deadline_at_once_are_one_final(timeout: float, deadline: float) -> None:
    async with twin_broker() as broker, await broker.create_session(timeout=timeout, deadline=deadline) as session:
        result = await within(session.execute(FOREVER), 100)
        await asyncio.sleep(1)
        check_log(session.log.records)
    assert code_of(result) in {"SESSION_EXPIRED", "DEADLINE_EXCEEDED"}


@jumping
async def test_time_outs_work_one_after_the_other_and_many_at_once() -> None:
    async with twin_broker() as broker:
        for _ in range(3):
            assert code_of(await within(broker.execute(FOREVER, timeout=1), 100)) == "SESSION_EXPIRED"
        many = await within(asyncio.gather(*(broker.execute(FOREVER, timeout=1) for _ in range(20))), 100)
    assert {code_of(result) for result in many} == {"SESSION_EXPIRED"}


@jumping
async def test_output_and_calls_beyond_the_logs_size_end_it_with_log_limit() -> None:
    limits = SessionLimits(max_log_bytes=50_000)
    async with twin_broker(limits=limits) as broker, await broker.create_session() as session:
        result = await session.execute("for (let i = 0; i < 999; i++) { console.log('x'.repeat(999)); await sleep(1) }")
        check_log(session.log.records)
        with pytest.raises(SessionClosedError):
            await session.execute("return 1")
    assert code_of(result) == "LOG_LIMIT"
    assert 20_000 < len(result.stdout) < 51_000


@jumping
async def test_a_step_that_fills_the_log_starts_neither_its_calls_nor_its_timers() -> None:
    tool = Waiting()
    code = "callTool('wait'); setTimeout(() => {}, 10); console.log('x'.repeat(9999)); await sleep(5)"
    limits = SessionLimits(max_log_bytes=5000)
    async with twin_session(limits=limits, tools={"wait": tool.wait}) as session:
        result = await session.execute(code)
        await asyncio.sleep(1)
        check_log(session.log.records)
    assert (code_of(result), tool.began.is_set()) == ("LOG_LIMIT", False)
    assert [call.outcome for call in result.calls] == ["not_run"]


@pytest.mark.parametrize(("code", "size"), [("x" * 101, 100), ("é" * 51, 100)])
@jumping
async def test_code_that_is_too_large_does_not_run(code: str, size: int) -> None:
    async with twin_session(limits=SessionLimits(max_code_bytes=size)) as session:
        result = await session.execute(f"/*{code}*/ return 1")
        check_log(session.log.records)
        assert (await session.execute("2")).value == 2
    assert (code_of(result), result.value) == ("CODE_TOO_LARGE", None)


@jumping
async def test_the_largest_code_runs() -> None:
    async with twin_broker(limits=SessionLimits(max_code_bytes=100)) as broker:
        assert (await broker.execute("1".ljust(100))).value == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("for (;;) {}", "CPU_LIMIT"),
        ("const a = []; for (;;) a.push('x'.repeat(1e6) + a.length)", "MEMORY_LIMIT"),
        ("for (;;) console.log('x'.repeat(100))", "STDOUT_LIMIT"),
    ],
)
@jumping
async def test_a_trap_keeps_the_output_and_closes_the_session(code: str, expected: str) -> None:
    limits = SessionLimits(cpu_time=0.05, max_memory_bytes=8 << 20, max_stdout_bytes=2000)
    async with twin_broker(limits=limits) as broker, await broker.create_session() as session:
        result = await session.execute(f"console.log('kept'); {code}")
        check_log(session.log.records)
        assert (code_of(result), result.status, session.state) == (expected, "failed", "failed")
        assert result.stdout.startswith("kept\n")
        with pytest.raises(SessionClosedError):
            await session.execute("return 1")


@pytest.mark.parametrize("where", ["in a call", "in a timer", "before its first step"])
@jumping
async def test_a_cancel_from_outside_ends_it_wherever_it_is(where: str) -> None:
    tool = Waiting()
    code = {"in a call": "await callTool('wait')", "in a timer": FOREVER, "before its first step": "return 1"}[where]
    async with twin_broker(tools={"wait": tool.wait}) as broker:
        session = await broker.create_session()
        run = asyncio.ensure_future(session.execute(code))
        if where == "in a call":
            await tool.began.wait()
        else:
            await turns(1 if "first" in where else 50)
        assert await session.cancel("the user went away") is True
        result = await run
        assert await session.cancel() is False
        check_log(session.log.records)
        if where == "in a call":
            await tool.ended.wait()
            assert tool.cancelled
            assert [call.outcome for call in result.calls] == ["unknown"]
    assert result.error is not None
    assert (result.status, result.error.code) == ("cancelled", "SESSION_CANCELLED")
    assert "the user went away" in result.error.message
    assert session.state == "cancelled"


@jumping
async def test_whoever_waits_in_execute_ends_the_run_by_going_away() -> None:
    tool = Waiting()
    async with twin_broker(tools={"wait": tool.wait}) as broker:
        run = asyncio.ensure_future(broker.execute("await callTool('wait')"))
        await tool.began.wait()
        (session,) = broker.sessions.list()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await tool.ended.wait()
        check_log(session.log.records)
        assert (tool.cancelled, list(broker.sessions.list())) == (True, [])


@jumping
async def test_whoever_waits_in_a_session_leaves_the_run_alone() -> None:
    tool = Waiting()
    async with twin_broker(tools={"wait": tool.wait}) as broker, await broker.create_session() as session:
        run = asyncio.ensure_future(session.execute("callTool('wait'); await sleep(5); return 1"))
        await tool.began.wait()
        run.cancel()
        await turns()
        assert session.state == "waiting_for_tool"
        assert not tool.cancelled
        assert session.log.records[-1].fact is not None


@jumping
async def test_a_handler_that_ignores_its_cancellation_does_not_hold_up_the_final() -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        began.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    async with twin_broker(tools={"stubborn": stubborn}) as broker:
        session = await broker.create_session()
        run = asyncio.ensure_future(session.execute("return await callTool('stubborn')"))
        await began.wait()
        await session.cancel()
        assert (await within(run)).status == "cancelled"
        release.set()
        await turns()
        check_log(session.log.records)


@jumping
async def test_a_lost_runtime_names_the_calls_in_doubt(replays_every_session: list[object]) -> None:
    tool = Waiting()
    runtime = HandRuntime()
    async with Broker(runtimes=[runtime], tools={"wait": tool.wait}, sources=loop_sources()) as broker:
        session = await broker.create_session()
        run = asyncio.ensure_future(session.execute("whatever"))
        await turns()
        runtime.runs[0].step([[1, 1, "wait", {}]])
        await tool.began.wait()
        runtime.runs[0].lost()
        result = await run
        check_log(session.log.records)
        await tool.ended.wait()
    replays_every_session.clear()  # nothing can run the made-up engine's log again
    assert result.error is not None
    assert result.error.code == "RUNTIME_LOST"
    assert f"wait ({result.calls[0].id})" in result.error.message
    assert [call.outcome for call in result.calls] == ["unknown"]


async def test_a_killed_worker_takes_only_its_own_tenants_sessions_along() -> None:
    ours, theirs = Waiting(), asyncio.Event()
    go = asyncio.Event()

    async def hold() -> str:
        theirs.set()
        await go.wait()
        return "went on"

    pool = ProcessPool(workers=1)
    async with Broker(tools={"wait": ours.wait, "hold": hold}, runtimes=[pool]) as broker:
        other = asyncio.ensure_future(
            broker.execute("return await callTool('hold')", principal=Principal("b", tenant="theirs"))
        )
        await within(theirs.wait())
        run = asyncio.ensure_future(broker.execute("await callTool('wait')", principal=Principal("a", tenant="ours")))
        await within(ours.began.wait())
        (pid,) = [worker.pid for worker in pool.workers if worker.key and worker.key.tenant == "ours"]
        os.kill(pid, signal.SIGKILL)
        lost = await within(run)
        await within(ours.ended.wait())
        go.set()
        assert (await within(other)).value == "went on"
        assert (await within(broker.execute("return 1", principal=Principal("a", tenant="ours")))).value == 1
    assert (code_of(lost), lost.status) == ("RUNTIME_LOST", "failed")
    assert lost.error is not None
    assert f"wait ({lost.calls[0].id})" in lost.error.message
    assert [call.outcome for call in lost.calls] == ["unknown"]
    assert ours.cancelled


@jumping
async def test_a_closed_broker_ends_what_runs_with_shutting_down() -> None:
    tool = Waiting()
    async with twin_broker(tools={"wait": tool.wait}) as broker:
        session = await broker.create_session()
        run = asyncio.ensure_future(session.execute("await callTool('wait')"))
        await tool.began.wait()
        await broker.aclose()
        assert code_of(await run) == "SHUTTING_DOWN"
        check_log(session.log.records)
        assert tool.cancelled


@jumping
async def test_leaving_a_broker_lets_what_runs_end_first() -> None:
    async with twin_broker() as broker:
        run = asyncio.ensure_future(broker.execute("await sleep(2000); return 'drained'"))
        await turns()
    assert (await run).value == "drained"


@jumping
async def test_leaving_a_broker_does_not_wait_for_ever() -> None:
    async with twin_broker() as broker:
        session = await broker.create_session()
        run = asyncio.ensure_future(session.execute(FOREVER))
        await turns()
    assert code_of(await run) == "SHUTTING_DOWN"
    check_log(session.log.records)


@jumping
async def test_the_end_in_the_log_is_the_end_in_the_result() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        result = await session.execute("return {a: 1}")
        (ended,) = [record.fact for record in session.log.records if isinstance(record.fact, Ended)]
        (final,) = finals(session.log.records)
    assert (ended.value, ended.stats, final.result) == (result.value, result.stats, {"a": 1})
