"""What every request passes before anything else of ours runs: one pass over its headers, one middleware.

Owns by which name the server may be called (Host), from where a browser may change things (Origin), how large head and
body may be, CORS, and the principal. Which content type a body has is bodies.py's, since it depends on the endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enclave_broker.broker.http.auth import Authenticate, authenticate
from enclave_broker.broker.http.console import CONSOLE_PATHS
from enclave_broker.broker.http.errors import HttpError, error_response
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.principal import ANONYMOUS, Principal

__all__ = ["Admitted", "Gate", "Policy", "admitted"]

MAX_HEAD_BYTES = 32_768  # of the target and all headers; servers' own limits are from 8 to 64 KiB
_KEY = "enclave_broker"
_ONCE = {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"origin",
    b"authorization",
    b"last-event-id",
}
_SAFE = {"GET", "HEAD", "OPTIONS"}
_PUBLIC = {"/healthz", "/readyz", "/openapi.json", "/docs"} | CONSOLE_PATHS
"""Answered whoever asks: they say nothing of sessions or tools, and a load balancer has no key."""
_MAX_KNOWN_HOSTS = 256
_HOST = re.compile(r"(?:\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])\Z")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?\Z")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Accept, Authorization, Last-Event-ID"),
    (b"access-control-max-age", b"86400"),
]
_EXPOSED = (b"access-control-expose-headers", b"X-Session-ID")


class Admitted:
    """What is known of a request once it is in."""

    __slots__ = ("accept", "content_length", "content_type", "last_event_id", "principal")

    def __init__(self, accept: bytes, content_type: bytes, content_length: int | None, last_event_id: bytes) -> None:
        self.accept = accept
        self.content_type = content_type
        self.content_length = content_length
        self.last_event_id = last_event_id
        self.principal: Principal = ANONYMOUS


def admitted(request: Request) -> Admitted:
    """What the gate has found out about this request."""
    return request.scope[_KEY]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the gate asks. Raises ConfigurationError for a host or an origin that is none.

    A host is a name without port, `*.example.com` for those below one, or `*`; an origin is as browsers send it, or
    `*`.
    """

    auth: Authenticate | None
    allowed_hosts: Sequence[str]
    allowed_origins: Sequence[str]
    max_body_bytes: int
    auth_seconds: float

    def __post_init__(self) -> None:
        for name in ("allowed_hosts", "allowed_origins"):
            if isinstance(getattr(self, name), str):
                raise ConfigurationError(f"{name} is a list or tuple, even of one")
        for host in self.allowed_hosts:
            if not _HOST.match(host.lower()):
                raise ConfigurationError(f"allowed_hosts: {host!r} is no host name without port, no *.name and no *")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.match(origin.lower()):
                raise ConfigurationError(f"allowed_origins: {origin!r} is not like https://example.com, nor *")


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy
        hosts = {host.lower().encode() for host in policy.allowed_hosts}
        self._any_host = b"*" in hosts
        self._hosts = {host for host in hosts if not host.startswith(b"*")}
        self._below = tuple(host[1:] for host in hosts if host.startswith(b"*."))
        self._known: set[bytes] = set()
        """Host headers that have passed, as they came."""
        self._origins = {origin.lower().encode() for origin in policy.allowed_origins}
        self._any_origin = b"*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            found = _headers(scope)
        except HttpError as error:
            await error_response(error)(scope, receive, send)
            return
        origin = found.get(b"origin")
        if origin is not None and (self._any_origin or origin.lower() in self._origins):
            send = _with_headers(send, self._cors(scope, origin))
        try:
            entry = self._check(scope, found)
            if scope["method"] == "OPTIONS":
                await Response(status_code=204)(scope, receive, send)
                return
            if self._policy.auth is not None and _route_path(scope) not in _PUBLIC:
                entry.principal = await authenticate(self._policy.auth, scope, self._policy.auth_seconds)
        except Exception as error:  # noqa: BLE001 the edge
            await error_response(error)(scope, receive, send)
            return
        scope[_KEY] = entry
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, found: dict[bytes, bytes]) -> Admitted:
        host = found.get(b"host", b"")
        if host not in self._known and not self._any_host:
            self._check_host(host)
        origin = found.get(b"origin")
        if origin is not None and scope["method"] not in _SAFE:
            self._check_origin(origin.lower(), host.lower())
        if b"transfer-encoding" in found:
            _check_encoding(scope, found)
        length = _length(found)
        if length is not None and length > self._policy.max_body_bytes:
            raise HttpError("PAYLOAD_TOO_LARGE", f"a body has {self._policy.max_body_bytes:,} bytes at most")
        return Admitted(
            found.get(b"accept", b""), found.get(b"content-type", b""), length, found.get(b"last-event-id", b"")
        )

    def _check_host(self, host: bytes) -> None:
        name, port = _split_host(host.lower())
        if (port and not port.isdigit()) or (name not in self._hosts and not name.endswith(self._below)):
            raise HttpError(
                "FORBIDDEN",
                "this server isn't called by that name: allowed_hosts (--allowed-host) has those that it has",
            )
        if len(self._known) < _MAX_KNOWN_HOSTS:
            self._known.add(host)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        """A page of somebody else's may not change anything with its visitor's network, or cookies, behind it."""
        if not self._any_origin and origin not in self._origins and origin.partition(b"://")[2] != host:
            raise HttpError(
                "FORBIDDEN",
                "pages of this origin may not do that: allowed_origins (--allowed-origin) has those that may",
            )

    def _cors(self, scope: Scope, origin: bytes) -> list[tuple[bytes, bytes]]:
        headers = [(b"access-control-allow-origin", b"*" if self._any_origin else origin), _EXPOSED]
        if not self._any_origin:
            headers.append((b"vary", b"Origin"))
        return headers + _PREFLIGHT if scope["method"] == "OPTIONS" else headers


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The headers that matter, each once; Accept may come in parts."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in _ONCE:
            if name in found:
                raise HttpError("INVALID_REQUEST", f"there is more than one {name.decode()}")
            found[name] = value
        elif name == b"accept":
            found[name] = found[name] + b"," + value if name in found else value
    if size > MAX_HEAD_BYTES:
        raise HttpError("HEADERS_TOO_LARGE", f"address and headers have {MAX_HEAD_BYTES:,} bytes at most")
    return found


def _check_encoding(scope: Scope, found: dict[bytes, bytes]) -> None:
    """Where servers and proxies differ in what they make of it, one request could be hidden in another."""
    if b"content-length" in found:
        raise HttpError("INVALID_REQUEST", "Content-Length and Transfer-Encoding contradict each other")
    if found[b"transfer-encoding"].lower() != b"chunked" or scope["http_version"] == "1.0":
        raise HttpError("INVALID_REQUEST", "the only Transfer-Encoding is chunked, of HTTP/1.1")


def _length(found: dict[bytes, bytes]) -> int | None:
    text = found.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise HttpError("INVALID_REQUEST", "Content-Length is a number of bytes")
    return int(text)


def _split_host(host: bytes) -> tuple[bytes, bytes]:
    """Name and port; an IPv6 address stays in its brackets."""
    if host.startswith(b"["):
        name, bracket, port = host.partition(b"]")
        return name + bracket, port.removeprefix(b":")
    name, _, port = host.partition(b":")
    return name, port


def _route_path(scope: Scope) -> str:
    """The path below the place where the application is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_more
