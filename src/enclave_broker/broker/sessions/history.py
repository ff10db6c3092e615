"""What an execution came to, read from its log: calls, output, result. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from enclave_broker.broker.sessions.log import json_copy
from enclave_broker.broker.store.records import CallRequested, CallSettled, Ended, HandlerStarted, Record
from enclave_broker.types.errors import OutcomeUnknownError, ToolError
from enclave_broker.types.events import StdoutEvent
from enclave_broker.types.messages import CallFulfilled
from enclave_broker.types.results import CallRecord, ExecutionResult, Outcome, ScriptError

__all__ = ["call_records", "earlier_call", "execution_result", "settled_call", "stdout", "value_of"]

DENIALS = frozenset(
    {"UNKNOWN_TOOL", "TOOL_NOT_ALLOWED", "ACCESS_DENIED", "RATE_LIMITED", "APPROVAL_DENIED", "APPROVAL_EXPIRED"}
)
"""The codes by which a call's outcome is `denied`: the policy refused it before its handler."""


def call_records(records: Sequence[Record], *, closed: bool = False) -> list[CallRecord]:
    """The calls in the order in which they were asked for.

    A call without outcome is `waiting` while its execution runs, or for one that the host made while the session isn't
    `closed`; after that `unknown` if its handler was started (nobody knows how it ended) and `not_run` if not.
    """
    asked: dict[str, tuple[CallRequested, float]] = {}
    started: dict[str, float] = {}
    settled: dict[str, tuple[CallSettled, float]] = {}
    over: set[str] = set()
    for record in records:
        fact = record.fact
        if type(fact) is CallRequested:
            asked[fact.call_id] = (fact, record.at)
        elif type(fact) is HandlerStarted:
            started[fact.call_id] = record.at
        elif type(fact) is CallSettled:
            settled[fact.call_id] = (fact, record.at)
        elif type(fact) is Ended:
            over.update(call_id for call_id, (request, _) in asked.items() if request.engine_id)
    return [
        _record(request, at, started.get(call_id), settled.get(call_id), over=closed or call_id in over)
        for call_id, (request, at) in asked.items()
    ]


def _record(
    request: CallRequested, at: float, started: float | None, settled: tuple[CallSettled, float] | None, *, over: bool
) -> CallRecord:
    outcome: Outcome
    if settled is None:
        outcome = "waiting" if not over else "not_run" if started is None else "unknown"
        return CallRecord(
            id=request.call_id,
            name=request.name,
            args=msgspec.json.decode(request.args),
            outcome=outcome,
            started=started,
            args_bytes=len(bytes(request.args)),
            by_host=request.engine_id == 0,
        )
    fact, ended = settled
    outcome = "done" if fact.error is None else "denied" if fact.error.code in DENIALS else "failed"
    return CallRecord(
        id=request.call_id,
        name=request.name,
        args=msgspec.json.decode(request.args),
        outcome=outcome,
        error=fact.error,
        rule=fact.rule,
        started=started,
        duration=ended - at,
        args_bytes=len(bytes(request.args)),
        result_bytes=fact.result_bytes,
        by_host=request.engine_id == 0,
    )


def stdout(records: Sequence[Record]) -> str:
    return "".join([record.public.chunk for record in records if type(record.public) is StdoutEvent])


def _error_copy(error: ScriptError | None) -> ScriptError | None:
    if error is None or error.details is None:
        return error
    return msgspec.structs.replace(error, details=json_copy(error.details))


def execution_result(session_id: str, records: Sequence[Record]) -> ExecutionResult[Any]:
    """The result of a finished execution, given its records from the start on. Nothing of it is shared with the log."""
    ended = next(record.fact for record in reversed(records) if isinstance(record.fact, Ended))
    status: Any = ended.status
    return ExecutionResult(
        ok=ended.ok,
        status=status,
        value=None if ended.value is msgspec.UNSET else json_copy(ended.value),
        error=_error_copy(ended.error),
        stdout=stdout(records),
        calls=call_records(records),
        stats=ended.stats,
        session_id=session_id,
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
    """The value of a call as JSON. Raises ToolError with the code that the script got."""
    if settled.error is not None:
        raise ToolError(settled.error.message, code=settled.error.code, details=settled.error.details)
    if settled.value is not None:
        return msgspec.json.decode(settled.value)
    assert isinstance(settled.input, CallFulfilled)
    return msgspec.json.decode(settled.input.value)
