"""A session: one principal's sequence of executions, their calls and their log. The façade that hosts use.

Owns the state and the log; sessions/execution.py owns the engine's side, sessions/call_table.py the calls. Has no task
of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from enclave_broker.broker.sessions.answers import read_answer
from enclave_broker.broker.sessions.asking import waits_for_people
from enclave_broker.broker.sessions.call_table import CallTable
from enclave_broker.broker.sessions.cursor import Cursor
from enclave_broker.broker.sessions.execution import Execution, Status
from enclave_broker.broker.sessions.history import call_records, execution_result, state_at
from enclave_broker.broker.sessions.host import Host, Sources
from enclave_broker.broker.sessions.log import Batch, detached
from enclave_broker.broker.sessions.machine import State, check
from enclave_broker.broker.sessions.watchers import Watchers
from enclave_broker.broker.store.records import ExecutionStarted, Opened
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.stream.filters import EventFilter
from enclave_broker.types.errors import ConfigurationError, OverloadedError, SessionClosedError
from enclave_broker.types.events import CatalogChangedEvent, Event, SessionInitEvent
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import CallRecord, ExecutionResult, SessionState
from enclave_broker.types.wire import EVENT_TYPES

__all__ = ["Session"]


class Keeper(Protocol):
    """Who has made the session, and counts it."""

    def closed(self, session: Session) -> None:
        """Nothing runs in it any more."""
        ...

    def forget(self, session: Session) -> None:
        """Nobody wants to read it any more, either."""
        ...


class Session:
    """Made by `Broker.create_session`. Belongs to the broker's event loop.

    `async with session:` destroys it at exit. `state` is one of the wire's six words, or `waiting_for_approval`.
    """

    def __init__(
        self,
        host: Host,
        id: str,
        *,
        sources: Sources,
        principal: Principal,
        limits: SessionLimits,
        allowed: tuple[Glob, ...] | None,
        metadata: Mapping[str, Any],
        context: Mapping[str, Any],
        keeper: Keeper,
        single: bool = False,
        manual: bool = False,
        chosen: bool = False,
        grace: float | None = None,
    ) -> None:
        self.host = host
        self.sources = sources
        self.id = id
        self.principal = principal
        self.limits = limits
        self.metadata = dict(metadata)
        self.context = context
        self.log = host.make_log(id, sources.now, store_id=_store_id(principal, id))
        self._created = self._began = sources.now()
        self._keeper = keeper
        self._single = single
        """Whether it is over after one execution."""
        self.chosen = chosen
        """Whether its id was given, and not made here."""
        self.spend: Callable[[int], None] | None = None
        """Told the CPU microseconds of each step, where somebody counts them."""
        self._watchers = Watchers(self, grace)
        self.execution: Execution | None = None
        self._state = State.STARTING
        self._closed = False
        self._idle_from = host.loop.time()
        self.calls = CallTable(self, allowed, manual=manual)

    # -- what a host asks ------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        if self._state is State.RUNNING and self.calls.running:
            return (State.WAITING_FOR_APPROVAL if waits_for_people(self) else State.WAITING_FOR_TOOL).value
        return self._state.value

    @property
    def wire_state(self) -> str:
        """One of the wire's six words: waiting for approval is waiting for a tool there."""
        return self.state if self.state != State.WAITING_FOR_APPROVAL else State.WAITING_FOR_TOOL.value

    @property
    def idle_since(self) -> float | None:
        """The loop's time since when nothing runs; None while an execution or a call does."""
        if self.calls or (self.execution is not None and not self.execution.over):
            return None
        return max(self._idle_from, self.calls.changed_at)

    @property
    def closed(self) -> bool:
        """Whether nothing can be executed in it any more."""
        return self._closed

    @property
    def tenant(self) -> str:
        return self.principal.tenant or ""

    @property
    def user_id(self) -> str | None:
        return None if self.principal.is_anonymous else self.principal.subject

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self._created, UTC)

    @property
    def expires_at(self) -> datetime:
        """When its `timeout` would be used up if it were active all the time; it moves while the clock stands."""
        return datetime.fromtimestamp(self._expires, UTC)

    @property
    def _expires(self) -> float:
        clock = None if self.execution is None else self.execution.clock
        return self._began + self.limits.timeout + (0.0 if clock is None else clock.waited)

    async def execute(self, code: str, *, language: str = "javascript") -> ExecutionResult[Any]:
        """Run code and wait for its end. A script that fails is a result, not an exception.

        Raises SessionClosedError when the session is closed or runs something already, ConfigurationError for a
        language that is not there. Cancelling this leaves the run alone: `cancel` ends it.
        """
        return await self.host.here(lambda: self.result_of(self.begin(code, language)))

    def begin(self, code: str, language: str = "javascript") -> Execution:
        """Start an execution without waiting for it."""
        if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"code must be a str, not {type(code).__name__}")
        if language not in self.host.runtime.engines:
            raise ConfigurationError(f"language {language!r} is not here: {', '.join(self.host.runtime.engines)} is")
        if self._closed:
            raise SessionClosedError(f"session {self.id} is closed ({self._state.value})")
        if self.execution is not None and not self.execution.done:
            raise SessionClosedError(f"session {self.id} still runs its last code: wait for it, or cancel it")
        execution = Execution(self)
        before, self.calls.count = self.calls.count, 0
        try:
            execution.start(code, language)
        except OverloadedError:
            self.calls.count = before
            raise
        return execution

    def opened(self, execution: Execution, batch: Batch, fact: ExecutionStarted) -> None:
        """The execution has a place: its first record, which is `session_init` too if it is the session's first."""
        self.execution = execution
        if self.log.records:  # not the first one
            self._began = self.sources.now()
        self._state = check(self._state, State.RUNNING)
        if self.log.records:
            batch.fact(fact)
        else:
            self.introduce(batch, fact)
        self.log.append(batch)
        self._watchers.beat()

    def introduce(self, batch: Batch, fact: ExecutionStarted | Opened | None = None) -> None:
        """The first event of every session."""
        expires = _iso(self._created + self.limits.timeout)
        fact = fact or Opened(self.principal)
        batch.event(SessionInitEvent, fact, cancel_url=f"/sessions/{self.id}/cancel", expires_at=expires)

    async def wait(self) -> ExecutionResult[Any]:
        """The result of the current execution. Cancelling this is safe.

        Raises SessionClosedError when nothing has been executed.
        """
        execution = self.execution
        if execution is None:
            raise SessionClosedError(f"session {self.id} has executed nothing yet")
        return await self.host.here(lambda: self.result_of(execution))

    async def result_of(self, execution: Execution) -> ExecutionResult[Any]:
        """Wait for the end of an execution of this session. Cancelling this is safe."""
        while not execution.done:
            await execution.changed()
        return execution_result(self.id, self.log.records[execution.first_index :], self.host.shown)

    async def cancel(self, reason: str = "") -> bool:
        """End the current execution with SESSION_CANCELLED and close the session; False if nothing was running."""

        async def end() -> bool:
            return self.close("SESSION_CANCELLED", reason or "the session was cancelled", status="cancelled")

        return await self.host.here(end)

    def close(self, code: str, message: str, *, status: Status = "failed") -> bool:
        """End what runs with this verdict; nothing runs in the session any more. Whether something ran."""
        execution = self.execution
        ran = execution is not None and not execution.over
        if execution is not None:
            execution.decide(code, message, status=status, closes=True)
        self.calls.drop_all()
        if execution is None:  # else its final says what has become of the session, once that is durable
            self._state = check(self._state, State.CANCELLED)
        self._close()
        return ran

    def _close(self) -> None:
        """Nothing runs in it any more; what it was can still be read."""
        if not self._closed:
            self._closed = True
            self._idle_from = self.host.loop.time()
            self.log.close()
            self._watchers.close()
            self._keeper.closed(self)

    def release(self) -> None:
        """It is closed and forgotten: who still holds it may read it, and no cycle keeps it in memory."""
        self.calls.release()
        if self.execution is not None:
            self.execution.release()

    async def events(self, from_seq: int = 1, filter: Mapping[str, Any] | None = None) -> AsyncIterator[Event]:
        """History from `from_seq` (inclusive), then live, to the first final at or after it. Any number of readers.

        `filter` is the protocol's object. Raises ValueError, an EnclaveError with INVALID_FILTER, for one that is none.
        """
        wanted = None if filter is None else EventFilter.parse(filter)
        async for event in self.log.events(from_seq):
            if wanted is None or wanted.passes(event):
                yield event

    async def all_events(self, type: str = "") -> AsyncIterator[Event]:
        """Every event of every execution, or those of one type, until the session is closed."""
        async for record in self.log.follow():
            if record.public is not None and type in {"", record.public.type}:
                yield detached(record.public)

    def history(self) -> Sequence[CallRecord]:
        """Every call of the session so far, in order, with its outcome; read from what is durable of the log."""
        records, whole = self.log.seen()
        return call_records(records, self.host.shown, closed=whole)

    async def state_at(self, seq: int) -> SessionState:
        """What the session was right after its event `seq`: state, output, calls, result; read from what is durable.

        Raises ConfigurationError for a `seq` that there is no event of (yet).
        """
        records, whole = self.log.seen()
        return state_at(self.id, records, seq, self.host.shown, closed=whole)

    # -- listeners and answers -------------------------------------------------------------------------------------

    def on(self, type: str, callback: Callable[[Any], Any] | None = None) -> Any:
        """Call it with each event of a type, or for "tool_call" with each ToolCall that the policy has let through.

        A listener of tool calls may execute the call (`broker.execute_tool_call`), answer it (`send`), or only watch:
        a call that is neither when all listeners have returned is the broker's. Without `callback` a decorator.
        """
        if callback is None:
            return functools.partial(self._listen, type)
        return self._listen(type, callback)

    def _listen(self, type: str, callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if type == "tool_call":
            self.calls.listeners.append(callback)
        elif type in EVENT_TYPES:
            self.host.observers.watch(self.all_events(type), callback)
        else:
            raise ConfigurationError(
                f"there are no events of type {type!r}: {', '.join(sorted(EVENT_TYPES))} there are"
            )
        return callback

    def send(self, message: Mapping[str, Any]) -> bool:
        """Answer a call: `{"type": "tool_result", "id": …, "data": …}`, or with `"error": {"code"?, "message"}`.

        False if the call has its answer already. Raises EnclaveError with UNKNOWN_CALL for an id that nobody asked,
        ConfigurationError for a message that is none.
        """
        return self.calls.answer(*read_answer(message))

    async def answer(self, call_id: str, value: Any) -> bool:
        """The same as `send` with `data`, and durable when this returns."""
        first = self.calls.answer(call_id, value, None)
        if (waiting := self.durable()) is not None:
            await waiting
        return first

    def answer_nowait(self, call_id: str, ok: bool, value: Any) -> bool:  # noqa: FBT001 a wire's field
        """The answer of a client, which may answer only what it executes. `value` is a ToolError if not `ok`."""
        self.calls.check_clients(call_id)
        return self.calls.answer(call_id, None if not ok else value, value if not ok else None)

    # -- for readers -----------------------------------------------------------------------------------------------

    def cursor(self, from_seq: int = 1, *, filter: EventFilter | None = None, sse: bool = False) -> Cursor:
        """A reader from a `seq` on. While one is attached and something runs there are heartbeats; close it."""
        self._watchers.came()
        return Cursor(
            self.log, from_seq=from_seq, filter=filter, sse=sse, is_over=self._is_over, on_close=self._watchers.left
        )

    def _is_over(self) -> bool:
        """Whether nothing that a reader could wait for will come."""
        return self.log.is_durable if self.log.closed else self.execution is not None and self.execution.done

    def now_iso(self) -> str:
        """The time, as events have it."""
        return _iso(self.sources.now())

    def durable(self) -> asyncio.Future[None] | None:
        """None if all that was recorded so far is durable, else a future of that."""
        return self.log.durable()

    def info(self) -> dict[str, Any]:
        """As the wire shows a session."""
        execution = self.execution
        return {
            "sessionId": self.id,
            "state": self.wire_state,
            "createdAt": int(self._created * 1000),
            "expiresAt": int(self._expires * 1000),
            "stats": {
                "duration": 0 if execution is None else int(execution.duration * 1000),
                "toolCallCount": self.calls.count,
            },
        }

    def catalog_changed(self, version: str, added: Sequence[str], removed: Sequence[str]) -> None:
        """Tools have come or gone: readers of a run hear of those that the session may call."""
        added, removed = ([name for name in names if self.calls.allows(name)] for names in (added, removed))
        if (added or removed) and self.execution is not None and not self.execution.over:
            batch = self.log.batch()
            batch.event(CatalogChangedEvent, version=version, added_actions=added, removed_actions=removed)
            self.commit(batch)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close("SESSION_CANCELLED", "the session was destroyed", status="cancelled")
        self._keeper.forget(self)

    # -- the log ---------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Append; a log that is too large ends the execution."""
        self.log.append(batch)
        if self.log.size_bytes > self.limits.max_log_bytes and not self._closed:
            self.close("LOG_LIMIT", f"the session's log is over the {self.limits.max_log_bytes} bytes of max_log_bytes")

    def finished(self, status: Status, batch: Batch, *, closes: bool) -> None:
        """The execution's last batch. Its calls are over, too."""
        self.log.append(batch)
        self.calls.drop_scripts()
        self._idle_from = self.host.loop.time()
        self.log.when_durable(functools.partial(self._show, State(status)))
        if closes or self._single:
            self._close()

    def _show(self, state: State) -> None:
        """The end is durable: now it may be seen."""
        self._state = check(self._state, state)


def _store_id(principal: Principal, id: str) -> str:
    """A session id that a client has chosen is a key within its principal."""
    if principal.is_anonymous and principal.tenant is None:
        return id
    return f"{id} of {principal.subject!r} in {principal.tenant!r}"


@functools.lru_cache(maxsize=16)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _iso(at: float) -> str:
    """ISO 8601 with milliseconds. Many sessions have their times in the same second."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"
