"""One script in a session of its own, to its end or until it only waits for people: what `Broker.execute` does.

The session is opened by the broker; sessions/ runs it. One that waits stays, and can be read when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from enclave_broker.broker.calls.approvals import Approvals
from enclave_broker.broker.observers import EventCallback
from enclave_broker.broker.sessions.asking import only_waits_for_people, until_only_people
from enclave_broker.broker.sessions.execution import Execution
from enclave_broker.broker.sessions.history import call_records, stdout
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.store.records import StepDone
from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.results import ExecutionResult, ExecutionStats

__all__ = ["ReturnWhen", "check_run", "one_run"]

ReturnWhen = Literal["final", "waiting"]


def check_run(return_when: object, on_event: object) -> bool:
    """Whether the run comes back when it waits for people. Raises ConfigurationError."""
    if on_event is not None and not callable(on_event):
        raise ConfigurationError(f"on_event is a function of an event, not {on_event!r}")
    if return_when not in {"final", "waiting"}:
        raise ConfigurationError(f"return_when is 'final' or 'waiting', not {return_when!r}")
    return return_when == "waiting"


async def one_run(
    session: Session,
    code: str,
    language: str,
    on_event: EventCallback | None,
    *,
    sessions: SessionManager,
    approvals: Approvals | None,
) -> ExecutionResult[Any]:
    """Nothing is left of the session, unless it waits: then it goes on. With `approvals` this comes back then."""
    keeps = False
    try:
        execution = session.begin(code, language)
        watching = None
        if on_event is not None:
            watching = session.host.observers.watch(session.events(), on_event)
        if approvals is not None:
            await until_only_people(session, execution)
            if only_waits_for_people(session):
                keeps = True
                return _waiting(session, execution, approvals.of(session.calls))
        result = await session.result_of(execution)
        if watching is not None:
            await asyncio.wait({watching})
        return result
    finally:
        if not keeps:
            session.close("SESSION_CANCELLED", "whoever waited for the result went away", status="cancelled")
            sessions.forget(session)


def _waiting(session: Session, execution: Execution, pending: Sequence[Approval]) -> ExecutionResult[Any]:
    """What there is of it so far."""
    records = session.log.records[execution.first_index : session.log.published]
    printed = stdout(records)
    cpu_us = sum(record.fact.cpu_us for record in records if isinstance(record.fact, StepDone))
    return ExecutionResult(
        ok=False,
        status="waiting",
        value=None,
        error=None,
        stdout=printed,
        calls=call_records(records, session.host.shown),
        stats=ExecutionStats(
            duration=execution.duration,
            tool_call_count=session.calls.count,
            stdout_bytes=len(printed.encode()),
            cpu_time=cpu_us / 1e6,
        ),
        session_id=session.id,
        pending=list(pending),
    )
