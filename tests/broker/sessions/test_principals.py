"""One session id that several principals have chosen: nobody gets at another's."""

from __future__ import annotations

import pytest

from enclave_broker import ConfigurationError, Principal, SessionNotFoundError, ToolCall, ToolContext
from tests.broker.sessions.support import twin_broker


async def test_a_listener_that_executes_a_call_executes_its_own_principals() -> None:
    async with twin_broker() as broker:

        @broker.tool("whoami", effect="read")
        async def whoami(context: ToolContext) -> str:
            return context.principal.subject

        await broker.create_session(session_id="s_x", principal=Principal("ann"))
        bob = await broker.create_session(session_id="s_x", principal=Principal("bob"))
        bob.on("tool_call", lambda call: broker.execute_tool_call(bob.id, call))
        assert (await bob.execute("return await tools.whoami({})")).value == "bob"


async def test_what_does_not_say_whose_session_is_meant_touches_none() -> None:
    async with twin_broker() as broker:
        sessions = [await broker.create_session(session_id="s_x", user_id=user) for user in ("ann", "bob")]
        with pytest.raises(ConfigurationError, match="several principals"):
            await broker.sessions.destroy("s_x")
        with pytest.raises(ConfigurationError, match="several principals"):
            await broker.execute_tool_call("s_x", {"name": "t", "args": {}})
        assert not any(session.closed for session in sessions)
        with pytest.raises(SessionNotFoundError):
            await broker.execute_tool_call("s_y", {"name": "t", "args": {}})


async def test_a_call_that_names_its_principal_never_reaches_anothers_session_of_that_id() -> None:
    async with twin_broker() as broker:

        @broker.tool("whoami", effect="read")
        async def whoami(context: ToolContext) -> str:
            return context.principal.subject

        await broker.create_session(session_id="s_x", principal=Principal("bob"))
        call = ToolCall(id="c_1", name="whoami", args={}, session_id="s_x", principal=Principal("ann"))
        with pytest.raises(SessionNotFoundError):
            await broker.execute_tool_call("s_x", call)
        now = Principal("ann", roles=frozenset({"new"}), claims={"iat": 2})
        await broker.create_session(session_id="s_x", principal=now)
        assert await broker.execute_tool_call("s_x", call) == "ann"


async def test_a_list_is_a_page_unless_all_is_asked_for() -> None:
    async with twin_broker() as broker:
        for _ in range(101):
            await broker.create_session()
        assert (len(broker.sessions.list()), len(broker.sessions.list(limit=None))) == (100, 101)
