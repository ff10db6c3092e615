"""A request's body: all of it, within a size and a time. What stands in it is types/requests.py's."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import Receive

from enclave_broker.broker.http.errors import HttpError
from enclave_broker.broker.http.gate import admitted
from enclave_broker.broker.http.timing import Timers

__all__ = ["read_body", "read_json"]

_READ_ON = 8
"""How much of a body that is too large is read, times what is allowed: who is cut off while sending reads no answer."""
_UTF8 = {b"utf-8", b"utf8", b'"utf-8"', b'"utf8"'}


async def read_json(request: Request, max_bytes: int, timers: Timers) -> bytes:
    """The body of a request that says it is JSON: a form on somebody else's page can't say so.

    Raises HttpError for another content type, and as `read_body` does.
    """
    kind, *parameters = admitted(request).content_type.lower().split(b";")
    if kind.strip() != b"application/json":
        raise HttpError("UNSUPPORTED_MEDIA_TYPE", "the body has to be JSON, with Content-Type: application/json")
    for parameter in parameters:
        name, _, value = parameter.strip().partition(b"=")
        if name == b"charset" and value not in _UTF8:
            raise HttpError("UNSUPPORTED_MEDIA_TYPE", "JSON is UTF-8")
    return await read_body(request, max_bytes, timers)


async def read_body(request: Request, max_bytes: int, timers: Timers) -> bytes:
    """The whole body. Raises HttpError for one that is larger, takes longer, or is cut off."""
    length = admitted(request).content_length
    if length is not None and length > max_bytes * _READ_ON:
        raise _too_large(max_bytes)
    task = asyncio.current_task()
    assert task is not None
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    # An alarm of the wheel costs a tenth of asyncio.timeout, and every POST comes by here.
    alarm = timers.watch.after(timers.timing.body, give_up)
    try:
        return await _read(request.receive, max_bytes)
    except asyncio.CancelledError:
        if not late or task.uncancel() > 0:
            raise
        seconds = f"{timers.timing.body:g}"
        raise HttpError("REQUEST_TIMEOUT", f"the body wasn't there after {seconds} seconds") from None
    finally:
        alarm.cancel()


async def _read(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError("INVALID_REQUEST", "the body was cut off")  # nobody is there to read this
        part: bytes = message.get("body", b"")
        size += len(part)
        ended = not message.get("more_body", False)
        if size > max_bytes:
            parts.clear()
            if ended or size > max_bytes * _READ_ON:
                raise _too_large(max_bytes)
        elif ended:
            return b"".join([*parts, part]) if parts else part
        else:
            parts.append(part)


def _too_large(max_bytes: int) -> HttpError:
    return HttpError("PAYLOAD_TOO_LARGE", f"this body has {max_bytes:,} bytes at most")
