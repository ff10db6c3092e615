from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from enclave_broker import Broker, ConfigurationError, Session, SessionLimits, Tool, ToolError
from enclave_broker.broker.calls.call import Call
from enclave_broker.broker.sessions.execution import Execution
from enclave_broker.runtime.memory import MemoryRuntime
from tests.broker.sessions.support import within


async def double(n: int) -> int:
    return 2 * n


async def refuse() -> None:
    raise ToolError("no", code="NO")


def test_a_registered_function_stays_as_it_is() -> None:
    broker = Broker()

    @broker.tool
    async def one(n: int) -> int:
        return n

    @broker.tool("ns:two", effect="read", timeout=2, description="the second")
    def two() -> int:
        return 2

    @broker.tool()
    async def three() -> int:
        return 3

    assert [tool.name for tool in broker.tools] == ["ns:two", "one", "three"]
    assert two() == 2
    tool = broker.tools[0]
    assert isinstance(tool, Tool)
    assert (tool.effect, tool.timeout, tool.description, tool.handler) == ("read", 2.0, "the second", two)


@pytest.mark.parametrize("name", ["", "no blanks", "a*", "ü", "x" * 257, "-a", "a\n"])
def test_a_name_outside_the_grammar_is_refused_where_it_is_registered(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Broker(tools={name: double})
    with pytest.raises(ConfigurationError):
        Broker().tool(name)(double)


def test_a_name_has_one_owner() -> None:
    broker = Broker(tools={"double": double})
    with pytest.raises(ConfigurationError, match="double"):
        broker.tool(double)


@pytest.mark.parametrize("options", [{"timeout": -1}, {"timeout": True}, {"effect": "maybe"}])
def test_a_tools_options_are_checked_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Broker().tool("x", **options)(double)


def test_unknown_options_of_a_broker_and_of_a_tool_are_refused() -> None:
    anything: Any = Broker
    with pytest.raises(TypeError):
        anything(fun=1)
    with pytest.raises((TypeError, ConfigurationError)):
        anything().tool("x", fun=1)(double)


def test_more_than_one_runtime_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="runtime"):
        Broker(runtimes=[MemoryRuntime(), MemoryRuntime()])


async def test_a_tool_registered_while_the_broker_runs_is_there_for_the_next_call(broker: Broker) -> None:
    assert (await broker.execute("return await callTool('double', {n: 2}).catch(e => e.code)")).value == "UNKNOWN_TOOL"
    broker.tool(double)
    assert (await broker.execute("return await callTool('double', {n: 2})")).value == 4


@pytest.mark.parametrize(
    "code",
    [
        "throw null",
        "throw undefined",
        "throw {get message() { throw 1 }}",
        "return (",
        "nothing.at.all",
        "await Promise.reject()",
        "const f = () => f(); f()",
        "return 10n",
        "return () => {}",
        "return Symbol('x')",
        "const a = {}; a.a = a; return a",
        "return '\\ud800'",
        "await new Promise(() => {})",
        "await callTool()",
        "await callTool('double', 5)",
        "await callTool({}, {})",
        "await callTool('double', {n: {}})",
        "return await callTool('refuse')",
        "null.x",
        "\0",
        "\ud800",
        "",
    ],
)
async def test_execute_never_raises_for_what_a_script_does(broker: Broker, code: str) -> None:
    broker.tool(double)
    broker.tool(refuse)
    result = await within(broker.execute(code))
    assert result.ok is (result.error is None)
    assert (await broker.execute("return 1 + 1")).value == 2


async def test_hundreds_of_sessions_at_once_do_not_mix(broker: Broker) -> None:
    broker.tool(double)
    code = "const n = N; console.log(n); await sleep(n % 7); return await callTool('double', {n})"
    results = await asyncio.gather(*(broker.execute(code.replace("N", str(n))) for n in range(200)))
    assert [result.value for result in results] == [2 * n for n in range(200)]
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(200)]
    assert len({result.session_id for result in results}) == 200


async def test_nothing_is_left_of_sessions_that_have_ended(broker: Broker) -> None:
    broker.tool(double)
    broker.on_event(lambda _: None)

    async def some() -> None:
        await asyncio.gather(*(broker.execute("await callTool('double', {n: 1}); await sleep(1)") for _ in range(20)))
        await asyncio.gather(*(broker.execute("await sleep(1e6)", timeout=0.05) for _ in range(20)))
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 tasks that nobody else may know
                await asyncio.sleep(0)

    def kept() -> list[Any]:
        gc.collect()
        return [item for item in gc.get_objects() if type(item) in {Session, Execution, Call}]

    before = kept()  # of other tests: what they logged holds on to them
    for _ in range(3):
        await some()
    assert list(broker.sessions.list()) == []
    assert [item for item in kept() if not any(item is old for old in before)] == []


async def test_a_brokers_limits_are_every_runs_unless_it_has_its_own() -> None:
    async with Broker(limits=SessionLimits(max_tool_calls=0), tools={"double": double}) as broker:
        code = "return await callTool('double', {n: 1}).catch(e => e.code)"
        assert (await broker.execute(code)).value == "MAX_TOOL_CALLS"
        assert (await broker.execute(code, max_tool_calls=1)).value == 2
        assert (await broker.execute(code, limits=SessionLimits())).value == 2
        assert (await broker.execute(code, limits=SessionLimits(), max_tool_calls=0)).value == "MAX_TOOL_CALLS"
