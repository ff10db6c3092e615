"""The floor: a round trip of one small frame between two processes over a socketpair, from an asyncio protocol."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

ECHO = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
while data := channel.recv(65536):
    channel.sendall(data)
"""
FRAME = b"x" * 64


class _Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.answered: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.answered is not None:
            self.answered.set_result(None)


async def round_trips(count: int) -> list[float]:
    """Microseconds of each round trip."""
    ours, theirs = socket.socketpair()
    child = subprocess.Popen([sys.executable, "-c", ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_connection(_Echo, sock=ours)
    took: list[float] = []
    for _ in range(count):
        echo.answered = loop.create_future()
        before = time.perf_counter()
        transport.write(FRAME)
        await echo.answered
        took.append((time.perf_counter() - before) * 1e6)
    transport.close()
    await asyncio.to_thread(child.wait)
    return took[count // 10 :]
