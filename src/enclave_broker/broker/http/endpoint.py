"""One path and its methods as an ASGI application: the edge where exceptions become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from enclave_broker.broker.http.errors import HttpError, error_response

__all__ = ["Endpoint", "Handler"]

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """`GET` answers HEAD, too; OPTIONS is the gate's. A plain Starlette route would know one method in `Allow`."""

    def __init__(self, **handlers: Handler) -> None:
        self.methods = tuple(handlers)
        self._handlers = handlers | ({"HEAD": handlers["GET"]} if "GET" in handlers else {})
        self._allow = ", ".join([*self._handlers, "OPTIONS"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        handler = self._handlers.get(method)
        try:
            if handler is None:
                raise HttpError("METHOD_NOT_ALLOWED", f"this path has {self._allow}", headers={"Allow": self._allow})
            response = await handler(Request(scope, receive))
        except Exception as error:  # noqa: BLE001 the edge
            response = error_response(error)
        await response(scope, receive, send)
