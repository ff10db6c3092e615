"""What a middleware may do with a call: one attempt at a time, arguments judged anew, a `write` started once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enclave_broker import (
    AccessController,
    Broker,
    Cache,
    CallNext,
    MemoryStore,
    RateLimitError,
    Rule,
    ToolCall,
    ToolError,
    ToolRouter,
)
from enclave_broker.broker.store.records import HandlerStarted
from tests.broker.sessions.support import twin_broker

RULES = [Rule("grant", allow=False, when={"role": "admin"}, reason="no admins"), Rule("*", allow=True)]
STORES: list[Callable[[], Any]] = [lambda: "memory", MemoryStore]


@asynccontextmanager
async def granting(*middleware: Any, **options: Any) -> AsyncGenerator[tuple[Broker, list[tuple[str, str]]]]:
    granted: list[tuple[str, str]] = []
    async with twin_broker(middleware=middleware, access=AccessController(rules=RULES), **options) as broker:

        @broker.tool("grant")
        async def grant(user: str, role: str = "guest") -> str:
            granted.append((user, role))
            return role

        @broker.tool("read", effect="read")
        async def read(user: str, role: str = "guest") -> str:
            granted.append((user, role))
            await asyncio.sleep(0)
            return role

        yield broker, granted


async def call(broker: Broker, name: str = "grant") -> tuple[Any, Any]:
    """What the script got, and the call's record."""
    script = f"return callTool('{name}', {{user: 'bob'}}).then((v) => v, (e) => e.code + ': ' + e.message)"
    result = await broker.execute(script)
    assert result.ok, result.error
    return result.value, result.calls[0]


async def test_arguments_that_were_refused_are_refused_again() -> None:
    async def insist(call: ToolCall, call_next: CallNext) -> Any:
        changed = call.replace(args={**call.args, "role": "admin"})
        try:
            return await call_next(changed)
        except ToolError:
            return await call_next(changed)

    async with granting(insist) as (broker, granted):
        value, record = await call(broker)
        assert value.startswith("ACCESS_DENIED")
        assert granted == []
        assert (record.outcome, record.rule.partition(" (")[0]) == ("denied", "access: grant")


async def test_a_refused_change_leaves_the_call_as_it_was() -> None:
    async def try_more(call: ToolCall, call_next: CallNext) -> Any:
        for wrong in ({"user": "bob", "role": "admin"}, {"user": 5}, {"user": "bob", "x": 1}):
            with pytest.raises(ToolError):
                await call_next(call.replace(args=wrong))
        return await call_next(call)

    async with granting(try_more) as (broker, granted), await broker.create_session() as session:
        await session.execute("return callTool('grant', {user: 'bob'})")
        assert granted == [("bob", "guest")]
        [started] = [r.fact for r in session.log.records if isinstance(r.fact, HandlerStarted)]
        assert started.args_hash == hashlib.sha256(b'{"user":"bob"}').hexdigest()
        assert (session.history()[0].outcome, session.history()[0].rule or "")[1].startswith("access: * (")


async def test_arguments_that_are_changed_in_place_are_judged_anew() -> None:
    async def promote(call: ToolCall, call_next: CallNext) -> Any:
        call.args["role"] = "admin"
        return await call_next(call)

    async def clamp(call: ToolCall, call_next: CallNext) -> Any:
        call.args["role"] = "clerk"
        return await call_next(call)

    async with granting(promote) as (broker, granted):
        assert (await call(broker))[0].startswith("ACCESS_DENIED")
        assert granted == []
    async with granting(clamp, Cache(60.0)) as (broker, granted):
        assert (await call(broker))[0] == "clerk"
        assert (await call(broker, "read"))[0] == "clerk"
        assert granted == [("bob", "clerk")] * 2


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", ["grant", "read"])
async def test_two_attempts_at_once_are_one(store: Callable[[], Any], name: str) -> None:
    async def hedge(call: ToolCall, call_next: CallNext) -> Any:
        first, second = await asyncio.gather(call_next(call), call_next(call), return_exceptions=True)
        assert isinstance(second, ToolError)
        return first

    async with granting(hedge, store=store()) as (broker, granted):
        assert (await call(broker, name))[0] == "guest"
        assert granted == [("bob", "guest")]


@pytest.mark.parametrize("store", STORES)
async def test_of_two_attempts_at_once_none_runs_with_the_arguments_of_the_other(store: Callable[[], Any]) -> None:
    async def hedge(call: ToolCall, call_next: CallNext) -> Any:
        asked = [call_next(call.replace(args={"user": "bob", "role": role})) for role in ("clerk", "admin")]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return next(answer for answer in answers if isinstance(answer, str))

    async with granting(hedge, store=store()) as (broker, granted):
        assert (await call(broker))[0] == "clerk"
        assert granted == [("bob", "clerk")]


async def test_a_read_may_be_attempted_again_when_an_attempt_has_ended() -> None:
    async def twice(call: ToolCall, call_next: CallNext) -> Any:
        await call_next(call)
        return await call_next(call.replace(args={"user": "eve"}))

    async with granting(twice) as (broker, granted):
        assert (await call(broker, "read"))[0] == "guest"
        assert granted == [("bob", "guest"), ("eve", "guest")]


async def test_a_refusal_that_a_middleware_swallows_is_not_the_rule_that_decided() -> None:
    async def swallow(call: ToolCall, call_next: CallNext) -> Any:
        try:
            return await call_next(call.replace(args={"user": "bob", "role": "admin"}))
        except ToolError:
            return "instead"

    async with granting(swallow) as (broker, granted):
        value, record = await call(broker)
        assert (value, granted, record.outcome) == ("instead", [], "done")
        assert record.rule.startswith("access: * (")


@pytest.mark.parametrize("code", ["a\ud800", "", 5, None, b"x", "x" * 1000, "a\nb"])
async def test_a_code_of_a_middleware_that_is_none_settles_the_call_all_the_same(code: Any) -> None:
    async def fail(call: ToolCall, call_next: CallNext) -> Any:
        raise ToolError("odd", code=code)

    async with granting(fail) as (broker, _):
        assert (await call(broker))[0] == "EXECUTION_ERROR: odd"


async def test_a_limit_that_a_middleware_meets_says_when_to_try_again() -> None:
    async def limit(call: ToolCall, call_next: CallNext) -> Any:
        raise RateLimitError("slow down", retry_after=3)

    async with granting(limit) as (broker, _), await broker.create_session() as session:
        with pytest.raises(RateLimitError) as caught:
            await broker.execute_tool_call(session.id, {"name": "read", "args": {"user": "bob"}})
        assert caught.value.retry_after == 3
        assert caught.value.details == [{"type": "retry_info", "retryDelayMs": 3000}]


async def test_a_router_alone_validates_what_was_changed_in_place() -> None:
    async def spoil(call: ToolCall, call_next: CallNext) -> Any:
        call.args["id"] = "one"
        return await call_next(call)

    router = ToolRouter()

    @router.tool("get", middleware=[spoil])
    async def get(id: int) -> int:
        return id

    with pytest.raises(ToolError, match="id"):
        await router.execute("get", {"id": 1})
