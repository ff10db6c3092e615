"""History and state, read from the log: who asked, what decided, how far each call got and when."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from enclave_broker import (
    AccessController,
    AccessDeniedError,
    Broker,
    ConfigurationError,
    Principal,
    RateLimit,
    RateLimiter,
    Redact,
    Retry,
    Rule,
    SessionLimits,
    Timeout,
    ToolCall,
    ToolError,
)
from enclave_broker.broker.calls.middleware.redact import REDACTED
from enclave_broker.broker.calls.sensitive_names import SENSITIVE_NAMES, SENSITIVE_WORDS
from enclave_broker.broker.calls.shown_arguments import LARGE_BYTES
from enclave_broker.types.calls import Effect
from tests.broker.sessions.support import events_of, jumping, twin_broker, until

ANN = Principal("ann", tenant="acme")
CATCH = "const tried = (name, args) => callTool(name, args).catch((error) => error.code);\n"


def tools(broker: Broker) -> Broker:
    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> int:
        return id

    @broker.tool("orders:fail")
    async def fail() -> None:
        raise ToolError("no")

    async def any_of_them(name: str, args: dict[str, Any]) -> str:
        return name

    broker.router.register("db:*", any_of_them)
    return broker


async def test_each_call_says_who_asked_which_route_took_it_and_what_decided() -> None:
    rules = [Rule("orders:get", allow=True), Rule("db:drop", allow=False), Rule("db:*", allow=True)]
    async with twin_broker(access=AccessController(rules=rules)) as broker:
        names = "['db:read', 'db:drop', 'none', 'orders:fail']"
        code = CATCH + f"for (const name of {names}) await tried(name, {{}})"
        result = await tools(broker).execute(code, principal=ANN)
    read, drop, none, fail = result.calls
    assert {call.principal for call in result.calls} == {"ann"}
    assert [call.route for call in result.calls] == ["db:*", "db:*", None, "orders:fail"]
    assert [call.outcome for call in result.calls] == ["done", "denied", "denied", "denied"]
    assert [(call.rule or "").partition(" (")[0] for call in (read, drop)] == ["access: db:*", "access: db:drop"]
    assert (none.rule, fail.rule) == ("route", "access: the default policy")


async def test_a_limited_call_names_the_limit() -> None:
    async with twin_broker(rate_limiter=RateLimiter(per_principal=RateLimit(1, 60.0))) as broker:
        result = await tools(broker).execute(CATCH + "await tried('db:a', {}); await tried('db:b', {})")
    assert [call.rule for call in result.calls] == [None, "limit: per_principal"]


async def test_the_stages_of_a_call_have_their_times_in_order() -> None:
    tries = 0
    async with twin_broker(middleware=[Retry(3, budget=30.0)]) as broker:

        @broker.tool("flaky", effect="read")
        async def flaky() -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ConnectionError
            return tries

        result = await broker.execute("return callTool('flaky', {})")
    (call,) = result.calls
    assert [stage.name for stage in call.stages] == ["requested", "placed", "started", "started", "settled"]
    times = [stage.at for stage in call.stages]
    assert times == sorted(times)
    assert call.started == times[2]
    assert call.duration == times[-1] - times[0]


async def test_a_call_of_the_host_has_its_principal_though_nothing_was_executed() -> None:
    async with twin_broker() as broker, await tools(broker).create_session(principal=ANN) as session:
        await broker.execute_tool_call(session.id, {"name": "orders:get", "args": {"id": 1}})
        (call,) = session.history()
        assert (call.principal, call.route, call.by_host) == ("ann", "orders:get", True)
        assert [stage.name for stage in call.stages] == ["requested", "started", "settled"]


# -- arguments -------------------------------------------------------------------------------------------------------


async def test_what_stands_under_a_sensitive_name_is_not_shown() -> None:
    async with twin_broker() as broker:
        code = "await callTool('db:log', {user: 'ann', Password: 'p', deep: [{api_key: {a: 1}}], note: '\"token\": x'})"
        (call,) = (await tools(broker).execute(code)).calls
    assert call.args == {
        "user": "ann",
        "Password": REDACTED,
        "deep": [{"api_key": REDACTED}],
        "note": '"token": x',
    }


@pytest.mark.parametrize("name", SENSITIVE_NAMES + SENSITIVE_WORDS)
async def test_every_sensitive_name_is_found(name: str) -> None:
    async with twin_broker() as broker, await tools(broker).create_session() as session:
        await broker.execute_tool_call(session.id, {"name": "db:x", "args": {name.upper(): "value"}})
        assert session.history()[0].args == {name.upper(): REDACTED}


async def test_a_redact_of_the_broker_or_of_the_route_hides_arguments_too() -> None:
    async with twin_broker(middleware=[Redact(patterns=[r"\d{16}"])]) as broker:

        @broker.tool("pay", effect="read", middleware=[Redact(keys=["iban"])])
        async def pay(card: str, iban: str) -> str:
            return f"{card} {iban}"  # the handler gets them whole

        result = await broker.execute("return callTool('pay', {card: 'no 4000123412341234.', iban: 'DE02'})")
    assert result.value == f"no {REDACTED}. DE02"
    assert result.calls[0].args == {"card": f"no {REDACTED}.", "iban": REDACTED}


async def test_large_arguments_that_may_hold_something_are_hidden_whole() -> None:
    async with twin_broker() as broker:
        code = (
            f"const a = 'x'.repeat({LARGE_BYTES}); await callTool('db:x', {{a}}); await callTool('db:x', {{a, pin: 1}})"
        )
        large, hidden = (await tools(broker).execute(code)).calls
    assert large.args == {"a": "x" * LARGE_BYTES}
    assert list(hidden.args) == [REDACTED]


async def test_the_log_keeps_the_arguments_and_the_handler_gets_them() -> None:
    seen: list[str] = []
    async with twin_broker() as broker:

        @broker.tool("login")
        async def login(password: str) -> None:
            seen.append(password)

        await broker.execute("await callTool('login', {password: 'p'})")
    assert seen == ["p"]


# -- a failed script -------------------------------------------------------------------------------------------------


async def test_the_result_of_a_failed_script_lists_which_calls_took_effect() -> None:
    async with twin_broker() as broker:
        code = CATCH + "await callTool('db:write', {}); await tried('orders:fail', {}); await tried('none', {}); null.x"
        result = await tools(broker).execute(code)
    assert not result.ok
    assert [(call.name, call.outcome) for call in result.calls] == [
        ("db:write", "done"),
        ("orders:fail", "failed"),
        ("none", "denied"),
    ]


# -- how a call ended ------------------------------------------------------------------------------------------------


async def test_a_refusal_after_the_handler_was_started_is_a_failure() -> None:
    async def too_late(call: ToolCall, call_next: Any) -> Any:
        await call_next(call)
        raise AccessDeniedError("not you")

    async def at_once(call: ToolCall, call_next: Any) -> Any:
        raise AccessDeniedError("not you")

    async with twin_broker() as broker:
        for name, middleware in {"late": too_late, "early": at_once}.items():
            broker.tool(name, effect="read", middleware=[middleware])(said)
        calls = (await broker.execute(CATCH + "await tried('late', {}); await tried('early', {})")).calls
    assert [(call.name, call.outcome, call.error and call.error.code) for call in calls] == [
        ("late", "failed", "ACCESS_DENIED"),
        ("early", "denied", "ACCESS_DENIED"),
    ]


async def said() -> str:
    return "done"


@jumping
@pytest.mark.parametrize(("effect", "outcome"), [("read", "failed"), ("idempotent", "unknown"), ("write", "unknown")])
@pytest.mark.parametrize("middleware", [[], [Timeout(1.0)]], ids=["tool_timeout", "Timeout"])
async def test_nobody_knows_what_a_call_without_time_did_unless_it_only_reads(
    effect: Effect, outcome: str, middleware: list[Any]
) -> None:
    async with twin_broker(limits=SessionLimits(tool_timeout=2)) as broker:

        @broker.tool("hang", effect=effect, middleware=middleware)
        async def hang() -> None:
            await asyncio.get_running_loop().create_future()

        (call,) = (await broker.execute(CATCH + "await tried('hang', {})")).calls
    assert (call.outcome, call.error and call.error.code) == (outcome, "TOOL_TIMEOUT")


# -- state_at --------------------------------------------------------------------------------------------------------


async def test_state_at_tells_what_the_session_was_after_each_event() -> None:
    async with twin_broker() as broker, await tools(broker).create_session(principal=ANN) as session:
        await session.execute("console.log('a'); await callTool('orders:get', {id: 1}); console.log('b'); return 7")
        events = events_of(session)
        states = [await session.state_at(event.seq) for event in events]
        assert [
            (event.type, state.state, state.stdout, len(state.calls))
            for event, state in zip(events, states, strict=True)
        ] == [
            ("session_init", "running", "", 0),
            ("stdout", "running", "a\n", 0),
            ("tool_call", "running", "a\n", 1),
            ("tool_progress", "waiting_for_tool", "a\n", 1),
            ("tool_progress", "waiting_for_tool", "a\n", 1),
            ("tool_result_applied", "running", "a\n", 1),
            ("stdout", "running", "a\nb\n", 1),
            ("final", "completed", "a\nb\n", 1),
        ]
        outcomes = [state.calls[0].outcome for state in states if state.calls]
        assert outcomes == ["waiting", "waiting", "waiting", "done", "done", "done"]
        assert [state.result is not None for state in states] == [False] * 7 + [True]
        assert states[-1].result == await session.wait()
        assert all(isinstance(state.at, datetime) and state.at.tzinfo is not None for state in states)


async def test_state_at_of_a_later_execution_tells_its_own_output_and_all_calls() -> None:
    async with twin_broker() as broker, await tools(broker).create_session() as session:
        await session.execute("console.log('one'); await callTool('orders:get', {id: 1})")
        await session.execute("console.log('two'); null.x")
        last = await session.state_at(events_of(session)[-1].seq)
        assert (last.state, last.stdout, len(last.calls)) == ("failed", "two\n", 1)
        first = next(event.seq for event in events_of(session) if event.type == "final")
        assert (await session.state_at(first)).state == "completed"
        assert (await session.state_at(first + 1)).state == "running"


async def test_state_at_of_a_session_that_only_its_host_used() -> None:
    async with twin_broker() as broker, await tools(broker).create_session() as session:
        await broker.execute_tool_call(session.id, {"name": "orders:get", "args": {"id": 1}})
        last = await session.state_at(events_of(session)[-1].seq)
        assert (last.state, last.result, last.calls[0].outcome) == ("starting", None, "done")


async def test_the_result_of_an_execution_has_no_calls_that_came_after_its_end() -> None:
    async with twin_broker() as broker, await tools(broker).create_session() as session:
        result = await session.execute("await callTool('orders:get', {id: 1}); return 7")
        await broker.execute_tool_call(session.id, {"name": "orders:get", "args": {"id": 2}})
        last = await session.state_at(events_of(session)[-1].seq)
        assert (len(last.calls), last.result) == (2, result)
        assert await session.wait() == result


async def test_state_at_the_end_of_a_closed_session_agrees_with_its_history() -> None:
    async with twin_broker() as broker:

        @broker.tool("hang")
        async def hang() -> None:
            await asyncio.get_running_loop().create_future()

        async with await broker.create_session() as session:
            call = asyncio.ensure_future(broker.execute_tool_call(session.id, {"name": "hang", "args": {}}))
            await until(lambda: any(each.started for each in session.history()))
        await asyncio.wait({call})
        last = events_of(session)[-1].seq
        assert [each.outcome for each in session.history()] == ["unknown"]
        assert (await session.state_at(last)).calls == session.history()
        assert [each.outcome for each in (await session.state_at(last - 1)).calls] == ["waiting"]
        assert call.exception() is not None


@pytest.mark.parametrize("seq", [0, -1, 99, True, 1.0, "1"])
async def test_state_at_refuses_what_is_no_event_of_the_session(seq: Any) -> None:
    async with twin_broker() as broker, await broker.create_session() as session:
        with pytest.raises(ConfigurationError, match="no events yet"):
            await session.state_at(1)
        await session.execute("return 1")
        with pytest.raises(ConfigurationError, match="has the events 1 to 2"):
            await session.state_at(seq)


async def test_history_survives_a_call_that_began_before_the_execution_it_ends_in() -> None:
    go = asyncio.Event()
    async with twin_broker() as broker:

        @broker.tool("slow")
        async def slow() -> int:
            await go.wait()
            return 1

        @broker.tool("let_go")
        async def let_go() -> None:
            go.set()
            await asyncio.sleep(0)

        async with await broker.create_session() as session:
            call = asyncio.ensure_future(broker.execute_tool_call(session.id, {"name": "slow", "args": {}}))
            await asyncio.sleep(0)
            result = await session.execute("await callTool('let_go', {})")
            assert await call == 1
            assert [each.name for each in result.calls] == ["let_go"]
            assert [(each.name, each.outcome) for each in session.history()] == [("slow", "done"), ("let_go", "done")]


async def test_history_says_who_has_decided() -> None:
    async with twin_broker(access=AccessController(rules=[Rule("orders:get", allow="ask")])) as broker:
        waiting = await tools(broker).execute(
            "return callTool('orders:get', {id: 1})", principal=ANN, return_when="waiting"
        )
        assert waiting.calls[0].decided_by is None
        await broker.approvals.approve(waiting.pending[0].id, by=Principal("bea", tenant="acme"))
        session = broker.sessions.get(waiting.session_id)
        assert session is not None
        (call,) = (await session.wait()).calls
        assert (call.outcome, call.principal, call.decided_by) == ("done", "ann", "bea")
        assert [stage.name for stage in call.stages] == [
            "requested",
            "placed",
            "asked",
            "decided",
            "started",
            "settled",
        ]
