"""GET /metrics: Prometheus text about the broker as a whole.

Its totals span principals and tenants. So whoever is known needs a role to read it, and for everybody else there is
nothing at this path, in the same words as for any other; without authentication everybody reads it.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.endpoint import Endpoint
from enclave_broker.broker.http.errors import error_response
from enclave_broker.broker.http.gate import admitted
from enclave_broker.broker.telemetry.counters import Counters, Levels
from enclave_broker.runtime.budget import memory_of

__all__ = ["Metrics"]

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Endpoint):
    """`role` is what a principal needs; None where nobody is asked who they are."""

    def __init__(self, broker: Broker, role: str | None) -> None:
        super().__init__(GET=self._metrics)
        self._broker = broker
        self._role = role

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._role is None or self._role in admitted(Request(scope)).principal.roles:
            await super().__call__(scope, receive, send)
        else:
            await error_response(HTTPException(404))(scope, receive, send)

    async def _metrics(self, request: Request) -> Response:
        counters, levels = self._broker.telemetry.counters.copy(), _levels(self._broker)
        # Off the loop: with many tools it is a long text.
        text = await asyncio.to_thread(_text, counters, levels)
        return Response(text, 200, {"Cache-Control": "no-cache"}, _CONTENT_TYPE)


def _text(counters: Counters, levels: Levels) -> bytes:
    # Its library takes a tenth of a second to load, which only who is scraped spends.
    from enclave_broker.broker.telemetry.metrics import prometheus_text  # noqa: PLC0415

    return prometheus_text(counters, levels)


def _levels(broker: Broker) -> Levels:
    sessions, workers = broker.sessions.list(limit=None), broker.telemetry.workers()
    return Levels(
        sessions_open=sum(not session.closed for session in sessions),
        sessions_kept=len(sessions),
        log_bytes=sum(session.log.size_bytes for session in sessions),
        workers=len(workers),
        workers_memory_bytes=memory_of(workers),
    )
