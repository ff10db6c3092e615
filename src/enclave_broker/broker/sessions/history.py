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
from enclave_broker.types.results import CallRecord, ExecutionResult, ScriptError

__all__ = ["call_records", "earlier_call", "execution_result", "settled_call", "stdout", "value_of"]

DENIALS = frozenset(
    {"UNKNOWN_TOOL", "TOOL_NOT_ALLOWED", "ACCESS_DENIED", "RATE_LIMITED", "APPROVAL_DENIED", "APPROVAL_EXPIRED"}
)
"""The codes by which a call's outcome is `denied`: the policy refused it before its handler."""


class _Draft:
    __slots__ = ("asked", "over", "requested", "settled", "settled_at", "started_at")

    def __init__(self, requested: CallRequested, asked: float) -> None:
        self.requested = requested
        self.asked = asked
        self.over = False
        """Whether it can't get an outcome any more."""
        self.started_at: float | None = None
        self.settled: CallSettled | None = None
        self.settled_at = 0.0

    def outcome(self) -> Any:
        if self.settled is None:
            if not self.over:
                return "waiting"
            return "unknown" if self.started_at is not None else "not_run"
        if self.settled.error is None:
            return "done"
        return "denied" if self.settled.error.code in DENIALS else "failed"

    def record(self) -> CallRecord:
        requested, settled = self.requested, self.settled
        return CallRecord(
            id=requested.call_id,
            name=requested.name,
            args=msgspec.json.decode(requested.args),
            outcome=self.outcome(),
            error=settled.error if settled else None,
            rule=settled.rule if settled else None,
            started=self.started_at,
            duration=self.settled_at - self.asked if settled else None,
            args_bytes=len(bytes(requested.args)),
            result_bytes=settled.result_bytes if settled else 0,
            by_host=requested.engine_id == 0,
        )


def call_records(records: Sequence[Record], *, closed: bool = False) -> list[CallRecord]:
    """The calls in the order in which they were asked for.

    A call without outcome is `waiting` while its execution runs, or for one that the host made while the session isn't
    `closed`; after that `unknown` if its handler was started (nobody knows how it ended) and `not_run` if not.
    """
    drafts: dict[str, _Draft] = {}
    for record in records:
        fact = record.fact
        if isinstance(fact, CallRequested):
            drafts[fact.call_id] = _Draft(fact, record.at)
        elif isinstance(fact, HandlerStarted):
            if (draft := drafts.get(fact.call_id)) is not None:
                draft.started_at = record.at
        elif isinstance(fact, CallSettled):
            if (draft := drafts.get(fact.call_id)) is not None:
                draft.settled, draft.settled_at = fact, record.at
        elif isinstance(fact, Ended):
            for draft in drafts.values():
                draft.over = draft.over or draft.requested.engine_id > 0
    for draft in drafts.values():
        draft.over = draft.over or closed
    return [draft.record() for draft in drafts.values()]


def stdout(records: Sequence[Record]) -> str:
    return "".join(record.public.chunk for record in records if isinstance(record.public, StdoutEvent))


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
