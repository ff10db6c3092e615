"""Ten thousand connections that are opened and left: the server goes on, and has its memory back when they are gone."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from enclave_broker import Broker
from enclave_broker.broker.http.server import GuardedHttp
from enclave_broker.broker.http.timing import Timing
from tests.http.live import SECONDS, Live, final, read_until, request_bytes, serving
from tests.http.served import WAIT, Served, served
from tests.http.test_many_readers import memory_of

CONNECTIONS = 10_000
SPARE = 500
"""Descriptors of this process for everything else."""
ADDRESSES = 8
"""So many of this machine's own are called from, since each has some 28,000 ports, and those just closed wait."""
LEFT_WITH = [
    b"",
    b"GET /readyz HTTP/1.1\r\nHo",
    request_bytes("GET", "/readyz"),
    request_bytes("POST", "/sessions", b"", "Content-Length: 100", "Content-Type: application/json") + b'{"code":',
    request_bytes("GET", "/sessions/s_1/stream"),
]


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many files as the system lets this process open; the server takes as many by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CONNECTIONS + SPARE
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this system lets a process have {hard:,} files open, and {needed:,} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def opened(port: int) -> Generator[None]:
    """The connections, each left in one of five ways; closed at the end, and by the server at any time."""
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(SECONDS)
            connection.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
            connection.connect(("127.0.0.1", port))
            connection.sendall(LEFT_WITH[number % len(LEFT_WITH)])
        yield


def check_answers(server: Served) -> None:
    response = server.client.post("/sessions", json={"code": "return await tools.orders.get({ id: 1 })"})
    assert final(response)["result"] == 1


def wait_until_closed(server: Served) -> None:
    """Until the server has closed all but a few of its files."""
    files = Path(f"/proc/{server.process.pid}/fd")
    for _ in range(int(SECONDS / 0.01)):
        if len(list(files.iterdir())) < 100:
            return
        time.sleep(0.01)
    raise AssertionError("the server keeps connections that are gone")


@pytest.mark.timeout(240)  # seconds, on a machine that is busy with something else; 6 on an idle one
@pytest.mark.usefixtures("descriptors")
def test_ten_thousand_connections_that_are_opened_and_left_hold_nobody_up_and_leave_nothing(tmp_path: Path) -> None:
    with (
        served(tmp_path) as server,
        server.client.stream("POST", "/sessions", json={"code": WAIT, "sessionId": "s_1"}) as stream,
    ):
        assert stream.status_code == 200
        port = httpx.URL(server.url).port or 0
        peaks: list[int] = []
        for _ in range(2):
            with opened(port):
                check_answers(server)
                peaks.append(memory_of(server))
            wait_until_closed(server)
            check_answers(server)
        assert peaks[1] < 1.1 * peaks[0], "the next ones have the memory of those that left"
        assert server.end() == 0
        assert len(server.said) == 1


def test_a_server_that_is_out_of_descriptors_says_so_and_goes_on_with_those_that_it_has(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        check_answers(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (100, 100))
        address = ("127.0.0.1", httpx.URL(server.url).port or 0)
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection(address, SECONDS))
            server.hear("no more can be accepted")
            check_answers(server)
        with httpx.Client(timeout=SECONDS) as another:
            assert another.get(f"{server.url}/readyz").status_code == 200
        assert server.end() == 0
        assert len("".join(server.said).split()) < 100, "it says so once in a while"


# -- one by one --------------------------------------------------------------------------------------------------------


def post(code: str, **fields: object) -> bytes:
    return request_bytes("POST", "/sessions", json.dumps({"code": code, **fields}).encode())


ENDS = [
    (b"", b""),
    (b"GET / HT", b""),
    (b"nonsense\r\n\r\n", b"400"),
    (request_bytes("GET", "/readyz"), b"ready"),
    (request_bytes("GET", "/sessions/s_none"), b"NOT_FOUND"),
    (request_bytes("POST", "/sessions", b"", "Content-Length: 50", "Content-Type: application/json") + b"{", b""),
    (post("return 1"), b"\r\n0\r\n\r\n"),
    (post("return 1", stream=False), b'"result"'),
    (post("await tools.wait({})"), b"tool_call"),
    (post("await tools.wait({})") + request_bytes("GET", "/readyz"), b"tool_call"),
    (request_bytes("GET", "/sessions/s_1/stream"), b"tool_call"),
    (request_bytes("GET", "/sessions/s_1/calls"), b"total"),
    (request_bytes("GET", "/readyz", b"", "Connection: Upgrade", "Upgrade: h2c"), b"ready"),
]
MANY = 5


def there_are() -> int:
    return sum(isinstance(each, GuardedHttp | asyncio.Transport) for each in gc.get_objects())


def test_a_connection_that_has_ended_leaves_no_garbage(shop: Broker) -> None:
    """`serve` collects garbage seldom, so nothing that a connection leaves may refer to itself."""
    with (
        serving(shop, timing=Timing(watch=0.05)) as live,
        live.streaming("await tools.wait({})", sessionId="s_1") as stream,
    ):
        stream.next("tool_call")
        state = live.server.server_state
        gc.collect()
        gc.disable()
        try:
            before = live.do(there_are)
            for request, answer in ENDS:
                leave(live, request, answer, reset=False)
                leave(live, request, answer, reset=True)
                live.until(lambda: len(state.connections) == len(state.tasks) == 1)
                live.until(lambda: there_are() == before)
        finally:
            gc.enable()


def leave(live: Live, request: bytes, answer: bytes, *, reset: bool) -> None:
    """Open some connections, ask, see the beginning of the answers, and close or reset them all."""
    state = live.server.server_state
    with ExitStack() as stack:
        for _ in range(MANY):
            connection = stack.enter_context(live.socket())
            connection.sendall(request)
            read_until(connection, answer)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if not answer:
            live.until(lambda: len(state.connections) > MANY)
