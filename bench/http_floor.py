"""The floor of a request over HTTP: an application that does nothing, in the very server that `serve` runs.

python bench/http_floor.py LINE1 LINE2

It reads the body and sends head, first line and last line, as three messages; same server and protocol class, same
settings, same garbage collection. Prints where it listens, as `serve` does.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from starlette.types import ASGIApp, Receive, Scope, Send

from enclave_broker import Broker
from enclave_broker.broker.http.server import Server
from enclave_broker.cli.serve import _collect_less  # type: ignore[attr-defined]


def application(first: bytes, last: bytes, session_id: bytes) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        while (await receive())["more_body"]:
            pass
        headers = [
            (b"content-type", b"application/x-ndjson"),
            (b"cache-control", b"no-cache"),
            (b"x-session-id", session_id),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await send({"type": "http.response.body", "body": last, "more_body": False})

    return app


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def main() -> None:
    first, last = (line.encode() + b"\n" for line in sys.argv[1:])
    session_id = first.partition(b'"sessionId":"')[2].partition(b'"')[0]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))

    def started() -> None:
        _collect_less()
        print(f"serving at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)

    server = Server(Broker(), application(first, last, session_id), on_started=started)
    asyncio.run(server.serve([listener]))


if __name__ == "__main__":
    main()
