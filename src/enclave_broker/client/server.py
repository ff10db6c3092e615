"""The broker's endpoints as calls: paths, credentials and bounds of requests, answers as values.

Owns what a request looks like and how long its answer may take; following a stream is streams.py's. One a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from enclave_broker.client.errors import error_of
from enclave_broker.client.transport import Reply, Request, Transport
from enclave_broker.types.approval import Approval
from enclave_broker.types.bounded_json import WireError, decode_json, encode_json
from enclave_broker.types.errors import ClientError, ConfigurationError, TransportError
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import CallRecord, Outcome, ScriptError, Stage
from enclave_broker.types.wire import MAX_LINE_BYTES

__all__ = ["Server", "SessionInfo", "ToolInfo"]

T = TypeVar("T")

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_MAX_ERROR_BYTES = 65_536  # of the body of a failure


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the server describes it. `state` is one of the wire's six words; `duration` is in seconds."""

    id: str
    state: str
    created_at: datetime
    expires_at: datetime
    duration: float = 0.0
    tool_call_count: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in {"completed", "cancelled", "failed"}


class ToolInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A tool that scripts can call there."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    service: str = ""
    tags: list[str] = []
    deprecated: bool = False


class _Stats(msgspec.Struct, rename="camel"):
    duration: float = 0.0
    tool_call_count: int = 0


class _Info(msgspec.Struct, rename="camel"):
    session_id: str
    state: str
    created_at: float
    expires_at: float
    stats: _Stats = msgspec.field(default_factory=_Stats)


class _Sessions(msgspec.Struct):
    sessions: list[_Info]


class _Actions(msgspec.Struct):
    actions: list[ToolInfo]


class _Stage(msgspec.Struct):
    stage: str
    at: float


class _Call(msgspec.Struct, rename="camel"):
    call_id: str
    tool_name: str
    args: dict[str, Any]
    outcome: Outcome
    error: ScriptError | None = None
    rule: str | None = None
    started_at: float | None = None
    duration_ms: float | None = None
    args_bytes: int = 0
    result_bytes: int = 0
    by_host: bool = False
    principal: str = ""
    route: str | None = None
    stages: list[_Stage] = []
    decided_by: str | None = None


class _Calls(msgspec.Struct):
    calls: list[_Call]


class _Who(msgspec.Struct):
    subject: str
    tenant: str | None = None


class _Approval(msgspec.Struct, rename="camel"):
    approval_id: str
    session_id: str
    call_id: str
    tool_name: str
    args: dict[str, Any]
    requested_by: _Who
    rule: str
    created_at: float
    expires_at: float


class _Approvals(msgspec.Struct):
    approvals: list[_Approval]


class _Success(msgspec.Struct):
    success: bool = True


class Server:
    """`timeout`: seconds for an answer, or for the head of a stream."""

    def __init__(self, transport: Transport, *, credential: str | None, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._headers = {"user-agent": "enclave-broker"}
        if credential is not None:
            self._headers["authorization"] = f"Bearer {credential}"

    async def aclose(self) -> None:
        await self._transport.aclose()

    # -- streams ---------------------------------------------------------------------------------------------------

    async def start(self, body: bytes) -> Reply:
        """POST /sessions: the stream of a new session, or of the one that this very body has made before."""
        return await self._stream("POST", "/sessions", body)

    async def follow(self, session_id: str, from_seq: int, filter: str | None = None) -> Reply:
        """GET …/stream: the events from `from_seq` on."""
        query = {"fromSeq": str(from_seq)} | ({"filter": filter} if filter is not None else {})
        return await self._stream("GET", _session_path(session_id, "/stream", query))

    async def _stream(self, method: str, target: str, body: bytes = b"") -> Reply:
        async with _bound(self._timeout, method, target):
            reply = await self._send(method, target, body, accept=_NDJSON)
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _NDJSON:
            await reply.aclose()
            what = f"the answer is {kind or 'of no type'}, not {_NDJSON}: is there a broker at this URL?"
            raise ClientError(what, status_code=reply.status)
        return reply

    # -- questions -------------------------------------------------------------------------------------------------

    async def info(self, session_id: str) -> SessionInfo:
        return _session_info(await self._ask("GET", _session_path(session_id), _Info))

    async def sessions(self, *, state: str | None, after: str | None, limit: int | None) -> list[SessionInfo]:
        given = {"state": state, "after": after, "limit": limit}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        found = await self._ask("GET", f"/sessions?{query}" if query else "/sessions", _Sessions)
        return [_session_info(info) for info in found.sessions]

    async def calls(self, session_id: str) -> list[CallRecord]:
        found = await self._ask("GET", _session_path(session_id, "/calls"), _Calls)
        return [_call_record(call) for call in found.calls]

    async def tools(self) -> list[ToolInfo]:
        return (await self._ask("GET", "/code/actions", _Actions)).actions

    async def approvals(self, session_id: str | None) -> list[Approval]:
        query = "" if session_id is None else f"?{urlencode({'session': session_id})}"
        found = await self._ask("GET", f"/approvals{query}", _Approvals)
        return [_approval(each) for each in found.approvals]

    # -- changes ---------------------------------------------------------------------------------------------------

    async def cancel(self, session_id: str, reason: str) -> bool:
        body = {"reason": reason} if reason else {}
        return (await self._ask("POST", _session_path(session_id, "/cancel"), _Success, body)).success

    async def destroy(self, session_id: str) -> None:
        await self._ask("DELETE", _session_path(session_id), _Success)

    async def decide(self, approval_id: str, decision: str, reason: str = "") -> None:
        body = {"decision": decision} | ({"reason": reason} if reason else {})
        await self._ask("POST", f"/approvals/{quote(approval_id, safe='')}", _Success, body)

    async def answer(self, session_id: str, body: Mapping[str, Any] | msgspec.Raw) -> None:
        """POST …/tool-result."""
        await self._ask("POST", _session_path(session_id, "/tool-result"), _Success, body)

    # -- one request -----------------------------------------------------------------------------------------------

    async def _ask(self, method: str, target: str, kind: type[T], body: Any = None) -> T:
        data = b"" if body is None else encode_body(body)
        async with _bound(self._timeout, method, target):
            reply = await self._send(method, target, data, accept=_JSON)
            try:
                text, whole = await _read(reply, MAX_LINE_BYTES)
            finally:
                await reply.aclose()
        if not whole:
            what = f"the answer to {method} {target} has more than {MAX_LINE_BYTES:,} bytes"
            raise ClientError(what, status_code=reply.status)
        try:
            return msgspec.convert(decode_json(text), kind)
        except (WireError, msgspec.ValidationError) as error:
            what = f"the answer to {method} {target} isn't the protocol's: {error}"
            raise ClientError(what, status_code=reply.status) from None

    async def _send(self, method: str, target: str, body: bytes, *, accept: str) -> Reply:
        headers = {**self._headers, "accept": accept}
        if body:
            headers["content-type"] = _JSON
        reply = await self._transport.send(Request(method, target, headers, body))
        if reply.status == 200:
            return reply
        try:
            text, _ = await _read(reply, _MAX_ERROR_BYTES)
        finally:
            await reply.aclose()
        raise error_of(reply.status, reply.headers, text)


@asynccontextmanager
async def _bound(seconds: float, method: str, target: str) -> AsyncGenerator[None]:
    """An answer that takes longer is a TransportError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        what = f"{method} {target.partition('?')[0]} had no answer within {seconds:g} s"
        raise TransportError(what) from None


def encode_body(body: Any) -> bytes:
    """Raises ConfigurationError for what isn't JSON or too large for any server."""
    try:
        return encode_json(body, MAX_LINE_BYTES)
    except WireError as error:
        raise ConfigurationError(str(error)) from None


async def _read(reply: Reply, most: int) -> tuple[bytes, bool]:
    """At most `most` bytes of the body, and whether that is all of it."""
    data = bytearray()
    async for piece in reply:
        data += piece
        if len(data) > most:
            return bytes(data[:most]), False
    return bytes(data), True


def _session_path(session_id: str, rest: str = "", query: Mapping[str, str] | None = None) -> str:
    """Raises ConfigurationError for what is no session's id, before it becomes another path."""
    if not session_id.startswith("s_") or len(session_id) < 3:
        raise ConfigurationError(f"a session's id begins with 's_', which {session_id!r} does not")
    try:
        path = f"/sessions/{quote(session_id, safe=':@')}{rest}"
    except UnicodeEncodeError:
        raise ConfigurationError(f"{session_id!r} is no session's id") from None
    return f"{path}?{urlencode(query)}" if query else path


def _session_info(info: _Info) -> SessionInfo:
    return SessionInfo(
        id=info.session_id,
        state=info.state,
        created_at=_time(info.created_at),
        expires_at=_time(info.expires_at),
        duration=info.stats.duration / 1000,
        tool_call_count=info.stats.tool_call_count,
    )


def _time(milliseconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise ClientError("the server gives a time that no calendar has") from None


def _approval(each: _Approval) -> Approval:
    try:
        requested_by = Principal(each.requested_by.subject, tenant=each.requested_by.tenant)
    except ValueError as error:
        raise ClientError(f"the server gives a principal that is none: {error}") from None
    return Approval(
        id=each.approval_id,
        session_id=each.session_id,
        call_id=each.call_id,
        tool=each.tool_name,
        args=each.args,
        requested_by=requested_by,
        rule=each.rule,
        created_at=_time(each.created_at),
        expires_at=_time(each.expires_at),
    )


def _call_record(call: _Call) -> CallRecord:
    return CallRecord(
        id=call.call_id,
        name=call.tool_name,
        args=call.args,
        outcome=call.outcome,
        error=call.error,
        rule=call.rule,
        started=None if call.started_at is None else call.started_at / 1000,
        duration=None if call.duration_ms is None else call.duration_ms / 1000,
        args_bytes=call.args_bytes,
        result_bytes=call.result_bytes,
        by_host=call.by_host,
        principal=call.principal,
        route=call.route,
        stages=tuple(Stage(each.stage, each.at / 1000) for each in call.stages),
        decided_by=call.decided_by,
    )
