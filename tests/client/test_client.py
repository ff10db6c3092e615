"""The client without `await`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.client import Client
from enclave_broker.types.errors import ClosedError, ConfigurationError, TransportError
from tests.client.events import AT_ONCE, call, logged, run_of, stdout
from tests.client.server import Fault, LineServer, Log, line_server, lines_of

T = TypeVar("T")
RUN = run_of(stdout("one\n"), stdout("two\n"))


class Background:
    """A LineServer in a loop and a thread of its own, as a sync client needs one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready: Future[LineServer] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        self.server = self._ready.result()

    async def _serve(self) -> None:
        async with line_server(logged(RUN)) as server:
            self._ready.set_result(server)
            await self._end.wait()

    def there(self, function: Callable[[], T]) -> T:
        """Call it in the server's loop."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def background() -> Iterator[Background]:
    here = Background()
    yield here
    here.close()


@pytest.fixture
def server(background: Background) -> LineServer:
    return background.server


def test_it_executes_streams_and_attaches(server: LineServer) -> None:
    with Client(server.url, reconnection=AT_ONCE) as client:
        result = client.execute("code", result_type=int)
        assert (result.ok, result.value, result.stdout) == (True, 3, "one\ntwo\n")
        server.faults.extend([Fault(260), Fault(100)])
        assert list(client.stream("code", session_id="s_1")) == list(RUN("s_1"))
        assert list(client.attach("s_1", 3)) == list(RUN("s_1"))[2:]


def test_it_asks_all_else_that_the_other_client_asks(server: LineServer) -> None:
    with Client(server.url) as client:
        server.logs["s_1"] = logged(RUN)("s_1")
        assert [info.id for info in client.sessions()] == ["s_1"]
        assert client.session("s_1").tool_call_count == 2
        assert client.calls("s_1") == []
        assert client.cancel("s_1")
        client.destroy("s_1")
        assert [tool.name for tool in client.tools()] == ["orders:get"]


def test_the_two_clients_have_the_same_methods_and_options() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) - {"close"} == public(AsyncClient) - {"aclose"}
    for name in (public(Client) - {"close"}) | {"__init__"}:
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        assert (
            one.__code__.co_varnames[: one.__code__.co_argcount + one.__code__.co_kwonlyargcount]
            == (other.__code__.co_varnames[: other.__code__.co_argcount + other.__code__.co_kwonlyargcount])
        )
        assert one.__kwdefaults__ == other.__kwdefaults__


def test_it_may_be_used_from_many_threads_at_once(server: LineServer) -> None:
    with Client(server.url, reconnection=AT_ONCE) as client, ThreadPoolExecutor(20) as threads:
        server.faults.extend(Fault(n * 10) for n in range(40))
        waiting = [threads.submit(client.execute, "code") for _ in range(40)]
        found = [each.result().value for each in waiting]
    assert found == [3] * 40


def test_a_tool_may_use_the_client_that_runs_it(server: LineServer) -> None:
    make = run_of(call("c_1", "ui:count"))

    def script(id: str) -> Log:
        lines = lines_of(*make(id))
        return Log(lines[:2], lines[2:])

    server.script = script
    with Client(server.url) as client:

        @client.tool("ui:count")
        def count() -> int:
            return len(client.sessions())

        assert client.execute("code", session_id="s_1").ok
        assert server.logs["s_1"].answers == [{"callId": "c_1", "ok": True, "result": 1}]


def test_the_loop_of_the_client_cannot_wait_for_the_client(server: LineServer) -> None:
    make = run_of(call("c_1", "ui:count"))

    def script(id: str) -> Log:
        lines = lines_of(*make(id))
        return Log(lines[:2], lines[2:])

    server.script = script
    caught: list[Any] = []
    with Client(server.url) as client:

        @client.tool("ui:count")
        async def count() -> None:
            with pytest.raises(RuntimeError, match="use AsyncClient there") as error:
                client.sessions()
            caught.append(error)

        assert client.execute("code").ok
    assert len(caught) == 1


def test_errors_come_as_they_are(server: LineServer) -> None:
    with Client(server.url) as client:
        with pytest.raises(ConfigurationError, match="unknown option alowed"):
            client.execute("code", alowed=[])  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="begins with 's_'"):
            next(client.attach("x"))
    with Client("http://127.0.0.1:9") as client, pytest.raises(TransportError, match="there is no connection"):
        client.tools()


def test_a_closed_client_is_closed(server: LineServer) -> None:
    client = Client(server.url)
    left = client.stream("code")
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.tools()
    with pytest.raises(ClosedError):
        next(left)


def test_closing_it_ends_what_other_threads_wait_for(background: Background) -> None:
    server = background.server

    def script(id: str) -> Log:
        lines = lines_of(*RUN(id))
        return Log(lines[:1], lines[1:], state="running")

    server.script = script
    client = Client(server.url, reconnection=AT_ONCE)
    stream = client.stream("code", session_id="s_1")
    assert next(stream).seq == 1
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(next, stream)
        events = background.there(lambda: server.logs["s_1"])
        assert events.held
        client.close()
        with pytest.raises(ClosedError):
            waiting.result()


def test_leaving_a_loop_closes_its_stream(background: Background) -> None:
    server = background.server

    def script(id: str) -> Log:
        lines = lines_of(*RUN(id))
        return Log(lines[:1], lines[1:], state="running")

    server.script = script
    with Client(server.url) as client:
        for event in client.stream("code", session_id="s_1"):
            assert event.seq == 1
            break
        gc.collect()
        background.there(server.logs["s_1"].release)
        assert [event.seq for event in client.attach("s_1", 2)] == [2, 3, 4]


def test_a_program_ends_although_it_left_a_stream_and_a_client_open(server: LineServer) -> None:
    program = (
        "import sys\n"
        "from enclave_broker.client.client import Client\n"
        "client = Client(sys.argv[1])\n"
        "stream = client.stream('code')\n"
        "print(next(stream).type)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, server.url], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "session_init\n"
