"""A broker in somebody else's application: under a path, its life within theirs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.applications import Starlette

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.app import http_app, running
from enclave_broker.broker.http.auth import Authenticate
from enclave_broker.types.errors import ConfigurationError

__all__ = ["mount"]


def mount(
    broker: Broker,
    app: Starlette,
    path: str,
    *,
    auth: Authenticate | None = None,
    mcp: bool = False,
    console: bool = True,
    metrics_role: str = "metrics",
    allowed_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = ("localhost", "127.0.0.1"),
) -> None:
    """Serve the broker below `path` of a Starlette or FastAPI application, and run it while that runs.

    It starts before what the application's own lifespan starts, and ends after it. Raises ConfigurationError.
    """
    if not isinstance(app, Starlette):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(
            f"a broker is mounted into a Starlette or FastAPI application, not {type(app).__name__}"
        )
    if not path.startswith("/") or not path.strip("/"):
        raise ConfigurationError(f"the path to mount at is like /enclave, not {path!r}")
    app.mount(
        path.rstrip("/"),
        http_app(
            broker,
            auth=auth,
            mcp=mcp,
            console=console,
            metrics_role=metrics_role,
            allowed_origins=allowed_origins,
            allowed_hosts=allowed_hosts,
        ),
    )
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(host: Any) -> AsyncGenerator[Any]:
        async with running(broker), inner(host) as state:
            yield state

    app.router.lifespan_context = lifespan
