"""A session: one principal's sequence of executions, their calls and their log. The façade that hosts use.

Owns the state, the allow-list, the table of calls and who may start now; sessions/execution.py owns the engine's side,
calls/ the way to a handler. Has no task of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self, cast

import msgspec

from enclave_broker.broker.calls.call import Call, CallState, Outcome, encode_args
from enclave_broker.broker.sessions.execution import Execution, Status
from enclave_broker.broker.sessions.history import call_records, execution_result, settled_call, value_of
from enclave_broker.broker.sessions.host import Host, Sources
from enclave_broker.broker.sessions.log import Batch, Log
from enclave_broker.broker.sessions.machine import FINISHED, State, check
from enclave_broker.broker.store.records import CallRequested, CallSettled, ExecutionStarted, HandlerStarted
from enclave_broker.broker.tools.context import LogLine, Progress
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, MaxToolCallsError, OverloadedError, SessionClosedError
from enclave_broker.types.events import (
    Event,
    LogEvent,
    SessionInitEvent,
    ToolCallEvent,
    ToolProgressEvent,
    ToolResultAppliedEvent,
)
from enclave_broker.types.ids import new_call_id
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import CallRecord, ExecutionResult

__all__ = ["Session"]

PROGRESS_SECONDS = 0.1
"""A handler's own progress is one event in this time at most."""


class Session:
    """Made by `Broker.create_session`. Belongs to the broker's event loop.

    `async with session:` destroys it at exit. `state` is one of the wire's six words.
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
        on_closed: Callable[[Session], None],
    ) -> None:
        self.host = host
        self.sources = sources
        self.id = id
        self.principal = principal
        self.limits = limits
        self.metadata = dict(metadata)
        self.log = Log(id, sources.now)
        self.running: dict[str, Call] = {}
        """The script's calls that have a place, by id."""
        self.call_count = 0
        self._created = sources.now()
        self._allowed = allowed
        self._on_closed = on_closed
        self._queue: deque[Call] = deque()
        self._calls: dict[str, Call] = {}
        self._execution: Execution | None = None
        self._state = State.STARTING
        self._closed = False
        self.idle_since: float | None = host.loop.time()
        """The loop's time since when nothing runs; None while something does."""

    # -- what a host asks ------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        if self._state is State.RUNNING and self.running:
            return State.WAITING_FOR_TOOL.value
        return self._state.value

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
        return datetime.fromtimestamp(self._created + self.limits.timeout, UTC)

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
        if self._execution is not None and not self._execution.over:
            raise SessionClosedError(f"session {self.id} still runs its last code: wait for it, or cancel it")
        execution = Execution(self)
        before, self.call_count = self.call_count, 0
        try:
            execution.start(code, language)
        except OverloadedError:
            self.call_count = before
            raise
        return execution

    def opened(self, execution: Execution, batch: Batch, fact: ExecutionStarted) -> None:
        """The execution has a place: its first record, which is `session_init` too if it is the session's first."""
        self._execution = execution
        self._state = check(self._state, State.RUNNING)
        self.idle_since = None
        if self.log.records:
            batch.fact(fact)
        else:
            expires = self.expires_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            batch.event(SessionInitEvent, fact, cancel_url=f"/sessions/{self.id}/cancel", expires_at=expires)
        self.log.append(batch)

    async def wait(self) -> ExecutionResult[Any]:
        """The result of the current execution. Cancelling this is safe.

        Raises SessionClosedError when nothing has been executed.
        """
        execution = self._execution
        if execution is None:
            raise SessionClosedError(f"session {self.id} has executed nothing yet")
        return await self.host.here(lambda: self.result_of(execution))

    async def result_of(self, execution: Execution) -> ExecutionResult[Any]:
        """Wait for the end of an execution of this session. Cancelling this is safe."""
        if not execution.over:
            waiter: asyncio.Future[None] = self.host.loop.create_future()
            execution.waiters.append(waiter)
            await waiter
        return execution_result(self.id, self.log.records[execution.first_index :])

    async def cancel(self, reason: str = "") -> bool:
        """End the current execution with SESSION_CANCELLED and close the session; False if nothing was running."""
        return self.close("SESSION_CANCELLED", reason or "the session was cancelled", status="cancelled")

    def close(self, code: str, message: str, *, status: Status = "failed") -> bool:
        """End what runs with this verdict; nothing runs in the session any more. Whether something ran."""
        execution = self._execution
        ran = execution is not None and not execution.over
        if execution is not None:
            execution.decide(code, message, status=status, closes=True)
        self._drop(list(self._calls.values()))
        if self._state not in FINISHED:
            self._state = check(self._state, State.CANCELLED)
        self._close()
        return ran

    def _close(self) -> None:
        """Nothing runs in it any more; what it was can still be read."""
        if not self._closed:
            self._closed = True
            self.idle_since = self.host.loop.time()
            self.log.close()
            self._on_closed(self)

    async def events(self, from_seq: int = 1) -> AsyncIterator[Event]:
        """History from `from_seq` (inclusive), then live, to the first final at or after it. Any number of readers."""
        async for event in self.log.events(from_seq):
            yield event

    async def all_events(self) -> AsyncIterator[Event]:
        """Every event of every execution, until the session is closed."""
        async for record in self.log.follow():
            if record.public is not None:
                yield record.public

    def history(self) -> Sequence[CallRecord]:
        """Every call of the session so far, in order, with its outcome; read from the log."""
        return call_records(self.log.records)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close("SESSION_CANCELLED", "the session was destroyed", status="cancelled")

    # -- the log ---------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Append; a log that is too large ends the execution."""
        self.log.append(batch)
        if self.log.size_bytes > self.limits.max_log_bytes and self._execution is not None:
            self._execution.decide(
                "LOG_LIMIT",
                f"the session's log is over the {self.limits.max_log_bytes} bytes of max_log_bytes",
                closes=True,
            )

    def finished(self, status: Status, batch: Batch, *, closes: bool) -> None:
        """The execution's last batch. Its calls are over, too."""
        self.log.append(batch)
        self.drop_queue()
        running, self.running = self.running, {}
        self._drop(running.values())
        self._state = check(self._state, State(status))
        self.idle_since = self.host.loop.time()
        if closes:
            self._close()

    # -- calls -----------------------------------------------------------------------------------------------------

    def request(self, name: str, args: dict[str, Any], engine_id: int, batch: Batch, call_id: str = "") -> Call:
        """A new call and its record in `batch`."""
        args_json = encode_args(args)
        call = Call(self, call_id or new_call_id(self.sources.random), engine_id, name, args, args_json)
        call.asked_at = batch.at
        self._calls[call.id] = call
        self.call_count += 1
        fact = CallRequested(call.id, engine_id, name, args, len(args_json))
        batch.event(ToolCallEvent, fact, call_id=call.id, tool_name=name, args=args)
        batch.weight += len(args_json) + len(name)
        return call

    def admit(self, call: Call, batch: Batch) -> bool:
        """Whether the call has one of the `max_concurrent_calls` places; else it waits for one, in order."""
        if len(self.running) >= self.limits.max_concurrent_calls:
            call.queued = True
            self._queue.append(call)
            return False
        self.running[call.id] = call
        waited = _elapsed(call, batch) if call.queued else 0.0
        batch.event(ToolProgressEvent, call_id=call.id, phase="connecting", elapsed_ms=waited)
        return True

    def begin_call(self, call: Call) -> None:
        """Start a call that has a place and its record."""
        if call.state is not CallState.SETTLED:
            self.host.runner.start(call)

    def drop_queue(self) -> None:
        """Nothing that waits is started any more."""
        queue, self._queue = self._queue, deque()
        self._drop(queue)

    def _drop(self, calls: Iterable[Call]) -> None:
        """They get no outcome."""
        for call in calls:
            self._calls.pop(call.id, None)
            self.host.runner.cancel(call)

    async def call(self, call: ToolCall | Mapping[str, Any]) -> Any:
        """A call by the host: the whole chain, once per call id, whoever asks. Its value as JSON.

        Joins the call of that id if there is one. Raises ToolError with the wire's code, SessionClosedError.
        """
        if isinstance(call, ToolCall):
            call_id, name, args = call.id, call.name, call.args
        else:
            call_id, name, args = _from_mapping(call)
        known = self._calls.get(call_id) if call_id else None
        if known is None and call_id and (settled := settled_call(self.log.records, call_id)) is not None:
            return value_of(settled)
        if known is None:
            if self._closed:
                raise SessionClosedError(f"session {self.id} is closed ({self._state.value})")
            if self.call_count >= self.limits.max_tool_calls:
                raise MaxToolCallsError(f"the session has made its {self.limits.max_tool_calls} tool calls")
            batch = self.log.batch()
            known = self.request(name, args, 0, batch, call_id)
            self.commit(batch)
            self.host.runner.start(known)
        await known.wait()
        settled = settled_call(self.log.records, known.id)
        if settled is None:
            raise SessionClosedError(f"session {self.id} was closed before the call had its outcome")
        return value_of(settled)

    # -- Caller (calls/call.py) ------------------------------------------------------------------------------------

    def allows(self, name: str) -> bool:
        return self._allowed is None or any(glob.matches(name) for glob in self._allowed)

    def started(self, call: Call, args_hash: str) -> None:
        batch = self.log.batch()
        effect = call.tool.effect if call.tool is not None else "write"
        fact = HandlerStarted(call.id, call.attempt, effect, args_hash)
        batch.event(ToolProgressEvent, fact, call_id=call.id, phase="processing", elapsed_ms=_elapsed(call, batch))
        self.commit(batch)

    def settled(self, call: Call, outcome: Outcome) -> None:
        del self._calls[call.id]
        if call.engine_id == 0 or self._execution is None:
            batch = self.log.batch()
            size = 0 if outcome.error else len(outcome.value)
            batch.weight = size
            fact = CallSettled(call.id, None, msgspec.Raw(outcome.value), outcome.error, outcome.rule, size)
            batch.event(ToolResultAppliedEvent, fact, call_id=call.id)
            self.commit(batch)
            return
        del self.running[call.id]
        self._execution.answer(call, outcome)
        if self._queue:
            batch = self.log.batch()
            following = self._queue.popleft()
            self.admit(following, batch)
            self.commit(batch)
            self.begin_call(following)

    def told(self, call: Call, item: Progress | LogLine) -> None:
        if call.state is CallState.SETTLED:
            return
        batch = self.log.batch()
        if isinstance(item, LogLine):
            data = msgspec.json.encode(item.data)  # detached from what the handler may change later
            batch.weight = len(item.message) + len(data)
            batch.event(LogEvent, level=item.level, message=item.message, data=msgspec.json.decode(data) or None)
        else:
            now = self.host.loop.time()
            if now - call.progressed_at < PROGRESS_SECONDS:
                return
            call.progressed_at = now
            total = None if item.total is None else int(item.total)
            elapsed = _elapsed(call, batch)
            batch.event(
                ToolProgressEvent,
                call_id=call.id,
                phase="receiving",
                elapsed_ms=elapsed,
                bytes_received=int(item.done),
                total_bytes=total,
            )
        self.commit(batch)


def _elapsed(call: Call, batch: Batch) -> float:
    """Milliseconds since the call was asked for."""
    return max(0.0, round((batch.at - call.asked_at) * 1000, 3))


def _from_mapping(call: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Id (maybe empty), name and arguments of a call that is given as a mapping."""
    unknown = set(call) - {"id", "name", "args"}
    name, args, id = call.get("name"), call.get("args", {}), call.get("id", "")
    if unknown or not isinstance(name, str) or not isinstance(args, dict) or not isinstance(id, str):
        raise ConfigurationError("a call is {'name': str, 'args': {...}, 'id'?: str}")
    return id, name, cast("dict[str, Any]", args)
