"""What it is to wait for a person: clocks, states, ends, caps, calls of the host, and a thousand at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import (
    AccessController,
    ApprovalDeniedError,
    ApprovalExpiredError,
    Broker,
    ConfigurationError,
    EnclaveError,
    Rule,
    SessionLimits,
    Timeout,
    ToolCall,
)
from enclave_broker.broker.store.records import ApprovalAsked, ApprovalDecided
from enclave_broker.types.principal import ANONYMOUS
from tests.broker.calls.approving import ANN, BOSS, REFUND, asked, begun, facts, shop
from tests.broker.sessions.support import jumping, turns, until, within
from tests.broker.store.test_commit import GatedStore

# -- waiting -----------------------------------------------------------------------------------------------------------


@jumping
async def test_no_time_of_the_script_passes_while_a_person_is_awaited() -> None:
    async with shop(middleware=[Timeout(3)]) as (broker, _):
        code = "await callTool('work', {seconds: 1}); await callTool('refund', {amount: 1}); return 'in time'"
        session = await begun(broker, code, timeout=2)
        (approval,) = await asked(broker)
        before = session.expires_at
        await asyncio.sleep(500)
        assert 499 < (session.expires_at - before).total_seconds() < 501
        await broker.approvals.approve(approval.id, by=BOSS)
        assert (await session.wait()).value == "in time"


@jumping
async def test_what_follows_the_approval_is_active_time_again() -> None:
    async with shop() as (broker, _):
        code = "await callTool('refund', {amount: 1}); await callTool('work', {seconds: 25})"
        session = await begun(broker, code, timeout=2)
        (approval,) = await asked(broker)
        await asyncio.sleep(100)
        await broker.approvals.approve(approval.id, by=BOSS)
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"


@jumping
async def test_a_slow_handler_that_was_approved_is_active_time() -> None:
    async with shop(Rule("work", allow="ask")) as (broker, _):
        session = await begun(broker, "await callTool('work', {seconds: 25})", timeout=2)
        (approval,) = await asked(broker)
        await asyncio.sleep(100)
        await broker.approvals.approve(approval.id, by=BOSS)
        before = asyncio.get_running_loop().time()
        result = await session.wait()
        assert result.error is not None
        assert result.error.code == "SESSION_EXPIRED"
        assert asyncio.get_running_loop().time() - before < 3


@jumping
async def test_a_waiting_session_says_so_here_and_as_before_on_the_wire() -> None:
    async with shop() as (broker, _):
        session = await begun(broker)
        (approval,) = await asked(broker)
        assert (session.state, session.info()["state"]) == ("waiting_for_approval", "waiting_for_tool")
        assert [each.id for each in broker.sessions.list_for(ANONYMOUS, state="waiting_for_tool")] == [session.id]
        (call,) = session.history()
        assert (call.outcome, call.rule, call.stages[-1].name) == ("waiting", approval.rule, "asked")
        await broker.approvals.approve(approval.id, by=BOSS)
        await session.wait()
        last = session.log.records[-1].public
        assert last is not None
        states = [(await session.state_at(seq)).state for seq in range(1, last.seq + 1)]
        assert "waiting_for_approval" in states
        assert states[-1] == "completed"
        assert states.index("waiting_for_approval") > states.index("waiting_for_tool")


@jumping
async def test_the_end_of_a_session_takes_its_questions_back() -> None:
    async with shop() as (broker, ledger):
        for end in ("cancel", "destroy", "deadline"):
            session = await begun(broker, deadline=5 if end == "deadline" else None)
            (approval,) = await asked(broker)
            if end == "deadline":
                await asyncio.sleep(6)
            else:
                await (session.cancel() if end == "cancel" else broker.sessions.destroy(session.id))
            assert await broker.approvals.list() == []
            with pytest.raises(EnclaveError) as caught:
                await broker.approvals.approve(approval.id, by=BOSS)
            assert caught.value.code == "NOT_FOUND"
        await turns()
        assert ledger == []
        assert (session.history()[0].outcome, session.history()[0].stages[-1].name) == ("not_run", "asked")


@jumping
async def test_a_log_that_is_full_at_any_moment_ends_the_run_and_leaves_no_question() -> None:
    call = "callTool('refund', {amount, note: 'x'.repeat(amount)})"
    code = f"await Promise.allSettled([100, 200, 1].map((amount) => {call}))"
    ends: list[bool] = []
    async with shop() as (broker, _):
        for room in range(1000, 9000, 80):
            result = await broker.execute(code, return_when="waiting", limits=SessionLimits(max_log_bytes=room))
            session = broker.sessions.get(result.session_id)
            if session is not None:
                await broker.approvals.approve(*[each.id for each in result.pending], by=BOSS)
                result = await session.wait()
            assert result.ok or (result.error is not None and result.error.code == "LOG_LIMIT")
            assert await broker.approvals.list() == []
            ends.append(result.ok)
    assert (ends[0], ends[-1]) == (False, True)


@jumping
async def test_calls_of_the_host_ask_too_and_raise_what_a_script_could_catch() -> None:
    async with shop() as (broker, ledger), await broker.create_session(principal=ANN) as session:
        call = {"name": "refund", "args": {"amount": 7}}
        for word, expected in (("deny", ApprovalDeniedError), ("approve", None), ("", ApprovalExpiredError)):
            task = asyncio.ensure_future(broker.execute_tool_call(session.id, call))
            (approval,) = await asked(broker)
            assert approval.requested_by == ANN
            if word == "deny":
                await broker.approvals.deny(approval.id, by=BOSS, reason="why?")
            elif word:
                await broker.approvals.approve(approval.id, by=BOSS)
            if expected is None:
                assert await task == 7
                continue
            with pytest.raises(expected) as caught:
                await task
            if isinstance(caught.value, ApprovalDeniedError):
                assert caught.value.reason == "why?"
        assert ledger == [7]


@jumping
async def test_a_call_of_the_host_may_be_decided_while_a_script_runs_that_began_later() -> None:
    async with shop() as (broker, _), await broker.create_session() as session:
        tasks = [
            asyncio.ensure_future(broker.execute_tool_call(session.id, {"name": "refund", "args": {"amount": amount}}))
            for amount in (1, 2)
        ]
        first, second = await asked(broker, 2)
        running = asyncio.ensure_future(session.execute("await callTool('work', {seconds: 1}); return 'done'"))
        await until(lambda: session.calls.running)
        assert session.state == "waiting_for_tool"
        await broker.approvals.approve(first.id, by=BOSS)
        assert await tasks[0] == 1
        assert (await running).value == "done"
        assert [call.name for call in (await session.wait()).calls] == ["work"]
        await broker.approvals.approve(second.id, by=BOSS)
        assert await tasks[1] == 2


@jumping
async def test_listeners_hear_of_a_call_only_when_it_was_approved() -> None:
    async with shop() as (broker, ledger):
        session = await broker.create_session(dispatch="manual")
        heard: list[ToolCall] = []
        session.on("tool_call", heard.append)
        session.begin(REFUND)
        (approval,) = await asked(broker)
        assert heard == []
        with pytest.raises(EnclaveError) as caught:
            session.send({"type": "tool_result", "id": approval.call_id, "data": 9})
        assert caught.value.code == "UNKNOWN_CALL"
        await broker.approvals.approve(approval.id, by=BOSS)
        await until(lambda: heard)
        assert session.send({"type": "tool_result", "id": approval.call_id, "data": 9})
        assert ((await session.wait()).value, ledger) == (9, [])


@jumping
async def test_a_tool_of_the_client_waits_for_a_person_first() -> None:
    async with shop(Rule("ask", allow="ask")) as (broker, _):
        broker.client_tool("ask", args=dict[str, Any], timeout=5)
        session = await begun(broker, "return await callTool('ask', {})", timeout=2)
        (approval,) = await asked(broker)
        with pytest.raises(EnclaveError):
            session.answer_nowait(approval.call_id, ok=True, value="too early")
        await asyncio.sleep(50)
        await broker.approvals.approve(approval.id, by=BOSS)
        await until(lambda: session.calls.all_wait_outside)
        assert session.state == "waiting_for_tool"
        assert session.answer_nowait(approval.call_id, ok=True, value="me")
        assert (await session.wait()).value == "me"


async def test_nothing_is_asked_answered_or_started_before_its_record_is_durable() -> None:
    store = GatedStore()
    store.gate.set()
    async with shop(store=store) as (broker, ledger):
        session = await begun(broker, "await callTool('ping', {}); return await callTool('refund', {amount: 5})")
        (approval,) = await asked(broker)
        assert facts(session, ApprovalAsked)
        store.gate.clear()
        store.asked.clear()
        approving = asyncio.ensure_future(broker.approvals.approve(approval.id, by=BOSS))
        await within(store.asked.wait())
        await turns(50)
        assert facts(session, ApprovalDecided)
        assert not approving.done()
        assert ledger == []
        other = await begun(broker)
        await turns(50)
        assert await broker.approvals.list(session_id=other.id) == []  # its question isn't durable
        store.gate.set()
        await within(approving)
        assert ((await within(session.wait())).value, ledger) == (5, [5])
        assert len(await asked(broker)) == 1
        await other.cancel()


# -- return_when -------------------------------------------------------------------------------------------------------


@jumping
async def test_execute_comes_back_when_only_people_are_awaited_and_the_end_can_be_had_later() -> None:
    async with shop() as (broker, ledger):
        code = (
            "console.log('asking'); const work = callTool('work', {seconds: 3});"
            "const both = [1, 2].map((amount) => callTool('refund', {amount}));"
            "await work; return await Promise.all(both)"
        )
        result = await broker.execute(code, return_when="waiting", principal=ANN)
        assert (result.status, result.ok, result.value, result.error) == ("waiting", False, None, None)
        assert result.stdout == "asking\n"
        assert [approval.args["amount"] for approval in result.pending] == [1, 2]
        assert [call.outcome for call in result.calls] == ["done", "waiting", "waiting"]
        assert (result.stats.tool_call_count, result.stats.stdout_bytes) == (3, 7)
        await asyncio.sleep(500)  # neither its timeout nor the sessions' own ends it
        session = broker.sessions.get(result.session_id)
        assert session is not None
        await broker.approvals.approve(*[each.id for each in result.pending], by=BOSS)
        end = await session.wait()
        assert (end.status, end.value, sorted(ledger)) == ("completed", [1, 2], [1, 2])
        await asyncio.sleep(300)
        assert broker.sessions.get(result.session_id) is session  # it stays readable for a while
        await asyncio.sleep(400)
        assert broker.sessions.get(result.session_id) is None


@jumping
async def test_more_asks_than_places_wait_all_the_same_and_the_rest_asks_as_places_come_free() -> None:
    async with shop() as (broker, ledger):
        code = "return await Promise.all([...Array(17).keys()].map((amount) => callTool('refund', {amount})))"
        result = await broker.execute(code, return_when="waiting", timeout=1)
        assert (result.status, len(result.pending)) == ("waiting", 16)
        session = broker.sessions.get(result.session_id)
        assert session is not None
        await asyncio.sleep(500)
        await broker.approvals.approve(*[each.id for each in result.pending], by=BOSS)
        (last,) = await asked(broker)
        await asyncio.sleep(500)
        await broker.approvals.approve(last.id, by=BOSS)
        assert (await session.wait()).value == list(range(17))
        assert sorted(ledger) == list(range(17))


@jumping
async def test_a_run_that_ends_first_is_a_final_result_and_leaves_nothing() -> None:
    async with shop() as (broker, _):
        result = await broker.execute("return await callTool('ping', {})", return_when="waiting")
        assert (result.status, result.value, result.pending) == ("completed", "pong", [])
        assert broker.sessions.get(result.session_id) is None
        with pytest.raises(ConfigurationError):
            await broker.execute("return 1", return_when="later")  # type: ignore[arg-type]


@jumping
async def test_a_client_that_is_awaited_is_no_person() -> None:
    async with shop() as (broker, _):
        broker.client_tool("ask", args=dict[str, Any], timeout=5)
        code = "await Promise.allSettled([callTool('ask', {}), callTool('refund', {amount: 1})])"
        before = asyncio.get_running_loop().time()
        result = await broker.execute(code, return_when="waiting")
        assert asyncio.get_running_loop().time() - before > 4
        assert [call.error is not None for call in result.calls] == [True, False]
        assert result.calls[1].outcome == "waiting"
        session = broker.sessions.get(result.session_id)
        assert session is not None
        await session.cancel()


@jumping
async def test_a_waiting_run_is_not_drained_when_the_broker_ends() -> None:
    async with shop() as (broker, _):
        result = await broker.execute(REFUND, return_when="waiting")
        session = broker.sessions.get(result.session_id)
        assert session is not None
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 1
    assert session.state == "failed"
    assert await broker.approvals.list() == []


# -- many --------------------------------------------------------------------------------------------------------------


async def test_a_thousand_sessions_that_wait_all_finish_when_all_are_approved_at_once() -> None:
    count = 1000
    starts: list[int] = []
    async with Broker(access=AccessController(default_policy="allow", rules=[Rule("refund", allow="ask")])) as broker:

        @broker.tool("refund")
        async def refund(amount: int) -> int:
            starts.append(amount)
            return amount

        async def one(number: int) -> Any:
            return (await broker.execute(f"return await callTool('refund', {{amount: {number}}})")).value

        runs = [asyncio.ensure_future(one(number)) for number in range(count)]
        rows = await within(asked(broker, count), 50)
        assert starts == []
        await broker.approvals.approve(*[row.id for row in rows], by=ANONYMOUS)
        assert await within(asyncio.gather(*runs), 50) == list(range(count))
        assert sorted(starts) == list(range(count))


@jumping
async def test_limits_of_calls_at_once_hold_those_that_wait_for_people_too() -> None:
    async with shop(limits=SessionLimits(max_concurrent_calls=2)) as (broker, ledger):
        session = await begun(broker, "await Promise.all([1, 2, 3].map((amount) => callTool('refund', {amount})))")
        rows = await asked(broker, 2)
        await turns()
        assert len(await broker.approvals.list()) == 2
        await broker.approvals.approve(*[row.id for row in rows], by=BOSS)
        (last,) = await asked(broker)
        await broker.approvals.approve(last.id, by=BOSS)
        assert (await session.wait()).ok
        assert ledger == [1, 2, 3]
