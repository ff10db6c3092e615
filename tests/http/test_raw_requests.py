"""Requests as no client library would write them: said twice, folded, framed in two ways, ahead of time, in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from enclave_broker import Broker, Principal
from enclave_broker.broker.http.server import GuardedHttp
from enclave_broker.broker.http.timing import Timing
from tests.http.cut import answer_of
from tests.http.live import Live, memory_broker, read_all, read_until, request_bytes, serving

BODY = b'{"code":"return 1"}'
LENGTH = f"Content-Length: {len(BODY)}"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


class ImpatientHttp(GuardedHttp):
    head_seconds = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    """For requests that leave nothing behind."""
    with serving(memory_broker(), protocol=ImpatientHttp, timing=Timing(body=1.0)) as running:
        yield running


def send(live: Live, request: bytes) -> bytes:
    """All that comes back."""
    with live.socket() as connection:
        connection.sendall(request)
        return read_all(connection)


def get(*headers: str, target: str = "/readyz") -> bytes:
    return request_bytes("GET", target, b"", "Connection: close", *headers)


def post(*headers: str, body: bytes = BODY) -> bytes:
    return request_bytes("POST", "/sessions", b"", "Connection: close", JSON, *headers) + body


def status(answer: bytes) -> int:
    """Of the one answer that there is; an error's shape is checked."""
    found = answer_of(answer)
    assert found is not None, answer
    assert found.whole, answer
    assert b"Traceback" not in answer
    if found.status >= 400:
        assert set(json.loads(found.body)) <= {"code", "message", "details"}
    return found.status


# -- headers ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "Content-Length twice": post(LENGTH, "Content-Length: 1"),
    "the same Content-Length twice": post(LENGTH, LENGTH),
    "a list of lengths": post(f"{LENGTH}, {len(BODY)}"),
    "a signed length": post(f"Content-Length: +{len(BODY)}"),
    "a length in hexadecimal": post("Content-Length: 0x13"),
    "a space before a colon": post(f"Content-Length : {len(BODY)}"),
    "a length and chunks": post(LENGTH, CHUNKED, body=CHUNKS),
    "chunks and a length": post(CHUNKED, LENGTH, body=CHUNKS),
    "chunked twice": post(CHUNKED, CHUNKED, body=CHUNKS),
    "another encoding, chunked": post("Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "chunked, chunked": post("Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "an encoding that is none": post("Transfer-Encoding: xchunked", body=CHUNKS),
    "identity": post("Transfer-Encoding: identity", LENGTH),
    "an encoding behind a control character": post("Transfer-Encoding: \x0bchunked", body=CHUNKS),
    "chunks in HTTP/1.0": post(CHUNKED, body=CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "Host twice": get("Host: localhost"),
    "Content-Type twice": post(LENGTH, JSON),
    "another Content-Type": post(LENGTH, "Content-Type: text/plain"),
    "Authorization twice": get("Authorization: Bearer a", "Authorization: Bearer a"),
    "Origin twice": get("Origin: http://localhost", "Origin: http://localhost"),
    "Last-Event-ID twice": get("Last-Event-ID: 1", "Last-Event-ID: 2"),
    "a folded header": get("X-A: a\r\n b"),
    "a folded Host": get().replace(b"Host: localhost", b"Host: local\r\n host"),
    "a folded Authorization": get("Authorization: Bearer\r\n\ta"),
    "a folded Content-Length": post(f"Content-Length:\r\n {len(BODY)}"),
    "a folded Transfer-Encoding": post("Transfer-Encoding:\r\n chunked", body=CHUNKS),
    "a fold at the beginning": get().replace(b"\r\n", b"\r\n X: a\r\n", 1),
    "lines that end in LF": post(LENGTH).replace(b"\r\n", b"\n"),
    "lines that end in CR": post(LENGTH).replace(b"\r\n", b"\r"),
    "a CR within a value": get("X: a\rHost: b"),
    "a NUL within a name": get("X\x00: a"),
    "a header without a name": get(": a"),
    "a header without a colon": get("Xa"),
    "no target": get(target=""),
    "a target without a path": get(target="http://localhost"),
    "another version": get().replace(b"HTTP/1.1", b"HTTP/1.2"),
    "a method of any length": get().replace(b"GET", b"A" * 5_000),
    "a method in lower case": get().replace(b"GET", b"get"),
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(server: Live, request_: bytes) -> None:
    assert status(send(server, request_)) == 400


@pytest.mark.parametrize("lines", [b"", b"Host:\r\n"])
def test_a_request_without_a_host_is_refused(server: Live, lines: bytes) -> None:
    assert status(send(server, get().replace(b"Host: localhost\r\n", lines))) == 403


@pytest.mark.parametrize(
    "request_",
    [
        post(LENGTH),
        post("content-LENGTH:19"),
        post(CHUNKED, body=CHUNKS),
        post("Transfer-Encoding:\tChunked", body=CHUNKS),
        post(CHUNKED, body=b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
        post(LENGTH, "Expect: nonsense"),
        get("Accept: a/b", "Accept: c/d"),
        get(target="http://localhost/readyz"),
        get(LENGTH) + BODY,
    ],
)
def test_what_is_odd_but_clear_is_answered(server: Live, request_: bytes) -> None:
    assert status(send(server, request_)) == 200


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\n", b"-1\r\n", b"f" * 17 + b"\r\n", b"\r\n", b"12\r\n" + BODY, b"13\r\n" + BODY + b"0\r\n\r\n"],
)
def test_chunks_that_are_none_are_refused(server: Live, chunks: bytes) -> None:
    assert status(send(server, post(CHUNKED, body=chunks))) == 400


def test_a_chunk_that_says_it_is_endless_is_not_waited_for(server: Live) -> None:
    assert status(send(server, post(CHUNKED, body=b"7fffffffffffffff\r\n" + BODY))) == 408


# -- trailers --------------------------------------------------------------------------------------------------------


def test_what_follows_a_body_is_no_header() -> None:
    async def by_header(request: Request) -> Principal:
        return Principal(request.headers["x-user"])

    with serving(memory_broker(), auth=by_header) as live:
        trailers = CHUNKS[:-2] + b"X-User: eve\r\nContent-Type: text/plain\r\n\r\n"
        assert status(send(live, post(CHUNKED, body=trailers))) == 401
        assert status(send(live, post(CHUNKED, "X-User: ada", body=trailers))) == 200
        assert [session.user_id for session in live.do(live.broker.sessions.list)] == ["ada"]


@pytest.mark.parametrize("endless", [b"X: y\r\n" * 1_000, b"x" * 10_000])
def test_trailers_without_end_are_not_read(live: Live, endless: bytes) -> None:
    with live.socket() as connection:
        connection.sendall(post(CHUNKED, body=CHUNKS[:-2] + b"X: "))
        for _ in range(10_000):
            try:
                connection.sendall(endless)
            except (BrokenPipeError, ConnectionResetError):
                return
    raise AssertionError("they were read")


# -- one after the other ---------------------------------------------------------------------------------------------


def test_what_is_no_request_is_not_answered_in_the_middle_of_an_answer(live: Live) -> None:
    begin = request_bytes("POST", "/sessions", json.dumps({"code": "await tools.wait({})"}).encode())
    with live.socket() as connection:
        connection.sendall(begin)
        answer = read_until(connection, b'"type":"tool_progress"')
        connection.sendall(b"\x00" * 100)
        answer += read_all(connection)
    assert answer.count(b"HTTP/1.1") == 1
    found = answer_of(answer)
    assert found is not None
    assert not found.whole, "the client has to see that the stream was cut"


def test_a_client_that_leaves_with_its_next_request_sent_ahead_is_noticed(shop: Broker) -> None:
    begin = request_bytes("POST", "/sessions", json.dumps({"code": "await tools.wait({})"}).encode())
    with serving(shop, timing=Timing(watch=0.05)) as live:
        with live.socket() as connection:
            connection.sendall(begin + get())
            read_until(connection, b'"type":"tool_call"')
        live.until(lambda: not live.server.server_state.tasks)


UPGRADES = [
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],  # Java's client
    ["Connection: Upgrade", "Upgrade: websocket"],
]


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 400])
def test_the_body_of_a_request_that_asks_for_another_protocol_is_read(
    server: Live, upgrade: list[str], pieces: int, *, chunked: bool
) -> None:
    body = b'{"code":"return 1","stream":false}'
    head = request_bytes(
        "POST", "/sessions", b"", JSON, *upgrade, CHUNKED if chunked else f"Content-Length: {len(body)}"
    )
    begin = head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)
    whole = begin + begin + get()
    with server.socket() as connection:
        step = len(whole) // pieces + 1
        for at in range(0, len(whole), step):
            connection.sendall(whole[at : at + step])
        answer = read_all(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"] * 3
    assert answer.count(b'"result":1') == 2


def test_a_request_that_comes_a_byte_at_a_time_is_read(server: Live) -> None:
    with server.socket() as connection:
        for byte in post(LENGTH):
            connection.sendall(bytes([byte]))
        assert status(read_all(connection)) == 200
