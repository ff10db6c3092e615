"""Readers of many streams over real sockets, in a process of their own that does nothing but drain.

python bench/http_readers.py PORT COUNT LINES REQUEST

Opens COUNT connections, sends REQUEST on each and prints "ready" when each has had LINES lines. Ends when all streams
have, or stdin is closed; then prints, as JSON, how many streams had a proper end, and the least and most of lines.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

AT_ONCE = 64  # connections whose first lines have not come
END = b"\r\n0\r\n\r\n"
BUFFER_BYTES = 1 << 18


class Stream:
    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.send(request)
        self.lines = 0
        self.tail = b""

    @property
    def ended(self) -> bool:
        return self.tail.endswith(END)

    def take(self, data: memoryview) -> None:
        piece = bytes(data)
        self.lines += piece.count(b"\n") - piece.count(b"\r")  # line breaks of HTTP itself have both
        self.tail = (self.tail + piece[-len(END) :])[-len(END) :]


def read(port: int, count: int, wanted: int, request: bytes) -> None:
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    streams: list[Stream] = []
    settled = live = 0
    told = ending = False
    while not ending and (live or len(streams) < count):
        while len(streams) < count and len(streams) - settled < AT_ONCE:
            stream = Stream(port, request)
            streams.append(stream)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            live += 1
        for key, _ in selector.select():
            stream = key.data
            if stream is None:
                ending = True
                continue
            before = stream.lines
            size = stream.socket.recv_into(buffer)
            stream.take(buffer[:size])
            settled += before < wanted <= stream.lines
            if not size or stream.ended:
                selector.unregister(stream.socket)
                live -= 1
        if settled == count and not told:
            told = True
            print("ready", flush=True)
        time.sleep(0.001)  # what has gathered is read together: fewer wake-ups beside the server
    lines = [stream.lines for stream in streams]
    print(json.dumps({"ended": sum(stream.ended for stream in streams), "least": min(lines), "most": max(lines)}))


if __name__ == "__main__":
    read(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode())
