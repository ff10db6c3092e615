"""An ASGI application as the client's server, in this process. The applications here are the bare protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.in_process import InProcessTransport
from enclave_broker.client.life import Lifespan
from enclave_broker.client.transport import NotReachedError, Request
from enclave_broker.types.errors import ConfigurationError, TransportError
from tests.client.events import AT_ONCE, run_of, stdout
from tests.client.server import lines_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RUN = run_of(stdout("one\n"), stdout("two\n"))
GET = Request("GET", "/a%2Fb%20c?q=%C3%BC", {"x-name": "v"})
NDJSON = [(b"Content-Type", b"application/x-ndjson")]


class App:
    """Answers with `steps`, one after the other; keeps what it was asked and how its lifespan went."""

    def __init__(self, *steps: Message | Callable[[], Awaitable[None]] | Exception) -> None:
        self.steps = steps
        self.scopes: list[Message] = []
        self.bodies: list[bytes] = []
        self.life: list[str] = []
        self.received: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{word}"
                self.life.append(word)
                scope["state"]["who"] = "app"
                await send({"type": f"lifespan.{word}.complete"})
            return
        self.scopes.append(scope)
        message = await receive()
        self.bodies.append(message["body"])
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if callable(step):
                await step()
            else:
                await send(step)


def start(status: int = 200, headers: Any = NDJSON) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_request_arrives_as_a_server_would_give_it() -> None:
    app = App(start(201, [(b"X-Word", b"\xe9")]), body(b"ok", more=False))
    transport = InProcessTransport(app, Lifespan(app))
    reply = await transport.send(GET._replace(body=b"data"))
    assert (reply.status, reply.headers, b"".join([piece async for piece in reply])) == (201, {"x-word": "é"}, b"ok")
    await reply.aclose()
    (scope,) = app.scopes
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b c", b"/a%2Fb%20c", b"q=%C3%BC")
    headers = {(b"host", b"localhost"), (b"content-length", b"4"), (b"x-name", b"v")}
    assert set(scope["headers"]) == headers
    assert (app.bodies, scope["state"]) == ([b"data"], {"who": "app"})
    await transport.aclose()


async def test_each_event_is_there_before_the_next_is_made() -> None:
    seen: list[int] = []
    at: list[int] = []

    async def note() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        at.append(len(seen))

    lines = lines_of(*RUN("s_1"))
    steps: list[Any] = [start()]
    for line in lines:
        steps += [body(line), note]
    async with AsyncClient(App(*steps, body(b"", more=False))) as client:
        stream = client.stream("code", session_id="s_1")
        while (event := await anext(stream, None)) is not None:
            seen.append(event.seq)
    assert seen == [1, 2, 3, 4]
    assert at == [1, 2, 3, 4]


async def test_an_application_waits_for_a_client_that_does_not_read() -> None:
    sent: list[int] = []

    async def endless(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send(start())
        while True:
            await send(body(b"x" * 30_000))
            sent.append(30_000)

    transport = InProcessTransport(endless, Lifespan(endless))
    reply = await transport.send(GET)
    for _ in range(50):
        await asyncio.sleep(0)
    assert sum(sent) <= 90_000
    assert len(await anext(aiter(reply))) == 90_000
    await reply.aclose()
    assert await transport.aclose() is None


async def test_an_application_is_told_when_the_client_leaves() -> None:
    told: list[str] = []

    async def watching(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await receive()
        await send(start())
        try:
            told.append((await receive())["type"])
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    transport = InProcessTransport(watching, Lifespan(watching))
    reply = await transport.send(GET)
    await reply.aclose()
    await reply.aclose()
    await transport.aclose()
    assert told in (["http.disconnect"], ["cancelled"])


async def test_an_application_that_fails_before_its_answer_gave_none() -> None:
    async with AsyncClient(App(ValueError("a bug")), reconnection=AT_ONCE) as client:
        with pytest.raises(TransportError, match="the application gave no answer") as caught:
            await client.tools()
        assert isinstance(caught.value.__cause__, ValueError)


async def test_an_application_that_fails_within_its_stream_is_asked_again() -> None:
    lines = lines_of(*RUN("s_1"))

    async def breaking(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        at = 0 if scope["method"] == "POST" else int(scope["query_string"].partition(b"fromSeq=")[2]) - 1
        await send(start())
        await send(body(lines[at]))
        if at < len(lines) - 1:
            raise ValueError("a bug")
        await send(body(b"", more=False))

    async with AsyncClient(breaking, reconnection=AT_ONCE) as client:
        assert [event async for event in client.stream("code", session_id="s_1")] == list(RUN("s_1"))


async def test_closing_the_client_ends_whatever_the_application_still_does() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def hanging(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    client = AsyncClient(hanging)
    asking = asyncio.ensure_future(client.tools())
    await begun.wait()
    await client.aclose()
    with pytest.raises(TransportError):
        await asking
    assert ended == ["ended"]


# -- its lifespan -----------------------------------------------------------------------------------------------------


async def test_the_lifespan_begins_with_the_first_request_and_ends_with_the_client() -> None:
    app = App(start(404, []), body(b"", more=False))
    client = AsyncClient(app)
    assert app.life == []
    for _ in range(2):
        with pytest.raises(Exception, match="404"):
            await client.tools()
    assert app.life == ["startup"]
    await client.aclose()
    assert app.life == ["startup", "shutdown"]


async def test_an_application_that_cannot_start_says_why() -> None:
    async def failing(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def raising(scope: Message, receive: Receive, send: Send) -> None:
        await failing(scope, receive, send)
        raise ValueError("no database at all")

    async def refusing(scope: Message, receive: Receive, send: Send) -> None:
        raise ConfigurationError("the sandbox lacks a wall")

    async with AsyncClient(failing) as client:
        with pytest.raises(NotReachedError, match="can't start: no database"):
            await client.tools()
    async with AsyncClient(raising) as client:
        with pytest.raises(NotReachedError, match="can't start: no database at all"):
            await client.execute("code")
    async with AsyncClient(refusing) as client:
        with pytest.raises(ConfigurationError, match="lacks a wall"):
            await client.tools()


async def test_what_an_application_raises_when_it_ends_is_raised_by_the_close() -> None:
    async def failing(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start(404, []))
            await send(body(b"", more=False))
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("can't close the database")

    client = AsyncClient(failing)
    with pytest.raises(Exception, match="404"):
        await client.tools()
    with pytest.raises(ValueError, match="can't close the database"):
        await client.aclose()
