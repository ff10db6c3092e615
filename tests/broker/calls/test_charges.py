"""What calls are charged in a broker: by the arguments that handlers get, once, and nothing for what never ran."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from enclave_broker import Broker, RateLimit, RateLimiter, RateLimitError, SessionLimits, ToolCall, ToolError
from enclave_broker.broker.store import committer
from enclave_broker.runtime.memory import MemoryRuntime
from tests.broker.sessions.support import twin_broker, until, within
from tests.broker.store.test_commit import GatedStore


async def test_a_call_id_of_a_session_that_is_gone_is_charged_anew_in_the_next_of_that_id() -> None:
    ran: list[str] = []

    async def a() -> None:
        ran.append("a")

    async def b() -> None:
        ran.append("b")

    limiter = RateLimiter(global_=RateLimit(1, 3600))
    async with twin_broker(tools={"a": a, "b": b}, rate_limiter=limiter) as broker:
        for tool in ("a", "b", "a", "b"):
            session = await broker.create_session(session_id="s_aaaa1")
            call: dict[str, Any] = {"id": "c_1", "name": tool, "args": {}}
            if ran:
                with pytest.raises(RateLimitError):
                    await broker.execute_tool_call(session.id, call)
            else:
                await broker.execute_tool_call(session.id, call)
                await broker.execute_tool_call(session.id, call)  # the same call: asked for again, charged once
            await broker.sessions.destroy(session.id)
    assert ran == ["a"]


@pytest.mark.parametrize("where", ["global_", "per_tool", "route"])
async def test_a_cost_function_sees_the_arguments_that_the_handler_gets(where: str) -> None:
    sent: list[int] = []
    limit = RateLimit(10, 60, cost=lambda call: call.args.get("count", 1))
    options: dict[str, Any] = {"global_": limit} if where == "global_" else {}
    options |= {"per_tool": {"se*": limit}} if where == "per_tool" else {}
    async with twin_broker(rate_limiter=RateLimiter(**options)) as broker:

        @broker.tool("send", rate_limit=limit if where == "route" else None)
        async def send(count: int = 500) -> None:
            sent.append(count)

        code = "return await callTool('send', ARGS).catch((e) => e.code)"
        assert (await broker.execute(code.replace("ARGS", "{}"))).value == "RATE_LIMITED"
        assert (await broker.execute(code.replace("ARGS", "{ count: 10 }"))).ok
    assert sent == [10]


def gives(cost: Any) -> Any:
    def given(_: ToolCall) -> Any:
        return cost

    return given


def raises(error: BaseException) -> Any:
    def cost(_: ToolCall) -> int:
        raise error

    return cost


ODD: list[tuple[Any, str]] = [
    (gives(10**5000), "the call costs more than 1,000,000,000,000 and will never fit"),
    (gives(10**400), "the call costs more than 1,000,000,000,000 and will never fit"),
    (gives(0), "the limit's cost function returned 0, and a whole number of 1 or more is needed"),
    (gives(-(10**5000)), "returned less than -1,000,000,000,000, and a whole"),
    (gives("x" * 9999), "returned a value of type str, and a whole"),
    (raises(SystemExit(3)), "the limit's cost function failed"),
    (raises(ValueError("the password is 1234")), "the limit's cost function failed"),
]


@pytest.mark.parametrize(("cost", "says"), ODD, ids=map(str, range(len(ODD))))
async def test_a_cost_that_makes_no_sense_denies_the_call_and_says_why(
    cost: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with twin_broker() as broker:

        @broker.tool("odd", rate_limit=RateLimit(10, 60, cost=cost))
        async def odd() -> None: ...

        with caplog.at_level(logging.ERROR, "enclave_broker.calls"):
            result = await broker.execute("await callTool('odd')")
    assert result.error is not None
    assert result.error.code == "RATE_LIMITED"
    assert says in result.error.message
    assert len(result.error.message) < 300
    assert "1234" not in result.error.message
    assert [call.outcome for call in result.calls] == ["denied"]
    assert {record.name for record in caplog.records} <= {"enclave_broker.calls"}


# -- starts that can't be recorded -------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(committer, "LAST_RETRY", 0.002)
    monkeypatch.setattr(committer, "CLOSE_SECONDS", 0.05)


async def aside(call: ToolCall, call_next: Any) -> Any:
    return await call_next(call)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", ["plain", "middleware", "listener"])
async def test_a_call_whose_start_cannot_be_recorded_costs_nothing(way: str) -> None:
    store, ran = GatedStore(), list[int]()
    limiter = RateLimiter(global_=RateLimit(1, 3600))

    async def pay() -> None:
        ran.append(1)

    limits = SessionLimits(timeout=60.0, tool_timeout=0.1, per_tool_deadline=0.1)
    options: dict[str, Any] = {"middleware": [aside]} if way == "middleware" else {}
    async with Broker(
        store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}, limits=limits, rate_limiter=limiter, **options
    ) as broker:
        session = await broker.create_session()
        if way == "listener":
            session.on("tool_call", lambda _: None)
        running = asyncio.ensure_future(session.execute("return await callTool('pay').catch((e) => e.code)"))
        await within(store.asked.wait())
        try:
            await within(until(lambda: session.execution is not None and session.execution.over), 3)
        finally:
            store.gate.set()
        assert (await within(running)).value == "TOOL_TIMEOUT"
        assert ran == []
        assert limiter.allow("s_other", "pay")
        assert not limiter.allow("s_other", "pay")


async def test_a_call_whose_handler_has_run_stays_charged_though_the_store_fails_then() -> None:
    store, began = GatedStore(), asyncio.Event()
    limiter = RateLimiter(global_=RateLimit(1, 3600))
    store.gate.set()

    async def pay() -> None:
        store.gate.clear()
        began.set()
        raise ToolError("declined")

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}, rate_limiter=limiter) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("return await callTool('pay').catch((e) => e.message)"))
        await within(began.wait())
        await within(until(lambda: session.execution is not None and session.execution.over), 3)
        assert not limiter.allow("s_other", "pay")
        store.gate.set()
        assert (await within(running)).value == "declined"
