"""What history hides: in arguments and in errors, however much there is, and though the route has gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from enclave_broker import Broker, Redact, Session, SessionLimits, ToolError
from enclave_broker.broker.calls import route_redacts
from enclave_broker.broker.calls.middleware.redact import REDACTED
from enclave_broker.broker.calls.shown_arguments import LEFT_OUT, LOOKED_BYTES, SHOWN_BYTES
from tests.broker.sessions.support import events_of, twin_broker

ROOMY = SessionLimits(max_log_bytes=64 << 20, max_tool_args_bytes=5 << 20)
EMAIL = {"email": "ann@example.org"}
HIDDEN = {"email": REDACTED}


async def echo(name: str, args: dict[str, Any]) -> str:
    return name


async def ask(broker: Broker, session: Session, name: str, args: dict[str, Any]) -> str:
    """The code with which the call failed."""
    try:
        await broker.execute_tool_call(session.id, {"name": name, "args": args})
    except ToolError as error:
        return error.code
    return ""


# -- how much ----------------------------------------------------------------------------------------------------------


async def test_only_so_much_is_looked_through_and_the_rest_hidden_whole() -> None:
    text = "x" * 29_000
    async with twin_broker(middleware=[Redact(patterns=["y+"])]) as broker:
        broker.router.register("db:*", echo)
        async with await broker.create_session() as session:
            for _ in range(30):
                await ask(broker, session, "db:x", {"a": text})
            for _ in range(2):  # each reading begins anew
                shown = [call.args == {"a": text} for call in session.history()]
                assert shown == [True] * (LOOKED_BYTES // 29_008) + [False] * (30 - LOOKED_BYTES // 29_008)
            assert session.history()[-1].args == {REDACTED: "29008 bytes of arguments"}
            state = await session.state_at(events_of(session)[-1].seq)
            assert [call.args for call in state.calls] == [call.args for call in session.history()]


async def test_what_holds_nothing_to_be_hidden_is_shown_beyond_that() -> None:
    async with twin_broker() as broker:
        broker.router.register("db:*", echo)
        code = "const a = 'x'.repeat(29000); for (let i = 0; i < 20; i++) await callTool('db:x', { a });"
        result = await broker.execute(code + "await callTool('db:x', { pin: 1 })")
    assert {len(call.args.get("a", "")) for call in result.calls[:-1]} == {29_000}
    assert result.calls[-1].args == {"pin": REDACTED}


async def test_only_so_much_is_shown_at_all() -> None:
    async with twin_broker(limits=ROOMY) as broker:
        broker.router.register("db:*", echo)
        code = (
            "const a = 'x'.repeat(3e6); for (let i = 0; i < 4; i++) await callTool('db:x', { a }); callTool('db:x', {})"
        )
        calls = (await broker.execute(code)).calls
    count = SHOWN_BYTES // 3_000_008
    assert [len(call.args.get("a", "")) for call in calls[:count]] == [3_000_000] * count
    assert [call.args for call in calls[count:-1]] == [{LEFT_OUT: "3000008 bytes of arguments"}] * (4 - count)
    assert (calls[-1].args, calls[-2].args_bytes) == ({}, 3_000_008)


# -- errors ------------------------------------------------------------------------------------------------------------


async def test_a_validation_error_in_history_does_not_quote_what_is_hidden() -> None:
    async with twin_broker(middleware=[Redact(keys=["plate"])]) as broker:

        @broker.tool("login")
        async def login(password: int, plate: int, deep: dict[str, list[int]], age: int) -> None: ...

        code = """
            const deep = { authToken: ["t0ken"] };
            const args = { password: "hunter2", plate: "M-XY 1", deep, age: "old" };
            try { await callTool("login", args) } catch (error) { return [error.message, error.details] }
        """
        result = await broker.execute(code)
    assert all(each in json.dumps(result.value) for each in ("hunter2", "M-XY 1", "t0ken"))  # it is the script's own
    (call,) = result.calls
    told = json.dumps(msgspec.to_builtins(call))
    assert not [each for each in ("hunter2", "M-XY 1", "t0ken") if each in told]
    assert call.error is not None
    assert f"password: {REDACTED}; plate: {REDACTED}; " in call.error.message
    assert 'age: got "old", should be a whole number' in call.error.message
    reasons = {each["field"]: each["reason"] for each in call.error.details}
    assert reasons["password"] == reasons["plate"] == reasons["deep.authToken[0]"] == REDACTED
    assert reasons["age"] == 'got "old", should be a whole number'


async def test_the_errors_of_a_tool_are_redacted_as_its_arguments_are() -> None:
    async with twin_broker() as broker:

        @broker.tool("look_up", middleware=[Redact(patterns=[r"[a-z]+@example\.org"])])
        async def look_up(email: int) -> None: ...

        @broker.tool("fail")
        async def fail() -> None:
            raise ToolError("no", details={"token": "t0ken", "tried": 3})

        async with await broker.create_session() as session:
            assert await ask(broker, session, "look_up", EMAIL) == "VALIDATION_ERROR"
            await ask(broker, session, "fail", {})
            first, second = (call.error for call in session.history())
    assert first is not None
    assert second is not None
    assert "ann@example.org" not in f"{first.message} {first.details}"
    assert f'got "{REDACTED}"' in first.message
    assert second.details == {"token": REDACTED, "tried": 3}


# -- routes that go ----------------------------------------------------------------------------------------------------


async def test_what_a_route_hid_stays_hidden_when_it_has_gone() -> None:
    async with twin_broker() as broker:

        @broker.tool("late", middleware=[Redact(keys=["email"])])
        async def late(email: str) -> None: ...

        async with await broker.create_session() as session:
            broker.router.register("db:*", echo, middleware=[Redact(keys=["email"])])
            await ask(broker, session, "late", EMAIL)
            await ask(broker, session, "db:x", EMAIL)
            assert [call.args for call in session.history()] == [HIDDEN, HIDDEN]
            assert broker.router.remove("late")
            assert broker.router.remove("db:*")
            assert [call.args for call in session.history()] == [HIDDEN, HIDDEN]
            broker.router.register("db:x", echo)  # the name has a route again, one that hides nothing
            assert [call.args for call in session.history()] == [HIDDEN, HIDDEN]
            await ask(broker, session, "other", EMAIL)
            assert session.history()[2].args == EMAIL


async def test_a_session_that_outlives_its_broker_shows_no_more_than_before() -> None:
    async with twin_broker() as broker:
        broker.router.register("db:*", echo, middleware=[Redact(keys=["email"])])
        session = await broker.create_session()
        await ask(broker, session, "db:x", EMAIL)
    broker.router.remove("db:*")
    assert [call.args for call in session.history()] == [HIDDEN]


async def test_a_redact_of_very_many_routes_is_remembered_for_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_redacts, "MAX_PATTERNS", 10)
    async with twin_broker() as broker, await broker.create_session() as session:
        for number in range(20):
            broker.router.register(f"db:{number}", echo, middleware=[Redact(keys=["email"])])
            await ask(broker, session, f"db:{number}", EMAIL)
            broker.router.remove(f"db:{number}")
        assert [call.args for call in session.history()] == [HIDDEN] * 20


async def test_routes_that_threads_add_are_known_too() -> None:
    async with twin_broker() as broker, await broker.create_session() as session:

        def come(number: int) -> None:
            broker.router.register(f"db:{number}:*", echo, middleware=[Redact(keys=["email"])])

        await asyncio.gather(*(asyncio.to_thread(come, number) for number in range(8)))
        for number in range(8):
            await ask(broker, session, f"db:{number}:x", EMAIL)
            broker.router.remove(f"db:{number}:*")
        assert [call.args for call in session.history()] == [HIDDEN] * 8
