"""The ASGI application of a broker: its routes, and a lifespan that starts and ends the broker.

Called by `Broker.http_app`, by mount.py and by the command line. What a route does is sessions.py's and actions.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.actions import NOT_RUNNING, Actions
from enclave_broker.broker.http.approvals import ApprovalEndpoints
from enclave_broker.broker.http.auth import Authenticate
from enclave_broker.broker.http.console import console_routes
from enclave_broker.broker.http.endpoint import Endpoint, Handler
from enclave_broker.broker.http.errors import HttpError, error_response
from enclave_broker.broker.http.gate import Gate, Policy
from enclave_broker.broker.http.metrics import Metrics
from enclave_broker.broker.http.sessions import Sessions, body_limits
from enclave_broker.broker.http.timing import Timers, Timing
from enclave_broker.types.errors import ConfigurationError

__all__ = ["http_app", "running"]


def http_app(
    broker: Broker,
    *,
    auth: Authenticate | None = None,
    mcp: bool = False,
    console: bool = True,
    metrics_role: str = "metrics",
    allowed_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    timing: Timing | None = None,
) -> Starlette:
    """The application; its lifespan runs the broker, unless somebody else does.

    `auth` says who is asking; None lets everybody in, as nobody known. `allowed_hosts` are the names by which the
    server may be called, `allowed_origins` the browser pages that may use it. `console` is the page at /console.
    `metrics_role` is the role that a principal needs for /metrics, whose totals span tenants; without `auth` everybody
    reads it. Raises ConfigurationError.
    """
    if mcp:
        raise ConfigurationError("mcp=True isn't supported yet")
    times = timing or Timing()
    policy = Policy(
        auth=auth,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
        max_body_bytes=max(body_limits(broker)),
        auth_seconds=times.auth,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with running(broker):
            yield

    routes = _routes(broker, Timers(times)) + (console_routes() if console else [])
    routes.append(Route("/metrics", Metrics(broker, None if auth is None else metrics_role)))
    app = _Application(routes=routes, middleware=[Middleware(Gate, policy)], lifespan=lifespan)
    app.router.redirect_slashes = False  # to a path that isn't there, in the client's own words
    app.router.default = _not_found
    return app


class _Application(Starlette):
    """Without Starlette's two layers that make answers of exceptions: the gate and every endpoint do so themselves."""

    def build_middleware_stack(self) -> ASGIApp:
        sessions = next(route for route in self.routes if isinstance(route, Route) and route.path == "/sessions")

        async def routed(scope: Scope, receive: Receive, send: Send) -> None:
            # The path that is asked for most, where nothing is mounted above it: the router costs as much as the gate.
            shortcut = scope["type"] == "http" and scope["path"] == "/sessions" and not scope.get("root_path")
            await (sessions.app if shortcut else self.router)(scope, receive, send)

        app: ASGIApp = routed
        for layer, args, options in reversed(self.user_middleware):
            app = layer(app, *args, **options)
        return app


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    answer = WebSocketClose() if scope["type"] == "websocket" else error_response(HTTPException(404))
    await answer(scope, receive, send)


def _routes(broker: Broker, timers: Timers) -> list[BaseRoute]:
    """The first is the one that is asked for most."""
    sessions, actions = Sessions(broker, timers), Actions(broker)
    approvals = ApprovalEndpoints(broker, timers)

    def of_running(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if not broker.running:
                raise HttpError("NOT_RUNNING", NOT_RUNNING)
            return await handler(request)

        return handle

    def route(path: str, **handlers: Handler) -> Route:
        return Route(path, Endpoint(**{method: of_running(handler) for method, handler in handlers.items()}))

    return [
        route("/sessions", POST=sessions.create, GET=sessions.list),
        route("/sessions/{id}/stream", GET=sessions.stream),
        route("/sessions/{id}", GET=sessions.show, DELETE=sessions.delete),
        route("/sessions/{id}/cancel", POST=sessions.cancel),
        route("/sessions/{id}/tool-result", POST=sessions.tool_result),
        route("/sessions/{id}/calls", GET=sessions.calls),
        route("/approvals", GET=approvals.list),
        route("/approvals/{id}", GET=approvals.show, POST=approvals.decide),
        route("/code/actions", GET=actions.actions),
        Route("/healthz", Endpoint(GET=actions.healthz)),
        Route("/readyz", Endpoint(GET=actions.readyz)),
        Route("/openapi.json", Endpoint(GET=actions.openapi)),
        Route("/docs", Endpoint(GET=actions.docs)),
    ]


@contextlib.asynccontextmanager
async def running(broker: Broker) -> AsyncGenerator[None]:
    """The broker runs within this, and at a signal to end each stream gets its final at once.

    A server tells an application to end only after all connections have: they would wait for each other.
    """
    if broker.running:  # the host runs it already, and ends it
        with _at_signal(broker.shut_down):
            yield
        return
    async with broker:
        with _at_signal(broker.shut_down):
            yield
        broker.shut_down()


@contextlib.contextmanager
def _at_signal(callback: Callable[[], None]) -> Generator[None]:
    """Call it in this loop at SIGTERM and SIGINT, before the server's own handler, which is there already.

    Signals reach only the main thread: in another, whoever runs the server has to call `broker.shut_down()`.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        previous = before[number]
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:  # nobody else ends the process
            signal.signal(number, signal.SIG_DFL)
            loop.call_soon_threadsafe(os.kill, os.getpid(), number)

    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.getsignal(number)
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, previous)
