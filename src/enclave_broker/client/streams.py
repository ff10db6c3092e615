"""One session's events, whatever its connections do: each once, in order, to the final.

Owns when to connect, from where, and when to give up; stream/reconnect.py has the rules, server.py the requests. Called
by async_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Literal, Self

import msgspec

from enclave_broker.client.errors import delay_of
from enclave_broker.client.server import Server
from enclave_broker.client.tools import ClientTools, answer_call
from enclave_broker.client.transport import NotReachedError, Reply
from enclave_broker.stream.filters import ALWAYS_ALLOWED, EventFilter
from enclave_broker.stream.ndjson import BadLine, NdjsonDecoder
from enclave_broker.stream.reconnect import Arrival, Backoff, BackoffOptions, HeartbeatWatch, SequenceTracker
from enclave_broker.types.bounded_json import WireError, decode_json
from enclave_broker.types.errors import ClientError, ClosedError, ConfigurationError, TransportError
from enclave_broker.types.events import Event, FinalEvent, HeartbeatEvent, ToolCallEvent, ToolResultAppliedEvent
from enclave_broker.types.wire import UnknownEvent, decode_event

__all__ = ["EventStream", "Reconnection", "StreamFilter", "StreamedEvent"]

StreamedEvent = Event | UnknownEvent
_RETRIED = frozenset({429, 502, 503, 504})
"""Statuses of a server that is there again in a moment, asked for a session that it has."""
_SESSION_EXISTS = 409
_DRAIN_SECONDS = 0.25  # a server ends the stream with the final; one that doesn't isn't waited for


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnection:
    """How a client keeps to a stream. `silence`: seconds without a byte after which a connection is given up."""

    backoff: BackoffOptions = field(default_factory=BackoffOptions)
    silence: float = 30.0
    random: Random = field(default_factory=Random)


class StreamFilter:
    """A filter as sent: heartbeats always come, since they are how a silent connection is told from a dead one, and are
    left out here where the filter doesn't want them. Raises FilterError."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        if not isinstance(config, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] input
            form = "{'mode': 'include', 'rules': […]}"
            raise ConfigurationError(f"filter is the protocol's object, such as {form}, not {config!r}")
        self._parsed = EventFilter.parse(dict(config))
        always = config.get("alwaysAllow")
        allowed = [*(ALWAYS_ALLOWED if always is None else always), HeartbeatEvent.type]
        self.config = {**config, "alwaysAllow": list(dict.fromkeys(allowed))}

    @property
    def query(self) -> str:
        return msgspec.json.encode(self.config).decode()

    def wants(self, event: StreamedEvent) -> bool:
        return not isinstance(event, HeartbeatEvent) or self._parsed.passes(event)


def _decode(line: bytes) -> StreamedEvent:
    """An event, or as UnknownEvent one whose payload is of a later version. Raises WireError for what is no event."""
    try:
        return decode_event(line)
    except WireError:
        with contextlib.suppress(WireError, msgspec.ValidationError):
            got = msgspec.convert(decode_json(line), _Head)
            return UnknownEvent(type=got.type, session_id=got.session_id, seq=got.seq, fields=got.payload)
        raise


class _Head(msgspec.Struct, rename="camel"):
    protocol_version: Literal[1, 2]
    session_id: str
    seq: Annotated[int, msgspec.Meta(ge=1)]
    type: str
    payload: dict[str, Any]


class EventStream(AsyncIterator[StreamedEvent]):
    """The events of one session from a number on; ends behind the final.

    `body` is what starts the session, sent again as it is if nobody knows whether it arrived: the server takes the same
    id with the same body for the same session. None attaches to one that exists. `tools` are executed here when the
    script calls them. A wait for the next event may be cancelled: the next takes up where it stood.
    """

    def __init__(
        self,
        server: Server,
        session_id: str,
        *,
        body: bytes | None = None,
        from_seq: int = 1,
        filter: StreamFilter | None = None,
        tools: ClientTools | None = None,
        reconnection: Reconnection,
    ) -> None:
        self.session_id = session_id
        self._server = server
        self._body = body
        self._filter = filter
        self._tools = tools
        self._settled: set[str] | None = None
        self._random = reconnection.random
        self._backoff_options = reconnection.backoff
        self._backoff = Backoff(reconnection.backoff)
        self._watch = HeartbeatWatch(reconnection.silence)
        self._tracker = SequenceTracker(from_seq, sparse=filter is not None)
        self._known = False
        """The server has the session."""
        self._asked = False
        """Something may have reached the server."""
        self._reply: Reply | None = None
        self._decoder = NdjsonDecoder(_decode)
        self._known_over = False
        """The server has said that nothing runs any more."""
        self._any = False
        self._taken = 0
        """New events, of all connections and of this one."""
        self._failed: ClientError | None = None
        """Why there is no connection, until it was waited for."""
        self._ready: deque[StreamedEvent] = deque()
        self._step: asyncio.Timeout | None = None
        self._idle = asyncio.Event()
        self._over = False
        self._work: dict[str, asyncio.Task[None]] = {}

    @property
    def next_seq(self) -> int:
        """Where another stream would take this one up."""
        return self._tracker.replay_from

    async def __anext__(self) -> StreamedEvent:
        while not self._ready:
            if self._over:
                await self._drain()
                await self.aclose()
                raise StopAsyncIteration
            await self._interruptibly()
        return self._ready.popleft()

    async def _interruptibly(self) -> None:
        """One step, which `aclose` of another task may end."""
        self._idle.clear()
        try:
            async with asyncio.timeout(None) as self._step:
                await self._advance()
        except TimeoutError:
            raise ClosedError("the client was closed meanwhile") from None
        finally:
            self._step = None
            self._idle.set()

    async def aclose(self) -> None:
        """Leave the stream, and end the tools that run here for it. The session goes on. Whoever waits for an event in
        another task gets a ClosedError."""
        self._over = True
        self._ready.clear()
        if self._step is not None:
            self._step.reschedule(asyncio.get_running_loop().time())
            await self._idle.wait()
        await self._disconnect()
        work = list(self._work.values())
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- connections -----------------------------------------------------------------------------------------------

    async def _advance(self) -> None:
        """One step: connect, read what comes next, or wait. Raises ClientError when there is no way on."""
        if self._failed is not None:
            await self._wait_after(self._failed)
        try:
            if self._reply is None:
                await self._connect()
            else:
                await self._read(self._reply)
        except TransportError as error:
            if isinstance(error, NotReachedError) and not self._asked:
                raise
            self._failed, self._asked = error, True
        except ClientError as error:
            if error.status_code == _SESSION_EXISTS and self._asked and not self._known:
                self._known = True  # a server that doesn't know the same body again: the first one did arrive
            elif self._asked and error.status_code in _RETRIED:
                self._failed = error
            else:
                await self._disconnect()
                raise
        except BaseException:
            await self._disconnect()
            raise
        if self._failed is not None:
            await self._disconnect()  # what came before the failure is handed out first

    async def _connect(self) -> None:
        if self._body is not None and not self._known:
            reply = await self._server.start(self._body)
            self.session_id = reply.headers.get("x-session-id", self.session_id)
        else:
            query = self._filter.query if self._filter is not None else None
            if self._tools is not None and self._settled is None and self._body is None:
                calls = await self._server.calls(self.session_id)
                self._settled = {call.id for call in calls if call.outcome != "waiting"}
            reply = await self._server.follow(self.session_id, self.next_seq, query)
        self._known = self._asked = True
        self._reply = reply
        self._decoder = NdjsonDecoder(_decode)
        self._taken = 0

    async def _read(self, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        self._watch.heard(loop.time())
        try:
            async with asyncio.timeout_at(self._watch.deadline):
                piece = await anext(aiter(reply))
        except StopAsyncIteration:
            await self._ended()
        except TimeoutError:
            raise TransportError(f"the stream was silent for {self._watch.timeout:g} s") from None
        except TransportError:
            self._take(self._decoder.finish(), ending=True)
            if not self._over:
                raise
        else:
            self._take(self._decoder.feed(piece))

    async def _ended(self) -> None:
        """The server has closed the stream. Without a final that may be right, where the filter leaves it out or it
        lies before the first event asked for: if the session is over, and a stream made then has nothing more."""
        left = self._decoder.finish()
        self._take(left, ending=True)
        if self._over:
            return
        may_lack_final = self._filter is not None or (self._body is None and not self._any)
        if may_lack_final and not left:
            if self._known_over and not self._taken:
                self._over = True
                return
            if (await self._server.info(self.session_id)).is_over:
                self._known_over = True
                await self._disconnect()
                return
        raise TransportError("the stream ended before the final")

    async def _wait_after(self, error: ClientError) -> None:
        self._failed = None
        delay = self._backoff.next(self._random.random(), at_least=delay_of(error))
        if delay is None:
            where = f"session {self.session_id} can't be followed beyond event {self._tracker.last_seq}"
            raise TransportError(
                f"{where}: {error.message}",
                status_code=error.status_code,
                details={"sessionId": self.session_id, "nextSeq": self.next_seq},
            ) from error
        await asyncio.sleep(delay)

    async def _drain(self) -> None:
        """Let the connection end by itself behind the final, so that it can serve the next request."""
        with contextlib.suppress(TransportError, TimeoutError):
            if self._reply is not None:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    async for _ in self._reply:
                        pass

    async def _disconnect(self) -> None:
        reply, self._reply = self._reply, None
        self._watch.stop()
        if reply is not None:
            await reply.aclose()

    # -- events ----------------------------------------------------------------------------------------------------

    def _take(self, items: list[StreamedEvent | BadLine], *, ending: bool = False) -> None:
        """Raises TransportError for lines that mustn't be: they are asked for once more."""
        for item in items:
            if isinstance(item, BadLine):
                if ending:
                    return  # the cut
                raise TransportError(f"the server sent what is no event: {item}")
            if item.session_id != self.session_id:
                raise TransportError(f"the server sent an event of another session, {item.session_id[:80]!r}")
            match self._tracker.receive(item.seq):
                case Arrival.DUPLICATE:
                    continue
                case Arrival.GAP:
                    raise TransportError(f"the server left out events {self.next_seq} to {item.seq - 1}")
                case Arrival.NEW:
                    self._accept(item)
            if self._over:
                return

    def _accept(self, event: StreamedEvent) -> None:
        self._backoff.reset()
        self._any = True
        self._taken += 1
        if self._filter is None or self._filter.wants(event):
            self._ready.append(event)
        match event:
            case ToolCallEvent():
                self._run_tool(event)
            case ToolResultAppliedEvent() if event.call_id in self._work:
                self._work[event.call_id].cancel()
            case _ if event.type == FinalEvent.type:
                self._over = True
            case _:
                pass

    def _run_tool(self, event: ToolCallEvent) -> None:
        function = self._tools.get(event.tool_name) if self._tools is not None else None
        if function is None or event.call_id in self._work or event.call_id in (self._settled or ()):
            return
        answering = answer_call(self._server, function, event, self._backoff_options, self._random)
        task = asyncio.create_task(answering, name=f"client tool {event.call_id}")
        self._work[event.call_id] = task
        task.add_done_callback(lambda _: self._work.pop(event.call_id, None))
