"""The endpoints of sessions: what a request asks for, handed to the broker, and what it says, as the wire has it.

Owns no state but which body a client's own session id was first sent with. A session runs whoever watches it: what is
answered here are readers of its log.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.bodies import read_body, read_json
from enclave_broker.broker.http.call_list import CallList
from enclave_broker.broker.http.endpoint import Handler
from enclave_broker.broker.http.errors import json_response
from enclave_broker.broker.http.gate import admitted
from enclave_broker.broker.http.leftovers import Leftovers
from enclave_broker.broker.http.streaming import ONLY_FINAL, Counted, EventStream, OneObject, wanted_form
from enclave_broker.broker.http.timing import Timers
from enclave_broker.broker.sessions.session import Session
from enclave_broker.stream.filters import EventFilter
from enclave_broker.types.errors import (
    ConfigurationError,
    OverloadedError,
    SessionExistsError,
    SessionNotFoundError,
    ToolError,
)
from enclave_broker.types.principal import Principal
from enclave_broker.types.requests import (
    InvalidRequestError,
    SessionRequest,
    ToolResultRequest,
    clamp,
    parse_cancel,
    parse_session_request,
    parse_tool_result,
)

__all__ = ["Sessions", "body_limits"]

MIN_BODY_BYTES = 1 << 20  # of POST /sessions: room for metadata, a filter and a list of tools beside the code
MAX_CANCEL_BYTES = 16_384
MAX_PAGE = 1_000
_ESCAPED = 2  # JSON may write one byte of a text or a value as more; this much is met in practice
_ENVELOPE_BYTES = 65_536
_STATES = ("starting", "running", "waiting_for_tool", "completed", "cancelled", "failed")
_NUMBER = re.compile(r"\s*\+?(\d{1,300})", re.ASCII)  # what JavaScript's parseInt takes; longer is no request's
_LAST_SEQ = 2**53


def body_limits(broker: Broker) -> tuple[int, int]:
    """Bytes that a body of POST /sessions and one of …/tool-result may have."""
    limits = broker.limits
    session = max(MIN_BODY_BYTES, limits.max_code_bytes * _ESCAPED + _ENVELOPE_BYTES)
    return session, limits.max_tool_result_bytes * _ESCAPED + _ENVELOPE_BYTES


class Sessions:
    """Handlers of the paths below /sessions."""

    def __init__(self, broker: Broker, timers: Timers) -> None:
        self._broker = broker
        self._timers = timers
        self._session_bytes, self._result_bytes = body_limits(broker)
        self._bodies: WeakKeyDictionary[Session, bytes] = WeakKeyDictionary()
        """Hashes of the bodies that came with a session id."""
        self._opening: dict[tuple[str | None, str, str], asyncio.Future[None]] = {}
        self._leftovers = Leftovers(self._is_kept)

    # -- POST /sessions --------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        return await self._counted(request, self._create)

    async def _create(self, request: Request) -> Response:
        entry = admitted(request)
        body = await read_json(request, self._session_bytes, self._timers)
        asked = parse_session_request(body)
        form = wanted_form(entry.accept, stream=asked.stream)
        filter = None if asked.filter is None else EventFilter.parse(asked.filter)
        if asked.session_id is None:
            session = await self._open(asked, entry.principal)
        else:
            session = await self._open_or_join(asked, asked.session_id, body, entry.principal)
        cursor = session.cursor(filter=ONLY_FINAL if form == "object" else filter, sse=form == "sse")
        try:
            await self._durable(session)
        except BaseException:
            cursor.close()
            raise
        if form == "object":
            return OneObject(cursor, session.id, self._timers)
        return EventStream(cursor, session, self._timers, self._leftovers, form=form, linger=True)

    async def _open(self, asked: SessionRequest, principal: Principal) -> Session:
        """A new session that runs the code. Nothing is left of one that can't."""
        language = asked.language or "javascript"
        if language not in self._broker.languages:
            known = ", ".join(self._broker.languages)
            raise InvalidRequestError("language", f"must be one of {known}, not {language[:80]!a}")
        try:
            session = await self._broker.open_session(
                clamp(asked.limits, self._broker.limits),
                allowed_tools=asked.allowed_tools,
                principal=principal,
                metadata=asked.metadata,
                session_id=asked.session_id,
                detached=asked.detach,
            )
        except ConfigurationError as error:
            raise InvalidRequestError("allowedTools", f"can't be used: {error.message}") from None
        try:
            session.begin(asked.code, language)
        except BaseException:
            await self._broker.sessions.destroy_for(principal, session.id)
            raise
        return session

    async def _open_or_join(self, asked: SessionRequest, id: str, body: bytes, principal: Principal) -> Session:
        """The session of an id that the client has chosen: a request that comes again finds what it has begun.

        Raises SessionExistsError for one that was begun with another body.
        """
        key = (principal.tenant, principal.subject, id)
        while (opening := self._opening.get(key)) is not None:
            await asyncio.shield(opening)
        digest = hashlib.sha256(body).digest()
        done = self._opening[key] = asyncio.get_running_loop().create_future()
        try:
            session = await self._open(asked, principal)
        except SessionExistsError as exists:
            try:
                session = self._broker.sessions.find_for(principal, id)
            except SessionNotFoundError:
                raise exists from None
            if self._bodies.get(session) != digest:
                raise
        else:
            self._bodies[session] = digest
        finally:
            del self._opening[key]
            done.set_result(None)
        return session

    # -- GET -------------------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        principal = admitted(request).principal
        state = request.query_params.get("state")
        if state is not None and state not in _STATES:
            raise InvalidRequestError("state", f"must be one of {', '.join(_STATES)}")
        after, limit = request.query_params.get("after"), _page_size(request.query_params.get("limit"))
        found = self._broker.sessions.list_for(principal, state=state)
        page = _page(found, after, limit)
        return json_response({"sessions": [session.info() for session in page], "total": len(found)})

    async def show(self, request: Request) -> Response:
        return json_response(self._find(request).info())

    async def stream(self, request: Request) -> Response:
        return await self._counted(request, self._stream)

    async def _stream(self, request: Request) -> Response:
        entry = admitted(request)
        session = self._find(request)
        query = request.query_params
        filter = EventFilter.parse_json(query["filter"]) if query.get("filter") else None
        sse = wanted_form(entry.accept, stream=True) == "sse"
        asked = query.get("fromSeq") or query.get("from")
        # A browser's EventSource keeps the address, `fromSeq` and all, when it connects again.
        goes_on = entry.last_event_id and (sse or asked is None)
        last = _number(entry.last_event_id.decode("latin-1")) if goes_on else None
        from_seq = _number(asked or "") if last is None else last + 1
        cursor = session.cursor(max(from_seq, 1), filter=filter, sse=sse)
        answer = EventStream(cursor, session, self._timers, self._leftovers, form="sse" if sse else "ndjson")
        if sse and last is not None and answer.is_empty:
            cursor.close()
            return Response(status_code=204)  # it has all there is: a browser's EventSource would ask for ever
        return answer

    async def calls(self, request: Request) -> Response:
        return await self._counted(request, self._calls)

    async def _calls(self, request: Request) -> Response:
        return CallList(self._find(request), self._timers, self._leftovers)

    # -- changes ---------------------------------------------------------------------------------------------------

    async def cancel(self, request: Request) -> Response:
        """Clients send the body as text/plain, so its content type isn't looked at."""
        session = self._find(request)
        asked = parse_cancel(await read_body(request, MAX_CANCEL_BYTES, self._timers))
        await session.cancel(asked.reason or "")
        await self._durable(session)
        return json_response({"success": True})

    async def delete(self, request: Request) -> Response:
        session = self._find(request)
        await self._broker.sessions.destroy_for(session.principal, session.id)
        await self._durable(session)
        return json_response({"success": True, "sessionId": session.id})

    async def tool_result(self, request: Request) -> Response:
        session = self._find(request)
        asked = parse_tool_result(await read_json(request, self._result_bytes, self._timers))
        first = session.answer_nowait(asked.call_id, asked.ok, _answer(asked))
        await self._durable(session)
        return json_response({"success": first, "callId": asked.call_id})

    async def _counted(self, request: Request, handler: Handler) -> Response:
        """An answer that may last: it is one of the principal's streams until it has ended."""
        release = self._broker.sessions.shares.take_stream(admitted(request).principal)
        if release is None:
            return await handler(request)
        try:
            return Counted(await handler(request), release)
        except BaseException:
            release()
            raise

    async def _durable(self, session: Session) -> None:
        """What has been done is said when it can't be lost any more. Raises OverloadedError if that takes too long."""
        writing = session.durable()
        if writing is None:
            return
        try:
            async with asyncio.timeout(self._timers.timing.durable):
                await writing
        except TimeoutError:
            raise OverloadedError("the store is slow: what was asked for may have been done", retry_after=5) from None

    def _is_kept(self, session: Session) -> bool:
        try:
            return self._broker.sessions.find_for(session.principal, session.id) is session
        except SessionNotFoundError:
            return False

    def _find(self, request: Request) -> Session:
        """Raises SessionNotFoundError, also for somebody else's."""
        return self._broker.sessions.find_for(admitted(request).principal, request.path_params["id"])


def _answer(asked: ToolResultRequest) -> Any:
    """The value of a client's tool, or the error that the script gets."""
    if asked.error is None:
        return asked.result
    return ToolError(asked.error.message, code=asked.error.code, details=asked.error.details)


def _number(text: str) -> int:
    """What JavaScript's parseInt makes of it; 0 for what is no number, or below."""
    found = _NUMBER.match(text)
    return min(int(found[1]), _LAST_SEQ) if found else 0


def _page_size(text: str | None) -> int:
    if text is None:
        return MAX_PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidRequestError("limit", f"must be a whole number from 1 to {MAX_PAGE:,}")
    return int(text)


def _page(found: Sequence[Session], after: str | None, limit: int) -> Sequence[Session]:
    """The next `limit` behind the session `after`; none behind one that is gone."""
    if after is None:
        return found[:limit]
    at = next((at for at, session in enumerate(found) if session.id == after), len(found))
    return found[at + 1 : at + 1 + limit]
