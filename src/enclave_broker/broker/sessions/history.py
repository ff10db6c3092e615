"""What an execution came to, read from its log: calls, output, result, and what the session was at any event.

Pure functions of the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from enclave_broker.broker.calls.shown_arguments import Reading, ShownArguments
from enclave_broker.broker.sessions.log import json_copy
from enclave_broker.broker.sessions.machine import State
from enclave_broker.broker.store.records import (
    ApprovalAsked,
    ApprovalDecided,
    CallRequested,
    CallSettled,
    Ended,
    ExecutionStarted,
    HandlerStarted,
    Opened,
    Record,
)
from enclave_broker.types.calls import Effect
from enclave_broker.types.errors import ConfigurationError, OutcomeUnknownError, ToolError, tool_error
from enclave_broker.types.events import StdoutEvent, ToolProgressEvent
from enclave_broker.types.messages import CallFulfilled
from enclave_broker.types.results import CallRecord, ExecutionResult, Outcome, ScriptError, SessionState, Stage

__all__ = [
    "Trace",
    "call_records",
    "earlier_call",
    "execution_result",
    "failed_outcome",
    "settled_call",
    "state_at",
    "stdout",
    "traces",
    "value_of",
]

DENIALS = frozenset(
    {"UNKNOWN_TOOL", "TOOL_NOT_ALLOWED", "ACCESS_DENIED", "RATE_LIMITED", "APPROVAL_DENIED", "APPROVAL_EXPIRED"}
)
"""The codes by which the policy refuses a call before its handler."""


def failed_outcome(code: str, effect: Effect | None) -> Outcome:
    """The word for a call that has this error, given its tool's effect, None if its handler was never started.

    Of a handler that ran out of time nobody knows what it did, nor whether its thread still does it.
    """
    if effect is None:
        return "denied" if code in DENIALS else "failed"
    return "unknown" if code == "TOOL_TIMEOUT" and effect != "read" else "failed"


class Trace:
    """What the log has of one call."""

    __slots__ = ("asked", "decided_by", "is_asking", "over", "principal", "request", "settled", "stages", "started")

    def __init__(self, request: CallRequested, principal: str, at: float) -> None:
        self.request = request
        self.principal = principal
        self.stages = [Stage("requested", at)]
        self.asked: ApprovalAsked | None = None
        self.is_asking = False
        """Whether it waits for a person."""
        self.started: HandlerStarted | None = None
        self.settled: CallSettled | None = None
        self.decided_by: str | None = None
        self.over = False
        """Whether its execution has ended."""

    def asks(self, fact: ApprovalAsked, at: float) -> None:
        self.asked, self.is_asking = fact, True
        self.stages.append(Stage("asked", at))

    def decided(self, fact: ApprovalDecided, at: float) -> None:
        self.is_asking, self.decided_by = False, fact.subject
        self.stages.append(Stage("decided", at))

    def begun(self, fact: HandlerStarted, at: float) -> None:
        self.started = fact
        self.stages.append(Stage("started", at))

    def ended(self, fact: CallSettled, at: float) -> None:
        self.settled = fact
        self.stages.append(Stage("settled", at))

    @property
    def is_placed(self) -> bool:
        return any(stage.name == "placed" for stage in self.stages)

    def record(self, reading: Reading, *, closed: bool = False) -> CallRecord:
        """As history shows it.

        A call without outcome is `waiting` while its execution runs, or for one that the host made while the session
        isn't `closed`; after that `unknown` if its handler was started (nobody knows how it ended), `not_run` if not.
        One without time is `unknown`, too, unless it only reads.
        """
        request, started, settled = self.request, self.started, self.settled
        outcome: Outcome
        if settled is not None:
            effect = None if started is None else started.effect
            outcome = "done" if settled.error is None else failed_outcome(settled.error.code, effect)
        elif not (self.over or closed):
            outcome = "waiting"
        else:
            outcome = "not_run" if started is None else "unknown"
        told = settled or started
        rule = told.rule if told is not None else None if self.asked is None else self.asked.rule
        return CallRecord(
            id=request.call_id,
            name=request.name,
            args=reading.args(request.name, bytes(request.args)),
            outcome=outcome,
            error=None if settled is None else reading.error(request.name, settled.error),
            rule=rule,
            started=next((stage.at for stage in self.stages if stage.name == "started"), None),
            duration=None if settled is None else self.stages[-1].at - self.stages[0].at,
            args_bytes=len(bytes(request.args)),
            result_bytes=0 if settled is None else settled.result_bytes,
            by_host=request.engine_id == 0,
            principal=self.principal,
            route=None if told is None else told.route,
            stages=tuple(self.stages),
            decided_by=self.decided_by,
        )


def traces(records: Sequence[Record]) -> Mapping[str, Trace]:
    """Of each call by its id, in the order in which they were asked for. One from before these records has none."""
    found: dict[str, Trace] = {}
    principal = ""
    for record in records:
        fact = record.fact
        if type(fact) is CallRequested:
            found[fact.call_id] = Trace(fact, principal, record.at)
        elif type(fact) is HandlerStarted and fact.call_id in found:
            found[fact.call_id].begun(fact, record.at)
        elif type(fact) is ApprovalAsked:
            if fact.call_id in found:
                found[fact.call_id].asks(fact, record.at)
        elif type(fact) is ApprovalDecided and fact.call_id in found:
            found[fact.call_id].decided(fact, record.at)
        elif type(fact) is CallSettled and fact.call_id in found:
            found[fact.call_id].ended(fact, record.at)
        elif type(fact) is Ended:
            for trace in found.values():
                trace.over = trace.over or trace.request.engine_id != 0
        elif type(fact) is ExecutionStarted or type(fact) is Opened:
            principal = fact.principal.subject
        elif type(record.public) is ToolProgressEvent and record.public.phase == "connecting":
            found[record.public.call_id].stages.append(Stage("placed", record.at))
    return found


def call_records(records: Sequence[Record], shown: ShownArguments, *, closed: bool = False) -> list[CallRecord]:
    """The calls in the order in which they were asked for."""
    reading = shown.reading()
    return [trace.record(reading, closed=closed) for trace in traces(records).values()]


def stdout(records: Sequence[Record]) -> str:
    return "".join([record.public.chunk for record in records if type(record.public) is StdoutEvent])


def _error_copy(error: ScriptError | None) -> ScriptError | None:
    if error is None or error.details is None:
        return error
    return msgspec.structs.replace(error, details=json_copy(error.details))


def execution_result(session_id: str, records: Sequence[Record], shown: ShownArguments) -> ExecutionResult[Any]:
    """The result of a finished execution, given its records from the start on. Nothing of it is shared with the log.

    What came after its end is no part of it.
    """
    end, ended = next((at, record.fact) for at, record in enumerate(records) if isinstance(record.fact, Ended))
    records = records[: end + 1]
    status: Any = ended.status
    return ExecutionResult(
        ok=ended.ok,
        status=status,
        value=None if ended.value is msgspec.UNSET else json_copy(ended.value),
        error=_error_copy(ended.error),
        stdout=stdout(records),
        calls=call_records(records, shown),
        stats=ended.stats,
        session_id=session_id,
    )


def state_at(
    session_id: str, records: Sequence[Record], seq: int, shown: ShownArguments, *, closed: bool = False
) -> SessionState:
    """What the session was right after the event `seq`; after its last one nothing comes if it is `closed`.

    Raises ConfigurationError for a `seq` that it doesn't have.
    """
    last = next((record.public.seq for record in reversed(records) if record.public is not None), 0)
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq <= last:  # pyright: ignore[reportUnnecessaryIsInstance] input
        has = f"has the events 1 to {last}" if last else "has no events yet"
        raise ConfigurationError(f"session {session_id} {has}, not {seq!r}")
    place = next(at for at, record in enumerate(records) if record.public is not None and record.public.seq == seq)
    past = records[: place + 1]
    began = next((at for at in range(place, -1, -1) if isinstance(past[at].fact, ExecutionStarted)), None)
    execution: Sequence[Record] = () if began is None else past[began:]
    calls = traces(past)
    reading, result = shown.reading(), None
    if any(isinstance(record.fact, Ended) for record in execution):
        result = execution_result(session_id, execution, shown)
        state = State(result.status)
    elif began is None:
        state = State.STARTING
    else:
        waiting = [each for each in calls.values() if each.is_placed and each.settled is None and not each.over]
        if any(each.is_asking for each in waiting):
            state = State.WAITING_FOR_APPROVAL
        else:
            state = State.WAITING_FOR_TOOL if waiting else State.RUNNING
    return SessionState(
        seq=seq,
        at=datetime.fromtimestamp(past[-1].at, UTC),
        state=str(state),
        stdout=stdout(execution),
        calls=[trace.record(reading, closed=closed and seq == last) for trace in calls.values()],
        result=result,
    )


def settled_call(records: Sequence[Record], call_id: str) -> CallSettled | None:
    """The outcome of a call, if it has one."""
    for record in reversed(records):
        if isinstance(record.fact, CallSettled) and record.fact.call_id == call_id:
            return record.fact
    return None


def earlier_call(records: Sequence[Record], call_id: str) -> CallSettled | None:
    """The outcome of a call that is not under way any more, None if there was none of that id.

    Raises OutcomeUnknownError for one whose handler was started and nobody knows how it ended, ToolError with
    NOT_EXECUTED for one that never was.
    """
    if (settled := settled_call(records, call_id)) is not None:
        return settled
    facts = [record.fact for record in records]
    if any(isinstance(fact, HandlerStarted) and fact.call_id == call_id for fact in facts):
        raise OutcomeUnknownError(f"call {call_id} was started, and nobody knows how it ended; it is not started again")
    if any(isinstance(fact, CallRequested) and fact.call_id == call_id for fact in facts):
        raise ToolError(f"call {call_id} was never started: ask for it again under another id", code="NOT_EXECUTED")
    return None


def value_of(settled: CallSettled) -> Any:
    """The value of a call as JSON. Raises ToolError, as the class that the code has."""
    if settled.error is not None:
        raise tool_error(settled.error.code, settled.error.message, settled.error.details)
    if settled.value is not None:
        return msgspec.json.decode(settled.value)
    assert isinstance(settled.input, CallFulfilled)
    return msgspec.json.decode(settled.input.value)
