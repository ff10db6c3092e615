"""What sessions tell: of each execution and each call once. Hands it on to counters, the audit line and spans.

One a broker, for all its starts, so that counters only grow. Made by broker.py, reached through a session's host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enclave_broker.broker.telemetry import spans
from enclave_broker.broker.telemetry.audit import Audit
from enclave_broker.broker.telemetry.counters import NO_TOOL, Counters
from enclave_broker.broker.telemetry.facts import EndedCall, Outcome

__all__ = ["Telemetry"]


class Telemetry:
    """See the module. In the broker's loop only."""

    __slots__ = ("_audit", "counters", "workers")

    def __init__(self, audit: Audit | None = None) -> None:
        self.counters = Counters()
        self._audit = audit or Audit()
        self.workers: Callable[[], Sequence[int]] = tuple
        """The ids of the worker processes that are ready."""

    def execution_started(self, session_id: str) -> spans.Parent | None:
        """In the context of whoever asked for it. What its calls' spans stand below, if there is a tracer."""
        self.counters.executions_started += 1
        return spans.execute_span(session_id)

    def execution_ended(self, span: spans.Parent | None, status: str, code: str, seconds: float) -> None:
        """`code` is its error's, "" if it has none. Its calls have been told of before."""
        self.counters.execution(status, seconds)
        if span is not None:
            span.end(status, code)

    def call_ended(
        self,
        call: EndedCall,
        span: spans.ToolSpan | None,
        outcome: Outcome,
        code: str,
        rule: str | None,
        seconds: float,
        result_bytes: int,
    ) -> None:
        """The call has its outcome, or gets none; `seconds` are since it was asked for."""
        self.counters.call(call.route or NO_TOOL, outcome, code, seconds)
        self._audit.call(call, outcome, code, rule, seconds, result_bytes)
        if span is not None:
            span.end(call, outcome, code, rule)
