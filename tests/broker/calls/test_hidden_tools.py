"""Nobody hears of a tool that it may not call by its name: neither from a refusal nor from a run's events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from enclave_broker import AccessController, Broker, CatalogChangedEvent, Principal, Rule
from enclave_broker.broker.sessions.session import Session
from tests.broker.sessions.support import events_of, twin_broker, until

RULES = [Rule("admin:*", allow=False, unless={"boss": True}), Rule("*", allow=True)]


def one() -> int:
    return 1


def facts(principal: Principal) -> Mapping[str, Any]:
    if principal.subject == "eve":
        raise ValueError("no facts")
    return {"boss": principal.subject == "ann"}


async def facts_later(principal: Principal) -> Mapping[str, Any]:
    await asyncio.sleep(0)
    return facts(principal)


def heard(session: Session) -> tuple[list[str], list[str]]:
    """The tools that its readers have heard of: those that came, those that went."""
    told = [event for event in events_of(session) if isinstance(event, CatalogChangedEvent)]
    came = [name for event in told for name in event.added_actions]
    return came, [name for event in told for name in event.removed_actions]


async def come_and_go(broker: Broker) -> None:
    broker.tool("admin:x", effect="read")(one)
    broker.tool("payroll", effect="read", requires_auth=True)(one)
    broker.tool("open", effect="read")(one)
    for name in ("admin:x", "payroll", "open"):
        broker.router.remove(name)


@pytest.mark.parametrize("context", [facts, facts_later])
async def test_a_run_hears_of_no_tool_that_its_session_may_not_call(context: Callable[[Principal], Any]) -> None:
    async with twin_broker(access=AccessController(rules=RULES), context=context) as broker:
        ann, bob, eve = [await broker.create_session(user_id=name) for name in ("ann", "bob", "eve")]
        nobody = await broker.create_session()
        sessions = [ann, bob, eve, nobody]
        runs = [asyncio.ensure_future(session.execute("await sleep(30000)")) for session in sessions]
        await until(lambda: all(session.state == "running" for session in sessions))
        await come_and_go(broker)
        await until(lambda: all(heard(session)[1][-1:] == ["open"] for session in (ann, bob, nobody)))
        assert heard(ann) == (["admin:x", "payroll", "open"], ["admin:x", "payroll", "open"])
        assert heard(bob) == (["payroll", "open"], ["payroll", "open"])
        assert heard(nobody) == (["open"], ["open"])
        assert heard(eve) == ([], []), "its facts can't be had"
        for session in sessions:
            await session.cancel()
        await asyncio.gather(*runs)


async def test_without_rules_a_run_hears_of_all_but_what_wants_to_know_who_asks() -> None:
    async with twin_broker() as broker:
        ann, nobody = await broker.create_session(user_id="ann"), await broker.create_session()
        runs = [asyncio.ensure_future(session.execute("await sleep(30000)")) for session in (ann, nobody)]
        await until(lambda: all(session.state == "running" for session in (ann, nobody)))
        await come_and_go(broker)
        assert heard(ann)[0] == ["admin:x", "payroll", "open"]
        assert heard(nobody) == (["admin:x", "open"], ["admin:x", "open"])
        for session in (ann, nobody):
            await session.cancel()
        await asyncio.gather(*runs)


async def test_what_wants_to_know_who_asks_is_offered_to_nobody_unknown() -> None:
    async with twin_broker() as broker:
        for name, known in (("hello", False), ("payroll_export", True)):
            broker.tool(name, effect="read", requires_auth=known)(one)
        for wrong in ("payroll_exprt", "weather"):
            nobody = await broker.execute(f"await tools.{wrong}({{}})")
            somebody = await broker.execute(f"await tools.{wrong}({{}})", principal=Principal("ann"))
            assert nobody.error is not None
            assert somebody.error is not None
            assert "this session may call hello" in nobody.error.message
            assert "payroll_export" not in nobody.error.message
            assert "payroll_export" in somebody.error.message


@pytest.mark.parametrize(
    ("allowed", "options", "called", "said"),
    [
        (None, {}, "weather", "this session may call hello, reports:*"),
        (None, {}, "report:dayly", "did you mean reports:*?"),
        (["reports:*"], {}, "weather", "this session may call reports:*"),
        (["*"], {}, "weather", "this session may call hello, reports:*"),
        (["hello"], {}, "weather", "this session may call hello"),
        (["reports:daily"], {}, "weather", "unknown tool 'weather'"),
        (None, {"access": AccessController(rules=[Rule("reports:*", allow=True)])}, "weather", "call reports:*"),
        (None, {"access": AccessController(rules=[Rule("hello", allow=True)])}, "weather", "call hello"),
    ],
)
async def test_patterns_are_offered_as_far_as_they_may_be_called(
    allowed: list[str] | None, options: dict[str, Any], called: str, said: str
) -> None:
    async def report(name: str, args: dict[str, Any]) -> str:
        return name

    async with twin_broker(**options) as broker:
        broker.tool("hello", effect="read")(one)
        broker.router.register("reports:*", report)
        broker.router.register("secret:*", report, requires_auth=True)
        result = await broker.execute(f"await callTool({called!r}, {{}})", allowed_tools=allowed)
        assert result.error is not None
        assert result.error.message.split(" (line")[0].endswith(said)
