"""The facts that rules are asked with: had in time or not at all, and nobody who sees the principal can change them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from enclave_broker import AccessController, CallNext, Principal, Rule, ToolCall, ToolContext
from enclave_broker.broker.calls import policy
from tests.broker.sessions.support import twin_broker, within

CODE = "return await callTool('get').catch((e) => [e.code, e.message])"


async def test_a_resolver_that_hangs_is_given_up_and_the_call_denied(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(policy, "FACTS_SECONDS", 0.05)
    ran: list[int] = []
    cancelled = asyncio.Event()

    async def facts(_: Principal) -> Mapping[str, Any]:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async def get() -> None:
        ran.append(1)

    rules = AccessController(default_policy="allow")
    async with twin_broker(tools={"get": get}, access=rules, context=facts) as broker:
        with caplog.at_level(logging.ERROR, "enclave_broker.access"):
            result = await within(broker.execute(CODE), 5)
    assert result.value == ["ACCESS_DENIED", "tool 'get': the facts about whoever asks can't be had"]
    assert [(call.outcome, call.rule) for call in result.calls] == [("denied", "facts")]
    assert (ran, cancelled.is_set()) == ([], True)
    assert "context= has given no facts" in caplog.text


async def test_a_resolver_that_fails_lets_nothing_through_and_the_script_sees_an_error_id() -> None:
    ran: list[int] = []

    async def facts(_: Principal) -> Mapping[str, Any]:
        raise TimeoutError("directory.internal:389 is away")

    async def get() -> None:
        ran.append(1)

    rules = AccessController(default_policy="allow")
    async with twin_broker(tools={"get": get}, access=rules, context=facts) as broker:
        code, message = (await broker.execute(CODE)).value
    assert code == "EXECUTION_ERROR"
    assert message.startswith("tool 'get' failed (error id ")
    assert ran == []


async def test_neither_a_middleware_nor_a_handler_can_change_what_the_rules_know() -> None:
    refused: list[str] = []

    def promote(principal: Principal) -> None:
        for change in (
            lambda: principal.claims.update(plan="paid"),
            lambda: principal.claims["teams"].append("boss"),
        ):
            try:
                change()
            except TypeError as error:
                refused.append(str(error))

    async def middleware(call: ToolCall, call_next: CallNext) -> Any:
        promote(call.principal)
        return await call_next(call)

    rules = AccessController(
        rules=[
            Rule("paid", allow=False, unless={"plan": "paid"}),
            Rule("boss", allow=False, unless={"teams": "boss"}),
            Rule("get", allow=True),
        ]
    )
    async with twin_broker(access=rules, middleware=[middleware]) as broker:

        @broker.tool("get")
        async def get(context: ToolContext) -> None:
            promote(context.principal)

        @broker.tool("paid")
        async def paid() -> None: ...

        @broker.tool("boss")
        async def boss() -> None: ...

        code = """await callTool("get"); return [
          await callTool("paid").catch((e) => e.code), await callTool("boss").catch((e) => e.code)]"""
        ann = Principal("ann", claims={"plan": "free", "teams": ["crew"]})
        assert (await broker.execute(code, principal=ann)).value == ["ACCESS_DENIED", "ACCESS_DENIED"]
    assert len(refused) == 4
    assert "can't be changed" in refused[0]


async def test_a_resolver_that_hangs_is_given_up_for_who_approves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FACTS_SECONDS", 0.05)

    async def facts(_: Principal) -> Mapping[str, Any]:
        return await asyncio.get_running_loop().create_future()

    async with twin_broker(access=AccessController(), context=facts) as broker:
        async with asyncio.timeout(5):  # out here: only the broker's own end is what is awaited
            with pytest.raises(TimeoutError):
                await broker.approvals.facts(Principal("bea"))
