"""Rules, limits and middleware in a broker: every call of a script passes them, and history says which one decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enclave_broker import (
    AccessController,
    AccessDeniedError,
    Broker,
    Cache,
    CallNext,
    CatalogChangedEvent,
    ConfigurationError,
    Principal,
    RateLimit,
    RateLimiter,
    RateLimitError,
    Retry,
    Rule,
    SessionLimits,
    ToolCall,
    ToolError,
    ToolRouter,
    ToolValidationError,
    UnknownToolError,
)
from enclave_broker.broker.store.records import HandlerStarted
from tests.broker.sessions.support import events_of, turns, twin_broker, until

CODE_OF = "(async (name, args) => callTool(name, args).then((value) => value, (error) => error.code))"


@asynccontextmanager
async def shop(**options: Any) -> AsyncGenerator[tuple[Broker, list[Any]]]:
    """A broker with a few tools that keep a ledger of their starts."""
    ledger: list[Any] = []
    async with twin_broker(**options) as broker:

        @broker.tool("orders:get", effect="read")
        async def get(id: int) -> dict[str, int]:
            ledger.append(("get", id))
            return {"id": id}

        @broker.tool("refunds:create")
        async def refund(amount: float) -> float:
            ledger.append(("refund", amount))
            return amount

        yield broker, ledger


async def outcome(broker: Broker, name: str, args: str = "{}", **options: Any) -> Any:
    result = await broker.execute(f"return await {CODE_OF}({name!r}, {args})", **options)
    assert result.error is None
    return result.value


# -- access ----------------------------------------------------------------------------------------------------------

RULES = AccessController(
    rules=[
        Rule("refunds:create", allow=True, when={"amount": {"le": 100}}),
        Rule("orders:*", allow=True, unless={"suspended": True}),
        Rule("refunds:*", allow=False, unless={"role": "boss"}),
    ]
)


async def test_rules_judge_the_name_and_the_validated_arguments() -> None:
    async with shop(access=RULES) as (broker, ledger):
        assert await outcome(broker, "refunds:create", "{ amount: 50 }") == 50
        assert await outcome(broker, "refunds:create", "{ amount: 500 }") == "ACCESS_DENIED"
        assert await outcome(broker, "refunds:create", "{ amount: 'many' }") == "VALIDATION_ERROR"
        boss = Principal("ann", roles=frozenset({"boss"}))
        assert await outcome(broker, "refunds:create", "{ amount: 500 }", principal=boss) == 500
        assert ledger == [("refund", 50), ("refund", 500)]


async def test_a_tool_that_is_denied_by_name_shows_nothing_of_its_schema_nor_itself_among_the_nearest() -> None:
    deny = AccessController(rules=[Rule("orders:get", allow=True)])
    async with shop(access=deny) as (broker, ledger):
        assert await outcome(broker, "refunds:create", "{ nonsense: 1 }") == "ACCESS_DENIED"
        result = await broker.execute("await callTool('refunds:creat', {})")
        assert result.error is not None
        assert result.error.code == "UNKNOWN_TOOL"
        assert "refunds:create" not in result.error.message
        assert ledger == []


async def test_the_facts_are_claims_under_the_hosts_context_and_never_metadata() -> None:
    asked: list[str] = []

    async def facts(principal: Principal) -> Mapping[str, Any]:
        asked.append(principal.subject)
        await asyncio.sleep(0)
        return {"level": 2}

    rules = AccessController(rules=[Rule("orders:get", allow=False, unless={"level": 2, "plan": "paid"})])
    async with shop(access=rules, context=facts) as (broker, _):
        known = Principal("ann", claims={"plan": "paid", "level": 1})
        assert await outcome(broker, "orders:get", "{ id: 1 }", principal=known) == {"id": 1}
        assert asked == ["ann"]
        assert await outcome(broker, "orders:get", "{ id: 1 }", metadata={"plan": "paid"}) == "ACCESS_DENIED"
        assert await outcome(broker, "orders:get", "{ id: 1 }", context={"plan": "paid"}) == {"id": 1}


async def test_facts_that_cannot_be_had_let_nothing_through() -> None:
    def facts(principal: Principal) -> Mapping[str, Any]:
        raise RuntimeError("the directory is away")

    async with shop(access=AccessController(default_policy="allow"), context=facts) as (broker, ledger):
        assert await outcome(broker, "orders:get", "{ id: 1 }") == "EXECUTION_ERROR"
        assert ledger == []


async def test_history_names_the_rule_that_has_decided_and_where_it_stands() -> None:
    async with shop(access=RULES) as (broker, _):
        session = await broker.create_session()
        await session.execute(
            "await callTool('refunds:create', { amount: 500 }).catch(() => 0); await tools.orders.get({ id: 1 })"
        )
        denied, done = session.history()
        assert denied.outcome == "denied"
        assert denied.rule is not None
        assert denied.rule.startswith("access: refunds:* (")
        assert "test_governed.py:" in denied.rule
        assert done.rule is not None
        assert done.rule.startswith("access: orders:* (")


async def test_a_tool_that_requires_auth_refuses_whoever_is_not_known() -> None:
    async with twin_broker() as broker:

        @broker.tool("mine", effect="read", requires_auth=True)
        async def mine() -> str:
            return "yours"

        assert await outcome(broker, "mine") == "ACCESS_DENIED"
        assert await outcome(broker, "mine", principal=Principal("ann")) == "yours"


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_limits_of_the_broker_and_of_a_tool_are_charged_once_a_call() -> None:
    limiter = RateLimiter(per_session=RateLimit(3, 60.0), per_tool={"refunds:*": RateLimit(1, 60.0)})
    async with shop(rate_limiter=limiter) as (broker, ledger):
        code = f"""
        const ask = {CODE_OF};
        const all = [];
        for (const amount of [1, 2]) all.push(await ask("refunds:create", {{ amount }}));
        for (const id of [1, 2, 3]) all.push(await ask("orders:get", {{ id }}));
        return all;
        """
        result = await broker.execute(code)
        assert result.value == [1, "RATE_LIMITED", {"id": 1}, {"id": 2}, "RATE_LIMITED"]
        assert len(ledger) == 3
        assert [call.rule for call in result.calls if call.outcome == "denied"] == [
            "limit: per_tool refunds:*",
            "limit: per_session",
        ]


async def test_a_refusal_says_when_to_try_again_and_what_is_used() -> None:
    async with shop(rate_limiter=RateLimiter(global_=RateLimit(1, 60.0))) as (broker, _):
        code = """
        await tools.orders.get({ id: 1 });
        try { await tools.orders.get({ id: 2 }) } catch ({ message, details }) { return { message, details } }
        """
        value = (await broker.execute(code)).value
        assert "try again in" in value["message"]
        assert {"type": "quota_info", "limit": 1, "used": 1} in value["details"]


async def test_invalid_and_denied_calls_cost_nothing() -> None:
    limiter = RateLimiter(global_=RateLimit(1, 60.0))
    async with shop(rate_limiter=limiter, access=RULES) as (broker, _):
        assert await outcome(broker, "orders:get", "{ id: 'x' }") == "VALIDATION_ERROR"
        assert await outcome(broker, "refunds:create", "{ amount: 900 }") == "ACCESS_DENIED"
        assert await outcome(broker, "orders:get", "{ id: 1 }") == {"id": 1}


# -- middleware ------------------------------------------------------------------------------------------------------


async def test_middleware_runs_outer_to_inner_the_tools_own_inside() -> None:
    seen: list[str] = []

    def named(name: str) -> Any:
        async def mw(call: ToolCall, call_next: CallNext) -> Any:
            seen.append(name)
            return {name: await call_next(call)}

        return mw

    async with twin_broker(middleware=[named("a"), named("b")]) as broker:

        @broker.tool("one", effect="read", middleware=[named("c")])
        async def one() -> int:
            return 1

        assert await outcome(broker, "one") == {"a": {"b": {"c": 1}}}
        assert seen == ["a", "b", "c"]


async def test_arguments_that_a_middleware_changes_are_validated_and_judged_again() -> None:
    async def more(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(call.replace(args={**call.args, "amount": call.args["amount"] * 10}))

    async def broken(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(call.replace(args={"amount": "x"}))

    async with shop(access=RULES, middleware=[more]) as (broker, ledger):
        assert await outcome(broker, "refunds:create", "{ amount: 5 }") == 50
        assert await outcome(broker, "refunds:create", "{ amount: 50 }") == "ACCESS_DENIED"
        assert ledger == [("refund", 50)]
    async with shop(middleware=[broken]) as (broker, ledger):
        assert await outcome(broker, "refunds:create", "{ amount: 5 }") == "VALIDATION_ERROR"
        assert ledger == []


async def test_a_write_starts_once_however_often_a_middleware_calls_on() -> None:
    async def twice(call: ToolCall, call_next: CallNext) -> Any:
        return [await call_next(call), await call_next(call)]

    async with shop(middleware=[twice]) as (broker, ledger):
        assert await outcome(broker, "refunds:create", "{ amount: 5 }") == "EXECUTION_ERROR"
        assert await outcome(broker, "orders:get", "{ id: 1 }") == [{"id": 1}, {"id": 1}]
        assert ledger == [("refund", 5), ("get", 1), ("get", 1)]


async def test_a_retry_is_a_start_of_its_own_in_the_history_of_one_call() -> None:
    failures = iter([True, True, False])

    async with twin_broker(middleware=[Retry(attempts=3, budget=5.0)]) as broker:

        @broker.tool("flaky", effect="read")
        async def flaky() -> str:
            if next(failures):
                raise OSError("the network")
            return "at last"

        result = await broker.execute("return await tools.flaky({})")
        assert result.value == "at last"
        assert len(result.calls) == 1


async def test_a_time_out_of_an_attempt_may_be_tried_again_within_the_calls_deadline() -> None:
    begun: list[int] = []
    limits = SessionLimits(tool_timeout=0.05, per_tool_deadline=5.0)
    async with twin_broker(middleware=[Retry(attempts=2, budget=5.0)], limits=limits) as broker:

        @broker.tool("slow", effect="read")
        async def slow() -> str:
            begun.append(1)
            if len(begun) == 1:
                await asyncio.sleep(60)
            return "second"

        assert await outcome(broker, "slow") == "second"


async def test_a_cached_answer_starts_nothing() -> None:
    async with shop(middleware=[Cache(60.0)]) as (broker, ledger):
        for _ in range(2):
            assert await outcome(broker, "orders:get", "{ id: 1 }") == {"id": 1}
        assert ledger == [("get", 1)]


async def test_what_a_middleware_returns_is_bounded_like_any_result() -> None:
    async def huge(call: ToolCall, call_next: CallNext) -> Any:
        return "x" * 1000

    async with shop(middleware=[huge], limits=SessionLimits(max_tool_result_bytes=100)) as (broker, _):
        assert await outcome(broker, "orders:get", "{ id: 1 }") == "TOOL_RESULT_TOO_LARGE"


async def test_what_a_middleware_raises_on_purpose_reaches_the_script_and_all_else_is_an_error_id() -> None:
    async def picky(call: ToolCall, call_next: CallNext) -> Any:
        if call.args["id"] == 1:
            raise ToolError("not that one", code="NOT_THAT_ONE")
        raise RuntimeError("a secret of the host")

    async with shop(middleware=[picky]) as (broker, _):
        assert await outcome(broker, "orders:get", "{ id: 1 }") == "NOT_THAT_ONE"
        result = await broker.execute("await tools.orders.get({ id: 2 })")
        assert result.error is not None
        assert "secret" not in result.error.message
        assert "error id" in result.error.message


async def test_a_call_whose_time_is_over_is_not_started_by_a_middleware_that_goes_on() -> None:
    went_on = asyncio.Event()

    async def stubborn(call: ToolCall, call_next: CallNext) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            went_on.set()
        return await call_next(call)

    async with shop(middleware=[stubborn], limits=SessionLimits(per_tool_deadline=0.05)) as (broker, ledger):
        session = await broker.create_session()
        session.begin(f"return await {CODE_OF}('orders:get', {{ id: 1 }})")
        assert (await session.wait()).value == "TOOL_TIMEOUT"
        await asyncio.wait_for(went_on.wait(), 5)
        await turns()
        assert ledger == []
        assert not any(isinstance(record.fact, HandlerStarted) for record in session.log.records)


async def test_the_session_ends_while_a_middleware_waits() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def waits(call: ToolCall, call_next: CallNext) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with shop(middleware=[waits]) as (broker, _):
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("await tools.orders.get({ id: 1 })"))
        await asyncio.wait_for(begun.wait(), 5)
        await session.cancel("enough")
        assert (await running).error is not None
        await asyncio.wait_for(cancelled.wait(), 5)


# -- routes ----------------------------------------------------------------------------------------------------------


async def test_a_routers_patterns_are_tools_and_may_come_and_go() -> None:
    router = ToolRouter()
    async with twin_broker(router=router) as broker:
        assert await outcome(broker, "db:count") == "UNKNOWN_TOOL"

        async def db(name: str, args: dict[str, Any]) -> str:
            return name

        router.register("db:*", db, effect="read", rate_limit=RateLimit(2, 60.0))
        assert [await outcome(broker, f"db:{n}") for n in ("count", "sum", "more")] == [
            "db:count",
            "db:sum",
            "RATE_LIMITED",
        ]
        assert router.remove("db:*")
        assert await outcome(broker, "db:count") == "UNKNOWN_TOOL"


async def test_who_watches_a_run_hears_of_tools_that_come_and_go_as_far_as_the_session_may_call_them() -> None:
    async with twin_broker() as broker:
        go = asyncio.Event()

        @broker.tool("wait", effect="read")
        async def wait() -> None:
            await go.wait()

        session = await broker.create_session(allowed_tools=["wait", "db:*"])
        running = asyncio.ensure_future(session.execute("await tools.wait({})"))
        await until(lambda: session.calls.running)
        before = broker.catalog_version

        @broker.tool("db:new", effect="read")
        async def new() -> int:
            return 1

        @broker.tool("others", effect="read")
        async def others() -> int:
            return 1

        broker.router.remove("db:new")
        await until(lambda: sum(event.type == "catalog_changed" for event in events_of(session)) == 2)
        go.set()
        assert (await running).ok
        came, went = [event for event in events_of(session) if isinstance(event, CatalogChangedEvent)]
        assert (came.added_actions, came.removed_actions) == (["db:new"], [])
        assert (went.added_actions, went.removed_actions) == ([], ["db:new"])
        assert broker.catalog_version != before
        assert events_of(session)[-1].type == "final"


def test_wrong_parts_are_refused_where_they_are_given() -> None:
    wrong: list[dict[str, Any]] = [
        {"access": "deny"},
        {"rate_limiter": 5},
        {"middleware": [5]},
        {"router": {}},
        {"context": {}},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError):
            Broker(**options)


# -- what the host gets ----------------------------------------------------------------------------------------------


async def test_the_host_gets_the_class_of_error_that_a_call_has_failed_with() -> None:
    limiter = RateLimiter(per_tool={"refunds:*": RateLimit(1, 60.0)})
    rules = [Rule("secret", allow=False), Rule("*", allow=True)]
    async with shop(rate_limiter=limiter, access=AccessController(rules=rules)) as (broker, _):

        @broker.tool("secret")
        async def secret() -> None: ...

        async with await broker.create_session(allowed_tools=["*"]) as session:

            async def call(name: str, **args: Any) -> Any:
                return await broker.execute_tool_call(session.id, {"name": name, "args": args})

            await call("refunds:create", amount=1.0)
            with pytest.raises(RateLimitError) as limited:
                await call("refunds:create", amount=1.0)
            assert 0 < limited.value.retry_after <= 60
            with pytest.raises(UnknownToolError):
                await call("nothing")
            with pytest.raises(AccessDeniedError):
                await call("secret")
            with pytest.raises(ToolValidationError) as invalid:
                await call("orders:get", id="one")
            assert [error.field for error in invalid.value.errors] == ["id"]


async def test_a_handler_that_is_limited_itself_tells_when_to_try_again_under_no_code_of_the_brokers() -> None:
    async with twin_broker() as broker:

        @broker.tool("upstream")
        async def upstream() -> None:
            raise RateLimitError("their limit", retry_after=1.5)

        code = "return callTool('upstream', {}).catch(({ code, message, details }) => [code, message, details])"
        assert (await broker.execute(code)).value == [
            "EXECUTION_ERROR",
            "their limit",
            [{"type": "retry_info", "retryDelayMs": 1500}],
        ]


async def test_a_limit_that_a_handler_meets_is_retried_not_before_its_time() -> None:
    async with twin_broker(middleware=[Retry(2, chance=lambda: 0.0)]) as broker:
        tried: list[float] = []

        @broker.tool("upstream", effect="read")
        async def upstream() -> int:
            tried.append(asyncio.get_running_loop().time())
            if len(tried) == 1:
                raise RateLimitError("their limit", retry_after=0.05)
            return len(tried)

        assert (await broker.execute("return callTool('upstream', {})")).value == 2
        assert tried[1] - tried[0] >= 0.05


async def test_a_cached_tool_that_asks_itself_the_same_question_does_not_wait_for_itself() -> None:
    async with twin_broker(middleware=[Cache(60.0)]) as broker:
        asked: list[int] = []

        @broker.tool("echo", effect="read")
        async def echo(id: int) -> int:
            asked.append(id)
            if len(asked) < 3:
                return await broker.execute_tool_call(session.id, {"name": "echo", "args": {"id": id}}) + 1
            return 0

        async with await broker.create_session() as session:
            assert await broker.execute_tool_call(session.id, {"name": "echo", "args": {"id": 1}}) == 2
            assert asked == [1, 1, 1]
            assert await broker.execute_tool_call(session.id, {"name": "echo", "args": {"id": 1}}) == 2
            assert asked == [1, 1, 1]
