"""Requests that chance has spoiled: whatever comes over a socket, the server answers in its own words or not at all."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from enclave_broker import SessionLimits
from enclave_broker.broker.http.server import GuardedHttp
from enclave_broker.broker.http.timing import Timing
from tests.http.live import SECONDS, Live, final, memory_broker, request_bytes, serving

SEED = "spoiled requests"
CASES = 4_000
AT_ONCE = 200
PATIENCE = 0.1

_SSE = "Accept: text/event-stream"
_JSON = "Content-Type: application/json"


def _post(path: str, *headers: str, **body: Any) -> bytes:
    return request_bytes("POST", path, json.dumps(body).encode(), *headers)


FILTER = {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": "a+b"}]}}]}
CHUNKED = b'13\r\n{"code":"return 1"}\r\n0\r\nX: y\r\n\r\n'
WHOLE = [
    _post("/sessions", code="console.log('a'); return 1"),
    _post("/sessions", "Connection: close", code="return 1", sessionId="s_1", stream=False),
    _post("/sessions", code="return 2", sessionId="s_1"),
    _post("/sessions", _SSE, code="return await tools.add({ a: 1 })", limits={"maxToolCalls": 3}, filter=FILTER),
    _post("/sessions", code="return 1", config={"maxExecutionMs": 50}, allowedTools=["a*"], metadata={"a": [1]}),
    request_bytes("POST", "/sessions", b"", _JSON, "Transfer-Encoding: chunked") + CHUNKED,
    _post("/sessions/s_1/tool-result", callId="c_1", ok=True, result={"a": 1}),
    _post("/sessions/s_1/cancel", reason="enough"),
    request_bytes("DELETE", "/sessions/s_1"),
    request_bytes("GET", "/sessions?state=completed&limit=3&after=s_1"),
    request_bytes("GET", "/sessions/s_1", b"", "Authorization: Bearer x", "Origin: http://localhost"),
    request_bytes("GET", "/sessions/s_1/stream?fromSeq=2&filter=%7B%22mode%22%3A%22include%22%7D"),
    request_bytes("GET", "/sessions/s_1/stream?from=1", b"", _SSE, "Last-Event-ID: 1"),
    request_bytes("GET", "/sessions/s_1/calls"),
    request_bytes("GET", "/code/actions", b"", "Connection: Upgrade", "Upgrade: h2c"),
    request_bytes("OPTIONS", "/sessions", b"", "Origin: http://a.example", "Access-Control-Request-Method: POST"),
    request_bytes("HEAD", "/sessions/s_1/stream", b"", "Expect: 100-continue"),
]
WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b":", b",", b"%00", b"%ff", b"\xff", b"\xc3\xa9", b"{", b'"'),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: evil\r\n", b"Expect: 100-continue\r\n"),
    *(b"HTTP/1.0", b"HTTP/9.9", b"-1", b"9" * 30, b"null", b"[" * 2_000, b"x" * 40_000, b"../", b"s_", b"\\ud800"),
]


def spoiled(chance: random.Random) -> bytes:
    """One or two requests with a few things wrong, cut off somewhere at times; or bytes of no kind."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randint(0, 2_000))
    data = bytearray(b"".join(chance.choices(WHOLE, k=chance.choice([1, 1, 1, 2]))))
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice([1, 1, 3, 20, 100]))
        match chance.randint(0, 5):
            case 0:
                data[at:end] = chance.randbytes(end - at)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * chance.choice([1, 2, 50])
            case 3:
                data[at:at] = chance.choice(WORDS)
            case 4:
                data[at:end] = chance.choice(WORDS)
            case _:
                data[at:end] = data[at:end].swapcase()
    return bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.1 else data)


class ImpatientHttp(GuardedHttp):
    head_seconds = PATIENCE

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timeout_keep_alive = PATIENCE  # pyright: ignore[reportAttributeAccessIssue] whole seconds otherwise


@pytest.fixture
def impatient() -> Iterator[Live]:
    """Every connection to it ends soon, whatever comes over it."""
    broker = memory_broker(limits=SessionLimits(timeout=0.5))

    @broker.tool("add", effect="read")
    async def add(a: int) -> int:
        return a + 1

    with serving(broker, protocol=ImpatientHttp, timing=Timing(body=PATIENCE, watch=0.05)) as running:
        yield running


async def ask(port: int, data: bytes, chance: random.Random, limit: asyncio.Semaphore) -> bytes:
    """What comes back until the server closes. The bytes go in one piece, or in two."""
    async with limit, asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            cut = chance.choice([0, len(data) // 2])
            writer.write(data[:cut])
            await asyncio.sleep(0)
            writer.write(data[cut:])
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


async def ask_all(port: int) -> list[tuple[bytes, bytes]]:
    limit, chance = asyncio.Semaphore(AT_ONCE), random.Random(SEED)
    cases = [spoiled(chance) for _ in range(CASES)]
    return list(zip(cases, await asyncio.gather(*[ask(port, case, chance, limit) for case in cases]), strict=True))


def test_no_request_makes_the_server_fail(impatient: Live, caplog: pytest.LogCaptureFixture) -> None:
    seen: set[int] = set()
    for request, answer in asyncio.run(ask_all(impatient.port)):
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
        assert all(status < 500 for status in statuses), (request, answer)
        assert b"Traceback" not in answer, (request, answer)
        for error in re.findall(rb'\{"code":.*', answer):
            assert {"code", "message"} <= set(json.JSONDecoder().raw_decode(error.decode())[0]), (request, answer)
        seen.update(statuses)
    assert {200, 204, 400, 403, 404, 405, 408, 409, 415, 431} <= seen, "chance gets everywhere"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    impatient.until(lambda: not impatient.server.server_state.tasks)
    assert final(impatient.post("return 1"))["result"] == 1
