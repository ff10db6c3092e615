"""The calls of one session: who has a place, who waits, what they came to. What a call sees of its session (`Caller`).

Owned by sessions/session.py; sessions/execution.py asks it for the script's calls, the host for its own.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import msgspec

from enclave_broker.broker.calls.asked import Asked
from enclave_broker.broker.calls.call import Call, CallState, Outcome, encode_args
from enclave_broker.broker.sessions.answers import outcome_of
from enclave_broker.broker.sessions.asking import record_answer, record_question
from enclave_broker.broker.sessions.history import earlier_call, value_of
from enclave_broker.broker.sessions.host_calls import call_from_mapping, json_text
from enclave_broker.broker.sessions.log import Batch
from enclave_broker.broker.sessions.log_data import log_data
from enclave_broker.broker.sessions.telling import tell_begun, tell_dropped, tell_settled
from enclave_broker.broker.store.records import CallRequested, CallSettled, HandlerStarted
from enclave_broker.broker.tools.context import LogLine, Progress
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import (
    ConfigurationError,
    EnclaveError,
    MaxToolCallsError,
    SessionClosedError,
    SessionError,
    ToolError,
    tool_error,
)
from enclave_broker.types.events import LogEvent, ToolCallEvent, ToolProgressEvent, ToolResultAppliedEvent
from enclave_broker.types.ids import new_call_id

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.session import Session

__all__ = ["CallTable"]

log = logging.getLogger("enclave_broker.calls")

ARGS_SLACK = 2
"""The engine counts its own JSON text; ours of the same value may write a number longer."""
PROGRESS_SECONDS = 0.1
"""A handler's own progress is one event in this time at most."""


class CallTable:
    """A Caller (calls/call.py), and the only place that starts calls."""

    def __init__(self, session: Session, allowed: tuple[Glob, ...] | None, *, manual: bool) -> None:
        self.id = session.id
        self.limits = session.limits
        self.principal = session.principal
        self.metadata = session.metadata
        self.context = session.context
        self.life = session.created_at.isoformat()
        self.running: dict[str, Call] = {}
        """The script's calls that have a place, by id."""
        self._outside = 0
        """How many of them only a person or a client can bring on."""
        self.count = 0
        """Made in the current execution."""
        self.changed_at = session.host.loop.time()
        """The loop's time when the last call ended."""
        self._session = session
        self._log = session.log
        self._allowed = allowed
        self._manual = manual
        """Whether the broker never starts a call by itself."""
        self.listeners: list[Callable[[ToolCall], Any]] = []
        self._draining = False
        self._queue: deque[Call] = deque()
        self._calls: dict[str, Call] = {}
        self._asked: WeakSet[Asked] = WeakSet()
        """The questions to people that are open, or that can still be looked up."""

    def __bool__(self) -> bool:
        """Whether any call is under way."""
        return bool(self._calls)

    def drop_scripts(self) -> None:
        """The execution is over: its calls get no outcome."""
        self._queue.clear()
        self.running = {}
        self._outside = 0
        self._drop([call for call in self._calls.values() if call.engine_id])

    def release(self) -> None:
        """The session is closed and forgotten, with what people were asked: no cycle keeps either in memory."""
        for asked in tuple(self._asked):
            asked.forget()
        del self._session

    @property
    def all_wait_outside(self) -> bool:
        """Whether each of the script's calls waits for a person or a client, or for the place of one that does."""
        if self._queue and len(self.running) < self.limits.max_concurrent_calls:
            return False  # the next one begins now
        return 0 < self._outside == len(self.running)

    def drop_all(self) -> None:
        """The session is closed."""
        self._queue.clear()
        self._drop(list(self._calls.values()))

    def request(self, name: str, args: dict[str, Any], engine_id: int, batch: Batch) -> Call:
        """A new call of the script and its record in `batch`. Raises ValueError for what no engine lets through."""
        args_json = encode_args(args)
        if len(args_json) > ARGS_SLACK * self.limits.max_tool_args_bytes:
            raise ValueError("arguments over max_tool_args_bytes")
        return self._request(name, args, args_json, engine_id, batch)

    def _request(
        self, name: str, args: dict[str, Any], args_json: bytes, engine_id: int, batch: Batch, call_id: str = ""
    ) -> Call:
        call = Call(self, call_id or new_call_id(self._session.sources.random), engine_id, name, args, args_json)
        call.asked_at = batch.at
        self._calls[call.id] = call
        self.count += 1
        fact = CallRequested(call.id, engine_id, name, msgspec.Raw(args_json))
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
        waited = batch.since(call.asked_at) if call.queued else 0.0
        batch.event(ToolProgressEvent, call_id=call.id, phase="connecting", elapsed_ms=waited)
        self._prepare(call, batch)
        return True

    def _prepare(self, call: Call, batch: Batch) -> None:
        if self._log.size_with(batch) > self.limits.max_log_bytes:
            return  # the session ends with this batch
        args_hash = self._session.host.runner.prepare(call)
        if args_hash is not None:
            _record_start(call, args_hash, batch)

    def begin_call(self, call: Call) -> None:
        """Start a call that has a place and its record."""
        if call.state is not CallState.SETTLED:
            tell_begun(self._session, call)
            self._session.host.runner.start(call)

    def drop_queue(self) -> None:
        """Nothing that waits is started any more."""
        queue, self._queue = self._queue, deque()
        self._drop(queue)

    def _drop(self, calls: Iterable[Call]) -> None:
        """They get no outcome."""
        for call in calls:
            self._calls.pop(call.id, None)
            tell_dropped(self._session, call)
            self._session.host.runner.cancel(call)

    async def call(self, call: ToolCall | Mapping[str, Any]) -> Any:
        """A call by the host: the whole chain, once per call id, whoever asks. Its value as JSON.

        Joins the call of that id if there is one. Raises ToolError with the wire's code, SessionClosedError.
        """
        if isinstance(call, ToolCall):
            call_id, name, args = call.id, call.name, call.args
        else:
            call_id, name, args = call_from_mapping(call)
        known = self._calls.get(call_id) if call_id else None
        if known is None and call_id and (outcome := earlier_call(self._log.records, call_id)) is not None:
            return value_of(outcome)
        if known is None:
            known = self._host_call(call_id, name, args)
        if known.consulting:
            return await self._perform(known)
        await known.wait()
        if (durable := self._log.durable()) is not None:
            await durable
        if known.outcome is None:
            raise SessionClosedError(f"session {self.id} was closed before the call had its outcome")
        return _value(known.outcome)

    async def _perform(self, call: Call) -> Any:
        """A listener executes the call: its handler runs once, and what it gives is the answer unless one is sent."""
        outcome = await asyncio.shield(self._session.host.runner.perform(call))
        if outcome is None:
            raise SessionClosedError(f"session {self.id} was closed, or the call answered, before its handler ended")
        return _value(outcome)

    def answer(self, call_id: str, value: Any, error: ToolError | None) -> bool:
        """Settle a call that its policy has let through; False if it has its outcome. The first answer counts."""
        call = self._calls.get(call_id)
        if call is None:
            if any(isinstance(r.fact, CallRequested) and r.fact.call_id == call_id for r in self._log.records):
                return False
            raise EnclaveError("no such call in this session", code="UNKNOWN_CALL")
        outcome = outcome_of(value, error, self.limits.max_tool_result_bytes)
        if not (call.consulting or call.state is CallState.STARTED):
            raise EnclaveError("the call has not been let through yet", code="UNKNOWN_CALL")
        answered = call.settle(outcome)
        if answered:
            call.stop()
        return answered

    def check_clients(self, call_id: str) -> None:
        """Raises SessionError for a call of a tool that the client doesn't execute."""
        call = self._calls.get(call_id)
        if call is not None and (call.tool is None or not call.tool.is_client):
            raise SessionError(
                "this tool is the broker's: a client answers only tools that it executes", code="CONFLICT"
            )

    def _host_call(self, call_id: str, name: str, args: dict[str, Any]) -> Call:
        if self._session.closed:
            raise SessionClosedError(f"session {self.id} is closed ({self._session.state})")
        if self.count >= self.limits.max_tool_calls:
            raise MaxToolCallsError(f"the session has made its {self.limits.max_tool_calls} tool calls")
        if call_id and not call_id.startswith("c_"):
            raise ConfigurationError(f"a call's id begins with 'c_', not {call_id[:20]!r}")
        text = json_text(args)
        if len(text) > self.limits.max_tool_args_bytes:
            limit = self.limits.max_tool_args_bytes
            raise ToolError(
                f"the arguments are over the {limit} bytes of max_tool_args_bytes", code="ARGUMENTS_TOO_LARGE"
            )
        batch = self._log.batch()
        if not self._log.records:
            self._session.introduce(batch)
        call = self._request(name, msgspec.json.decode(text), text, 0, batch, call_id)
        self._prepare(call, batch)
        self._session.commit(batch)
        self.begin_call(call)
        return call

    # -- Caller (calls/call.py) ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._session.sources.now()

    def allows(self, name: str) -> bool:
        if self._allowed is None:
            return True
        for glob in self._allowed:  # noqa: SIM110 any() costs as much as all the rest
            if glob.matches(name):
                return True
        return False

    @property
    def is_consulted(self) -> bool:
        return bool(self.listeners) or self._manual

    def durable(self) -> Awaitable[None] | None:
        return self._log.durable()

    def consult(self, call: Call) -> Awaitable[None] | None:
        return self._consult(call) if self.is_consulted else None

    async def _consult(self, call: Call) -> None:
        call.consulting = True
        call.step = "listeners"
        for listener in tuple(self.listeners):
            try:
                said = listener(call.public())
                if inspect.isawaitable(said):
                    await said
            except asyncio.CancelledError:
                raise
            except BaseException:
                log.exception("a listener failed on call %s of tool %s", call.id, call.name)
            if call.is_settled:
                return
        if self._manual and call.performing is None:
            await call.wait()
        call.consulting = False

    def waits_outside(self, call: Call) -> None:
        if call.id in self.running and not call.outside:
            call.outside = True
            self._outside += 1
            if self._session.execution is not None:
                self._session.execution.look()

    def goes_on(self, call: Call) -> None:
        """The call waits for nobody outside any more."""
        if call.outside:
            call.outside = False
            self._outside -= 1
            execution = self._session.execution
            if execution is not None and execution.clock is not None:
                execution.clock.go_on()

    def asked(self, call: Call, asked: Asked) -> Awaitable[None] | None:
        batch = self._log.batch()
        self._asked.add(asked)
        record_question(call, asked, batch)
        self._session.commit(batch)
        return self._log.durable()

    def answered(self, call: Call, asked: Asked) -> Awaitable[None] | None:
        batch = self._log.batch()
        record_answer(call, asked, batch)
        self._session.commit(batch)
        self.goes_on(call)
        return self._log.durable()

    def started(self, call: Call, args_hash: str) -> Awaitable[None] | None:
        batch = self._log.batch()
        _record_start(call, args_hash, batch)
        self._session.commit(batch)
        return self._log.durable()

    def settled(self, call: Call, outcome: Outcome) -> None:
        del self._calls[call.id]
        tell_settled(self._session, call, outcome)
        if not self._calls:
            self.changed_at = self._session.host.loop.time()
        if call.engine_id == 0 or self._session.execution is None:
            batch = self._log.batch()
            size = 0 if outcome.error else len(outcome.value)
            batch.weight = size
            value = msgspec.Raw(outcome.value)
            fact = CallSettled(call.id, None, value, outcome.error, outcome.rule, size, call.route)
            batch.event(ToolResultAppliedEvent, fact, call_id=call.id)
            self._session.commit(batch)
            return
        del self.running[call.id]
        self.goes_on(call)
        self._session.execution.answer(call, outcome)
        if self._queue and not self._draining:
            self._drain()

    def _drain(self) -> None:
        """Give places to those that wait. One that is refused at once frees its place within this."""
        self._draining = True
        try:
            while self._queue and len(self.running) < self.limits.max_concurrent_calls:
                batch = self._log.batch()
                following = self._queue.popleft()
                self.admit(following, batch)
                self._session.commit(batch)
                self.begin_call(following)
        finally:
            self._draining = False

    def told(self, call: Call, item: Progress | LogLine) -> None:
        if call.state is CallState.SETTLED:
            return
        batch = self._log.batch()
        if isinstance(item, LogLine):
            data, message = log_data(item.data), item.message.encode("utf-8", "replace").decode()
            batch.weight = len(message) + len(data)
            batch.event(LogEvent, level=item.level, message=message, data=msgspec.json.decode(data) or None)
        else:
            call.progress = item
            if batch.at - call.progressed_at < PROGRESS_SECONDS:
                return
            self._tell_progress(call, batch)
        self._session.commit(batch)

    def _tell_progress(self, call: Call, batch: Batch) -> None:
        """The last that the handler said."""
        item, call.progress, call.progressed_at = call.progress, None, batch.at
        if item is not None:
            batch.event(
                ToolProgressEvent,
                call_id=call.id,
                phase="receiving",
                elapsed_ms=batch.since(call.asked_at),
                bytes_received=int(item.done),
                total_bytes=None if item.total is None else int(item.total),
            )


def _value(outcome: Outcome) -> Any:
    """Raises ToolError, as the class that the code has."""
    if outcome.error is not None:
        raise tool_error(outcome.error.code, outcome.error.message, outcome.error.details)
    return msgspec.json.decode(outcome.value)


def _record_start(call: Call, args_hash: str, batch: Batch) -> None:
    """Audit before effect: the handler runs after this record."""
    effect = call.tool.effect if call.tool is not None else "write"
    fact = HandlerStarted(call.id, call.attempt, effect, args_hash, call.route, call.rule)
    batch.event(ToolProgressEvent, fact, call_id=call.id, phase="processing", elapsed_ms=batch.since(call.asked_at))
