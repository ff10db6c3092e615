"""The client and the real broker: in memory, over HTTP, and over HTTP that is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from enclave_broker import Broker, Principal, ToolContext, ToolError
from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.client import Client
from enclave_broker.runtime.memory import MemoryRuntime
from enclave_broker.types.errors import ClientError, ConfigurationError, TransportError
from enclave_broker.types.events import Event
from tests.client.events import AT_ONCE
from tests.client.real import cutting, served

REPORT = """
console.log("begin\\u2028");
const orders = await Promise.all([1, 2, 3].map((id) => tools.orders.get({ id })));
try { await tools.orders.get({ id: 99 }) } catch (e) { console.warn(e.code) }
await sleep(1);
console.log("end");
return orders.reduce((sum, order) => sum + order.total, 0);
"""


def shop() -> Broker:
    broker = Broker()

    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> dict[str, int]:
        if id > 3:
            raise ToolError(f"no order {id}", code="NO_SUCH_ORDER")
        return {"id": id, "total": id * 10}

    @broker.tool("whoami", effect="read")
    async def whoami(context: ToolContext) -> str:
        return context.principal.subject

    @broker.tool("hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    broker.client_tool("ui:ask", args=dict[str, str], result=str)
    assert callable(get)
    assert callable(whoami)
    assert callable(hang)
    return broker


@pytest.fixture(params=["in memory", "over HTTP"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    broker = shop()
    if request.param == "in memory":
        async with AsyncClient(broker, reconnection=AT_ONCE) as made:
            yield made
    else:
        async with served(broker) as url, AsyncClient(url, reconnection=AT_ONCE) as made:
            yield made


async def test_a_result_is_whole(client: AsyncClient) -> None:
    result = await client.execute(REPORT, allowed_tools=["orders:*"], result_type=int)
    assert (result.ok, result.value, result.stdout) == (True, 60, "begin\u2028\nend\n")
    assert [(call.name, call.outcome) for call in result.calls] == [("orders:get", "done")] * 3 + [
        ("orders:get", "failed")
    ]
    assert result.calls[3].error is not None
    assert result.calls[3].error.code == "NO_SUCH_ORDER"


async def test_the_error_of_a_script_is_the_brokers_own(client: AsyncClient) -> None:
    code = "const o = {};\nfunction f() { return o.x.y }\nreturn f()"
    result = await client.execute(code)
    async with Broker() as broker:
        own = await broker.execute(code)
    assert result.error == own.error
    assert (result.status, result.ok) == (own.status, False)


async def test_a_script_sees_only_the_tools_and_limits_that_it_was_given(client: AsyncClient) -> None:
    refused = await client.execute("await tools.whoami({})", allowed_tools=["orders:*"])
    assert refused.error is not None
    assert (refused.error.code, refused.calls[0].outcome) == ("TOOL_NOT_ALLOWED", "denied")
    counted = await client.execute(REPORT, max_tool_calls=2)
    assert counted.error is not None
    assert counted.error.code == "MAX_TOOL_CALLS"


async def test_a_stream_and_those_who_attach_see_the_same_events(client: AsyncClient) -> None:
    seen = [event async for event in client.stream(REPORT, session_id="s_mine")]
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    for start in (1, 3, len(seen)):
        assert [event async for event in client.attach("s_mine", start)] == seen[start - 1 :]
    assert [event async for event in client.attach("s_mine", len(seen) + 1)] == []


async def test_a_filter_shows_only_what_it_lets_through(client: AsyncClient) -> None:
    only = {"mode": "include", "rules": [{"types": {"types": ["stdout"]}}]}
    types = [event.type async for event in client.stream(REPORT, filter=only)]
    assert types == ["session_init", "stdout", "stdout", "final"]
    nothing = {**only, "alwaysAllow": []}
    assert [event.type async for event in client.stream(REPORT, filter=nothing)] == ["stdout", "stdout"]


async def test_the_client_executes_a_tool_that_the_broker_leaves_to_it(client: AsyncClient) -> None:
    @client.tool("ui:ask")
    def ask(question: str) -> str:
        if question == "no?":
            raise ToolError("they said no", code="REFUSED")
        return question.upper()

    assert (await client.execute("return await tools.ui.ask({ question: 'yes?' })")).value == "YES?"
    refused = await client.execute("try { await tools.ui.ask({ question: 'no?' }) } catch (e) { return e.code }")
    assert (refused.value, refused.calls[0].outcome) == ("REFUSED", "failed")


async def test_a_session_is_listed_shown_cancelled_and_destroyed(client: AsyncClient) -> None:
    stream = client.stream("console.log('up'); await tools.hang({})", session_id="s_mine")
    while (await anext(stream)).type != "tool_call":
        pass
    assert (await client.session("s_mine")).state == "waiting_for_tool"
    assert [info.id for info in await client.sessions(state="waiting_for_tool")] == ["s_mine"]
    assert await client.cancel("s_mine", "enough")
    rest = [event async for event in stream]
    assert rest[-1].payload()["error"]["code"] == "SESSION_CANCELLED"
    assert [call.name for call in await client.calls("s_mine")] == ["hang"]
    await client.destroy("s_mine")
    with pytest.raises(ClientError) as caught:
        await client.session("s_mine")
    assert caught.value.code == "NOT_FOUND"


async def test_a_cancelled_execute_leaves_nothing_running(client: AsyncClient) -> None:
    running = asyncio.ensure_future(client.execute("await tools.hang({})", session_id="s_mine"))
    async for event in client_events(client, "s_mine"):
        if event.type == "tool_call":
            break
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await client.session("s_mine")).state == "cancelled"


async def client_events(client: AsyncClient, id: str) -> AsyncIterator[Any]:
    """Of a session that may not be there yet."""
    while True:
        try:
            async for event in client.attach(id):
                yield event
        except ClientError as error:
            if error.code != "NOT_FOUND":
                raise
        else:
            return


async def test_tools_are_listed_with_their_schemas(client: AsyncClient) -> None:
    found = {tool.name: tool for tool in await client.tools()}
    assert set(found) == {"orders:get", "whoami", "hang", "ui:ask"}
    assert (found["orders:get"].input_schema or {})["properties"] == {"id": {"type": "integer"}}


async def test_a_refusal_has_the_wires_code(client: AsyncClient) -> None:
    await client.execute("return 1", session_id="s_taken")
    for options, code in (({"session_id": "s_taken"}, "SESSION_EXISTS"), ({"language": "cobol"}, "INVALID_REQUEST")):
        given_: Any = options
        with pytest.raises(ClientError) as caught:
            await client.execute("return 2", **given_)
        assert caught.value.code == code


# -- in memory --------------------------------------------------------------------------------------------------------


async def test_a_broker_in_memory_is_asked_as_the_principal() -> None:
    async with AsyncClient(shop(), principal=Principal("ann")) as client:
        assert (await client.execute("return await tools.whoami({})")).value == "ann"


async def test_a_broker_that_runs_here_goes_on_after_the_client() -> None:
    async with shop() as broker:
        async with AsyncClient(broker) as client:
            assert (await client.execute("return 1")).value == 1
        assert (await broker.execute("return 2")).value == 2


def test_a_broker_is_started_by_the_first_request_and_can_be_used_again_after_the_client() -> None:
    broker = shop()
    for value in (1, 2):
        with Client(broker) as client:
            assert client.execute(f"return {value}").value == value
        assert broker.execute_sync(f"return {value}").value == value


async def test_a_broker_of_another_loop_is_not_touched_from_here() -> None:
    def elsewhere(broker: Broker) -> None:
        with Client(broker) as client:
            client.execute("return 1")

    async with shop() as broker:
        with pytest.raises(ConfigurationError, match="the broker runs in another event loop"):
            await asyncio.to_thread(elsewhere, broker)
        assert (await broker.execute("return 2")).value == 2


class SlowToStart(MemoryRuntime):
    """Can't start the first time."""

    tries = 0

    async def start(self) -> None:
        self.tries += 1
        if self.tries == 1:
            raise ConfigurationError("this machine lacks a wall")
        await super().start()


async def test_a_broker_that_cannot_start_says_why_and_is_tried_again_by_the_next_request() -> None:
    async with AsyncClient(Broker(runtimes=[SlowToStart()])) as client:
        with pytest.raises(ConfigurationError, match="lacks a wall"):
            await client.execute("return 1")
        assert (await client.execute("return 1")).value == 1


async def test_a_client_that_closes_ends_the_broker_that_it_started_at_once() -> None:
    broker = shop()
    client = AsyncClient(broker)
    stream = client.stream("await tools.hang({})")
    assert (await anext(stream)).type == "session_init"
    await client.aclose()
    assert not broker.running


async def test_a_mounted_broker_is_an_application_like_any_other() -> None:
    app = Starlette()
    shop().mount(app, "/enclave")
    async with AsyncClient(app, path="/enclave") as client:
        assert (await client.execute("return 1 + 1")).value == 2
    async with AsyncClient(app) as client:
        with pytest.raises(ClientError) as caught:
            await client.tools()
        assert caught.value.status_code == 404
    with pytest.raises(ConfigurationError, match="path="):
        AsyncClient("http://localhost:1", path="/enclave")


# -- over a network that cuts -----------------------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 3_000), min_size=1, max_size=6))
async def test_a_run_whose_connections_are_cut_at_any_byte_is_one_run_with_one_result(cuts: list[int]) -> None:
    async with served(shop()) as url, cutting(url, cuts) as cut, AsyncClient(cut, reconnection=AT_ONCE) as client:
        events: list[Any] = []
        try:
            async for event in client.stream(REPORT, session_id="s_mine"):
                events.append(event)  # noqa: PERF401 what came before a failure counts
        except TransportError:  # every attempt was cut before anything new had come
            async with AsyncClient(url) as other:
                start = events[-1].seq + 1 if events else 1
                events += [event async for event in other.attach("s_mine", start)] if await is_there(other) else []
        async with AsyncClient(url) as other:
            log: list[Event | Any] = [event async for event in other.attach("s_mine")] if await is_there(other) else []
            assert events == log
            assert len(await other.sessions()) == bool(log)


async def is_there(client: AsyncClient) -> bool:
    return bool(await client.sessions())
