"""What a session's log has of its questions to people, and which of its calls wait for an answer.

Called by sessions/call_table.py. Who is asked, and who may answer, is calls/asked.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enclave_broker.broker.calls.asked import Asked
from enclave_broker.broker.calls.call import Call
from enclave_broker.broker.sessions.log import Batch
from enclave_broker.broker.store.records import ApprovalAsked, ApprovalDecided
from enclave_broker.types.events import ToolProgressEvent

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.execution import Execution
    from enclave_broker.broker.sessions.session import Session

__all__ = ["only_waits_for_people", "record_answer", "record_question", "until_only_people", "waits_for_people"]


def record_question(call: Call, asked: Asked, batch: Batch) -> None:
    """Readers hear that the call has got no further; a client that doesn't know approvals sees one that takes long."""
    fact = ApprovalAsked(asked.id, call.id, asked.args_hash, asked.shown, asked.expires_at)
    batch.weight += len(asked.shown)
    batch.event(ToolProgressEvent, fact, call_id=call.id, phase="connecting", elapsed_ms=batch.since(call.asked_at))


def record_answer(call: Call, asked: Asked, batch: Batch) -> None:
    """An input: a replay obeys it and asks nobody."""
    assert asked.answer is not None
    word, by, reason = asked.answer
    subject, tenant = (None, None) if by is None else (by.subject, by.tenant)
    fact = ApprovalDecided(asked.id, call.id, word, subject, tenant, reason)
    batch.weight += len(reason)
    batch.event(ToolProgressEvent, fact, call_id=call.id, phase="sending", elapsed_ms=batch.since(call.asked_at))


def waits_for_people(session: Session) -> bool:
    """Whether one of the script's calls waits for approval."""
    return any(map(_waits, session.calls.running.values()))


def only_waits_for_people(session: Session) -> bool:
    """Whether all that is under way does, so that the clock stands."""
    execution = session.execution
    if execution is None or execution.over or execution.clock is None or not execution.clock.stands:
        return False
    return session.calls.all_wait_outside and all(map(_waits, session.calls.running.values()))


async def until_only_people(session: Session, execution: Execution) -> None:
    """Until all that is under way waits for approval, or the execution is over. Cancelling this is safe."""
    while not (execution.done or only_waits_for_people(session)):
        await execution.changed()


def _waits(call: Call) -> bool:
    return call.outside and call.step == "approval"
