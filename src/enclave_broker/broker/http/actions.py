"""What a server says of itself: its tools (code/actions), how it is (healthz, readyz), its API (openapi.json, docs)."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.calls.policy import facts_about, may_call
from enclave_broker.broker.http.docs_page import DOCS_HEADERS, docs_page
from enclave_broker.broker.http.errors import HttpError, json_response
from enclave_broker.broker.http.gate import admitted
from enclave_broker.broker.http.openapi import openapi_document
from enclave_broker.broker.tools.tool import Tool

__all__ = ["Actions"]

NOT_RUNNING = "the broker isn't running: use broker.mount(app, path), which starts and ends it with the application"
_NO_SERVICE = "default"  # of tools without a namespace; EnclaveJS says the same


class Actions:
    """Handlers of the paths beside /sessions."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._made = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def actions(self, request: Request) -> Response:
        """The tools that whoever asks may call, as far as a name tells. `version` is that of the whole catalog."""
        broker, principal = self._broker, admitted(request).principal
        facts = None if broker.access is None else await facts_about(broker.context, principal, {})
        actions = [
            _action(tool)
            for tool in broker.tools
            if not tool.is_pattern
            and may_call(broker.access, facts, principal, tool.name, requires_auth=tool.requires_auth)
        ]
        count = Counter(action["service"] for action in actions)
        services = [
            {"name": name, "specUrl": "", "lastUpdated": self._made, "actionCount": number}
            for name, number in sorted(count.items())
        ]
        return json_response({"actions": actions, "services": services, "version": broker.catalog_version})

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        return json_response({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Sessions can be begun."""
        if not self._broker.running:
            raise HttpError("NOT_RUNNING", NOT_RUNNING)
        if self._broker.shutting_down:
            raise HttpError("SHUTTING_DOWN", "the server is shutting down")
        return json_response({"status": "ready"})

    async def openapi(self, request: Request) -> Response:
        return json_response(openapi_document(_base(request)))

    async def docs(self, request: Request) -> Response:
        return Response(docs_page(openapi_document(_base(request))), 200, DOCS_HEADERS, "text/html")


def _base(request: Request) -> str:
    """Where the application is mounted, for paths that a client can use."""
    return request.scope.get("root_path", "") or "/"


def _action(tool: Tool) -> dict[str, Any]:
    service, colon, _ = tool.name.partition(":")
    action = {"name": tool.name, "inputSchema": tool.input_schema, "service": service if colon else _NO_SERVICE}
    described = {"description": tool.description} if tool.description else {}
    return action | described | {"tags": [tool.effect]}
