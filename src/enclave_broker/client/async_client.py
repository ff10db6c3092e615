"""AsyncClient: a broker that is used over HTTP, or in memory through the same protocol.

The façade that users see. Streams are streams.py's, requests server.py's; client.py has the same without `await`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self, TypeVar, Unpack

from enclave_broker.client.body import RunOptions, session_body
from enclave_broker.client.results import ResultBuilder
from enclave_broker.client.server import Server, SessionInfo, ToolInfo
from enclave_broker.client.streams import EventStream, Reconnection, StreamedEvent, StreamFilter
from enclave_broker.client.target import Target, credential_of, transport_to
from enclave_broker.client.tools import ClientTools
from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ClientError, ClosedError, ConfigurationError, TransportError
from enclave_broker.types.ids import new_session_id
from enclave_broker.types.limits import seconds
from enclave_broker.types.principal import Principal
from enclave_broker.types.result_types import typed
from enclave_broker.types.results import CallRecord, ExecutionResult

__all__ = ["AsyncClient"]

F = TypeVar("F", bound=Callable[..., Any])

_CANCEL_SECONDS = 2.0  # that a cancelled `execute` waits for its run to be cancelled
_log = logging.getLogger("enclave_broker.client")


class AsyncClient:
    """Runs code on a broker: at a URL, or a Broker or ASGI application of this process.

    `api_key` or `token` say who asks; for a Broker in memory, `principal` does. `timeout` is seconds for one answer of
    the server; a run takes as long as its own limits allow. `reconnection` says how it keeps to a stream. Connects with
    the first request, belongs to that event loop, and is closed by `async with` or `aclose`. Reads no environment: no
    proxy, no key. Every method raises ClientError with the wire's code for a refusal, TransportError when the server
    isn't to be had, ConfigurationError for a wrong option, ClosedError after `aclose`.
    """

    def __init__(
        self,
        target: Target,
        *,
        api_key: str | None = None,
        token: str | None = None,
        principal: Principal | None = None,
        timeout: float = 30.0,
        encryption: str = "disabled",
        path: str = "",
        reconnection: Reconnection | None = None,
    ) -> None:
        if encryption != "disabled":
            raise ConfigurationError(f"encryption is not supported yet: 'disabled', not {encryption!r}")
        timeout = seconds(timeout, "timeout")
        credential = credential_of(api_key, token)
        transport = transport_to(target, path=path, principal=principal, connect_timeout=timeout)
        self._server = Server(transport, credential=credential, timeout=timeout)
        self._encryption = encryption
        if reconnection is not None and not isinstance(reconnection, Reconnection):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"reconnection is a Reconnection, not {reconnection!r}")
        self._reconnection = reconnection or Reconnection()
        self._tools = ClientTools()
        self._streams: set[EventStream] = set()
        self._cancelling: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave every stream and close every connection. What runs on the server goes on. Idempotent."""
        if not self._closed:
            self._closed = True
            for stream in list(self._streams):
                await stream.aclose()
            if self._cancelling:
                await asyncio.wait(self._cancelling)
            await self._server.aclose()

    # -- tools of the client ---------------------------------------------------------------------------------------

    def tool(self, name: str) -> Callable[[F], F]:
        """Register a function as the client's side of a tool that the broker leaves to clients.

        It runs here when a script of `execute` or `stream` calls the tool: `async def` in the loop, `def` in a thread.
        The call's arguments are its keyword arguments; a single parameter named `args` gets the whole object. ToolError
        reaches the script, of any other exception only an error id. Raises ConfigurationError for a name twice.
        """
        return self._tools.add(name)

    # -- running code ----------------------------------------------------------------------------------------------

    async def execute(
        self, code: str, *, result_type: Any = Any, **options: Unpack[RunOptions]
    ) -> ExecutionResult[Any]:
        """Run code in a session of its own and wait for its end, however often the connection breaks.

        A script that fails is a result, never an exception. `result_type` is what the value has to be, as in
        `Broker.execute`. Cancelling this cancels the run, too.
        """
        check = typed(result_type)
        events = self._start(code, None, options)
        builder = ResultBuilder()
        self._streams.add(events)
        try:
            async for event in events:
                builder.add(event)
        except asyncio.CancelledError:
            cancelling = asyncio.create_task(self._cancel_run(events.session_id))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)
            await asyncio.shield(cancelling)
            raise
        finally:
            await self._left(events)
        if builder.final is None:
            raise TransportError(f"the final of session {events.session_id} isn't the protocol's")
        records = await self._records(events.session_id) if builder.has_calls else []
        return check(builder.result(events.session_id, records))

    def stream(
        self, code: str, *, filter: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[StreamedEvent]:
        """Run code and give its events as they happen, to the final: each once and in order, over any number of
        connections. One of a type that this version doesn't know comes as UnknownEvent.

        `filter` is the protocol's object. Leaving the loop leaves the run alone: `attach` takes it up again, `cancel`
        ends it. Raises FilterError.
        """
        return self._follow(self._start(code, filter, options))

    def attach(
        self,
        session_id: str,
        from_seq: int = 1,
        *,
        filter: Mapping[str, Any] | None = None,
        run_tools: bool = False,
    ) -> AsyncGenerator[StreamedEvent]:
        """The events of a session that exists, from `from_seq` on: history, then live, to the next final.

        With `run_tools` this client executes its tools for the session, those that wait for an answer included.
        """
        if isinstance(from_seq, bool) or not isinstance(from_seq, int):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"from_seq is a whole number, not {from_seq!r}")
        stream = EventStream(
            self._open(),
            session_id,
            from_seq=from_seq,
            filter=None if filter is None else StreamFilter(filter),
            tools=self._tools if run_tools else None,
            reconnection=self._reconnection,
        )
        return self._follow(stream)

    def _start(self, code: str, filter: Mapping[str, Any] | None, options: RunOptions) -> EventStream:
        # The id is chosen here, so that a request whose answer got lost can be repeated without a second run.
        session_id = options.get("session_id") or new_session_id(os.urandom)
        chosen = None if filter is None else StreamFilter(filter)
        config = None if chosen is None else chosen.config
        return EventStream(
            self._open(),
            session_id,
            body=session_body(code, session_id, options, filter=config, encryption=self._encryption),
            filter=chosen,
            tools=self._tools,
            reconnection=self._reconnection,
        )

    async def _follow(self, events: EventStream) -> AsyncGenerator[StreamedEvent]:
        self._open()
        self._streams.add(events)
        try:
            async for event in events:
                yield event
        finally:
            await self._left(events)

    async def _left(self, events: EventStream) -> None:
        self._streams.discard(events)
        await events.aclose()

    async def _cancel_run(self, session_id: str) -> None:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._server.cancel(session_id, "whoever waited for the result went away")
        except (ClientError, TimeoutError) as error:
            _log.warning("session %s can't be cancelled and may run on: %s", session_id, error)

    async def _records(self, session_id: str) -> list[CallRecord]:
        try:
            return await self._server.calls(session_id)
        except ClientError as error:  # older servers have no such endpoint
            _log.info("how the calls of %s ended isn't known: %s", session_id, error)
            return []

    # -- sessions --------------------------------------------------------------------------------------------------

    async def cancel(self, session_id: str, reason: str = "") -> bool:
        """End what runs in the session; whether the server did."""
        return await self._open().cancel(session_id, reason)

    async def destroy(self, session_id: str) -> None:
        """Cancel the session if it runs, and have it forgotten."""
        await self._open().destroy(session_id)

    async def session(self, session_id: str) -> SessionInfo:
        """What is known of one session."""
        return await self._open().info(session_id)

    async def sessions(
        self, *, state: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SessionInfo]:
        """The sessions that this client may see: those in `state`, those behind the one whose id is `after`."""
        return await self._open().sessions(state=state, after=after, limit=limit)

    async def calls(self, session_id: str) -> list[CallRecord]:
        """The tool calls of a session and how they ended."""
        return await self._open().calls(session_id)

    async def approvals(self, session_id: str | None = None) -> list[Approval]:
        """The calls that wait for a person and that this client may decide, the oldest first: a thousand at most."""
        return await self._open().approvals(session_id)

    async def approve(self, *ids: str) -> None:
        """Let these calls be made, one after the other: those before one that is refused are approved.

        Raises ClientError with APPROVAL_DECIDED for one that was decided or has expired, NOT_FOUND for one that this
        client may not see.
        """
        for id in ids:
            await self._open().decide(id, "approve")

    async def deny(self, *ids: str, reason: str = "") -> None:
        """Have these calls fail with APPROVAL_DENIED; the script sees the reason. Otherwise as `approve`."""
        for id in ids:
            await self._open().decide(id, "deny", reason)

    async def tools(self) -> list[ToolInfo]:
        """The tools that scripts can call."""
        return await self._open().tools()

    def _open(self) -> Server:
        if self._closed:
            raise ClosedError("the client is closed")
        return self._server
