"""A thousand readers of one session, and readers that never read: each has everything, or costs only what it holds."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.http.cut import answer_of
from tests.http.live import SECONDS, final, read_until, request_bytes
from tests.http.served import Served, served

READERS = 1_000
STUCK = 100
MEBIBYTE = 1 << 20
APP = """\
import asyncio
from enclave_broker import Broker, SessionLimits

broker = Broker(limits=SessionLimits(max_stdout_bytes=16_000_000))
gate = asyncio.Event()

@broker.tool("gate:open")
async def open() -> None:
    gate.set()

@broker.tool("gate:pass", timeout=60)
async def pass_gate() -> None:
    await gate.wait()
"""
SCRIPT = "await tools.gate.pass({}); for (let i = 0; i < LINES; i++) { console.log(String(i).padEnd(WIDTH)); PAUSE }"
FOLLOW = request_bytes("GET", "/sessions/s_1/stream", b"", "Connection: close")


def begin(server: Served, lines: int, width: int, pause: str = "") -> httpx.Response:
    code = SCRIPT.replace("LINES", str(lines)).replace("WIDTH", str(width)).replace("PAUSE", pause)
    with server.client.stream("POST", "/sessions", json={"code": code, "sessionId": "s_1"}) as response:
        return response  # and leave


def open_gate(server: Served) -> None:
    assert final(server.client.post("/sessions", json={"code": "await tools.gate.open({})"}))["ok"] is True


def port_of(server: Served) -> int:
    return httpx.URL(server.url).port or 0


def memory_of(server: Served) -> int:
    """Bytes of the server process that are its own; its workers are others."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@contextmanager
def never_reading(port: int) -> Generator[socket.socket]:
    """A reader that has its first event and reads no more."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", port))
        connection.sendall(FOLLOW)
        read_until(connection, b"session_init")
        yield connection


async def read_all(server: Served, count: int) -> list[bytes]:
    """What so many readers get, all of whom were there before the gate was opened."""
    streams = [await asyncio.open_connection("127.0.0.1", port_of(server)) for _ in range(count)]
    for _, writer in streams:
        writer.write(FOLLOW)
    heads = [await reader.readuntil(b'"type":"session_init"') for reader, _ in streams]
    await asyncio.to_thread(open_gate, server)
    rests = await asyncio.gather(*[reader.read() for reader, _ in streams])
    for _, writer in streams:
        writer.close()
    return [head + rest for head, rest in zip(heads, rests, strict=True)]


def test_each_of_a_thousand_readers_has_everything_and_one_that_never_reads_holds_nobody_up(tmp_path: Path) -> None:
    with served(tmp_path, app=APP) as server:
        begin(server, 300, 200, "if (i % 30 === 0) { await sleep(10); }")
        with never_reading(port_of(server)):
            raws = asyncio.run(read_all(server, READERS - 1))
        answers = {answer_of(re.sub(rb"\r\ndate: [^\r]*", b"", raw)) for raw in raws}
        bodies = {answer.body for answer in answers if answer is not None and answer.whole}
        assert len(answers) == len(bodies) == 1, "all have the same, to the end"
        [body] = bodies
        events = [json.loads(line) for line in body.splitlines()]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        chunks = [event["payload"]["chunk"] for event in events if event["type"] == "stdout"]
        assert [int(chunk) for chunk in chunks] == list(range(300))
        assert [event["type"] for event in events].index("final") == len(events) - 1
        assert server.client.get("/readyz").status_code == 200


def test_readers_that_never_read_hold_no_more_than_their_buffers(tmp_path: Path) -> None:
    with served(tmp_path, app=APP) as server, ExitStack() as stuck:
        begin(server, 4_000, 2_000)
        for _ in range(STUCK):
            stuck.enter_context(never_reading(port_of(server)))
        before = memory_of(server)
        [raw] = asyncio.run(read_all(server, 1))
        assert len(raw) > 8_000_000
        assert server.client.get("/sessions/s_1").json()["state"] == "completed"
        # The log twice, as records and as lines; each reader two chunks of 64 KiB, not the 8 MB that it hasn't read.
        assert memory_of(server) - before < 60 * MEBIBYTE
