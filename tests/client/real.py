"""The real broker for the client's tests: served on a socket, and a proxy before it that cuts what it passes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat

from enclave_broker import Broker
from enclave_broker.broker.http.server import Server


@asynccontextmanager
async def served(broker: Broker) -> AsyncGenerator[str]:
    """The URL at which it is served, in this loop."""
    started = asyncio.Event()
    server = Server(broker, broker.http_app(), on_started=started.set)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await started.wait()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def cutting(url: str, cuts: Sequence[int]) -> AsyncGenerator[str]:
    """A URL whose first connections are reset after so many bytes of the answers, one number each."""
    port = int(url.rpartition(":")[2])
    allowed = chain(cuts, repeat(1 << 60))
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (data := await reader.read(65_536)):
            writer.write(data[:left])
            left -= len(data)
            await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", port)
        asking = asyncio.create_task(pass_on(reader, onward, 1 << 60))
        try:
            with suppress(ConnectionError):
                await pass_on(there, writer, next(allowed))
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            for each in (writer, onward):
                each.transport.abort()
                with suppress(ConnectionError):
                    await each.wait_closed()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connect(reader, writer))
        tasks.add(task)
        await asyncio.wait([task])

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
