"""Spans by the OpenTelemetry API, where the host has set up a tracer: `enclave.execute`, below it `enclave.tool NAME`.

A handler runs in its call's span, so that what the host traces by itself stands below it. No argument, result or
message is in a span. Where nobody has imported the API there can be no tracer: it is never imported here.
"""

from __future__ import annotations

import sys
from contextvars import copy_context
from typing import TYPE_CHECKING

from enclave_broker.broker.telemetry.facts import EndedCall, Outcome

if TYPE_CHECKING:
    from contextvars import Context

    from opentelemetry.context import Context as Carried
    from opentelemetry.trace import Span, Tracer

__all__ = ["Parent", "ToolSpan", "WaitSpan", "execute_span", "here"]

_SCOPE = "enclave_broker"
_API = "opentelemetry.trace"
_UNKNOWN = "enclave.tool (unknown)"
"""The name of a call that no tool takes: what scripts make up isn't a span's name."""


def here() -> Parent | None:
    """What spans below the caller's own current one are made from; None without a tracer."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    if isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):  # nobody has set one
        return None
    from opentelemetry import context, trace  # noqa: PLC0415 it is there, and used

    return Parent(trace.get_tracer(_SCOPE), context.get_current())


def execute_span(session_id: str) -> Parent | None:
    """Begin `enclave.execute`, below the caller's current span; None without a tracer."""
    parent = here()
    return None if parent is None else parent.execute(session_id)


class Parent:
    """Where spans of calls are hung up: an execution's span, or whatever the host has."""

    __slots__ = ("_carried", "_span", "_tracer")

    def __init__(self, tracer: Tracer, carried: Carried, span: Span | None = None) -> None:
        self._tracer = tracer
        self._carried = carried
        self._span = span

    def execute(self, session_id: str) -> Parent:
        attributes = {"enclave.session.id": session_id}
        span = self._tracer.start_span("enclave.execute", self._carried, attributes=attributes)
        return Parent(self._tracer, _with(span, self._carried), span)

    def tool(self, call: EndedCall, asked_at: float) -> ToolSpan:
        """Begin the span of a call that was asked for at `asked_at`, in seconds since the epoch."""
        attributes = {"enclave.session.id": call.caller.id, "enclave.call.id": call.id}
        span = self._tracer.start_span(
            _name(call), self._carried, attributes=attributes, start_time=int(asked_at * 1e9)
        )
        return ToolSpan(self._tracer, _with(span, self._carried), span)

    def end(self, status: str, code: str) -> None:
        """The execution is over. `code` is its error's, "" if it has none."""
        if self._span is not None:
            self._span.set_attribute("enclave.status", status)
            _end(self._span, code)


class ToolSpan:
    """The span of one call, and the context that its handler runs in."""

    __slots__ = ("_carried", "_span", "_tracer", "context")

    def __init__(self, tracer: Tracer, carried: Carried, span: Span) -> None:
        self._tracer = tracer
        self._carried = carried
        self._span = span
        self.context = _context_of(carried)
        """For the handler's task."""

    def wait(self, what: str) -> WaitSpan:
        """Begin `enclave.wait`: the call waits for a person. `what` is one of our words, such as "approval"."""
        return WaitSpan(self._tracer.start_span("enclave.wait", self._carried, attributes={"enclave.wait": what}))

    def end(self, call: EndedCall, outcome: Outcome, code: str, rule: str | None) -> None:
        """The call has its outcome, or gets none."""
        span = self._span
        if span.is_recording():
            span.update_name(_name(call))  # the policy may have had to wait for facts before it knew the tool
            span.set_attribute("enclave.outcome", outcome)
            span.set_attribute("enclave.attempts", call.attempt)
            if rule is not None:
                span.set_attribute("enclave.rule", rule)
        _end(span, code or ("" if outcome == "done" else outcome))


class WaitSpan:
    """The time that a call waits."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, decision: str) -> None:
        """One of our words, such as "approved"."""
        self._span.set_attribute("enclave.decision", decision)
        self._span.end()


def _name(call: EndedCall) -> str:
    """A tool's name follows a grammar, so that what a pattern takes does, too."""
    return _UNKNOWN if call.route is None else f"enclave.tool {call.name}"


def _with(span: Span, carried: Carried) -> Carried:
    from opentelemetry import trace  # noqa: PLC0415 as above

    return trace.set_span_in_context(span, carried)


def _context_of(carried: Carried) -> Context:
    """A context of its own for one task, in which the span is the current one."""
    from opentelemetry import context  # noqa: PLC0415 as above

    own = copy_context()
    own.run(context.attach, carried)
    return own


def _end(span: Span, code: str) -> None:
    if code and span.is_recording():
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 as above

        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR, code)
    span.end()
