"""What a session tells of its calls to telemetry/: that one begins, and its end, once each.

Called by sessions/call_table.py. The words for an outcome are history's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enclave_broker.broker.calls.call import Call, Outcome
from enclave_broker.broker.sessions.history import failed_outcome
from enclave_broker.broker.telemetry.spans import here

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.session import Session

__all__ = ["tell_begun", "tell_dropped", "tell_settled"]


def tell_begun(session: Session, call: Call) -> None:
    """Its span begins, if there is a tracer: below the execution's, or below the host's own for a call of the host."""
    parent = session.execution.span if call.engine_id and session.execution is not None else here()
    if parent is not None:
        call.span = parent.tool(call, call.asked_at)


def tell_settled(session: Session, call: Call, outcome: Outcome) -> None:
    """It has its outcome."""
    seconds = session.sources.now() - call.asked_at
    error, telemetry = outcome.error, session.host.telemetry
    if error is None:
        telemetry.call_ended(call, call.span, "done", "", call.rule, seconds, len(outcome.value))
    else:
        effect = call.tool.effect if call.attempt and call.tool is not None else None
        word = failed_outcome(error.code, effect)
        telemetry.call_ended(call, call.span, word, error.code, outcome.rule, seconds, 0)


def tell_dropped(session: Session, call: Call) -> None:
    """It gets none: `unknown` if its handler was started, since nobody knows how far that came."""
    seconds = session.sources.now() - call.asked_at
    word = "unknown" if call.attempt else "not_run"
    session.host.telemetry.call_ended(call, call.span, word, "", call.rule, seconds, 0)
