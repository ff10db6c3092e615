"""Spans, collected by the SDK of OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from enclave_broker import Broker, Principal, ToolError
from enclave_broker.broker.telemetry.spans import ToolSpan, execute_span, here
from tests.broker.sessions.support import twin_broker

TWO = "await Promise.all([tools.orders.get({ id: 1 }), tools.orders.get({ id: 2 })])"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What has ended so far. A process may set a provider once, so that a test sets it behind the API."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = named(exporter, name)
    return span


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id  # pyright: ignore[reportOptionalMemberAccess]


def add_tools(broker: Broker) -> None:
    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> int:
        await asyncio.sleep(0)
        with trace.get_tracer("host").start_as_current_span(f"select {id}"):
            await asyncio.sleep(0)
        if id > 3:
            raise ToolError("no such order", code="NO_SUCH_ORDER")
        return id

    @broker.tool("orders:sync", effect="read")
    def sync() -> str:
        with trace.get_tracer("host").start_as_current_span("in a thread"):
            return str(baggage.get_baggage("customer"))

    @broker.tool("wait")
    async def wait() -> None:
        await asyncio.Event().wait()


async def test_an_execution_stands_below_the_callers_span_and_its_calls_below_it(
    exporter: InMemorySpanExporter,
) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        with trace.get_tracer("host").start_as_current_span("request"):
            result = await broker.execute(TWO)
        assert result.ok
    request, execution = one(exporter, "request"), one(exporter, "enclave.execute")
    calls = named(exporter, "enclave.tool orders:get")
    assert is_below(execution, request)
    assert len(calls) == 2
    assert all(is_below(call, execution) for call in calls)
    assert execution.attributes == {"enclave.session.id": result.session_id, "enclave.status": "completed"}
    assert [dict(call.attributes or {}) for call in calls] == [
        {
            "enclave.session.id": result.session_id,
            "enclave.call.id": call.id,
            "enclave.outcome": "done",
            "enclave.attempts": 1,
        }
        for call in result.calls
    ]


async def test_what_a_handler_traces_stands_below_its_own_call(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        result = await broker.execute(TWO)
    for id, call in enumerate(result.calls, 1):
        (span,) = [
            span
            for span in named(exporter, "enclave.tool orders:get")
            if (span.attributes or {})["enclave.call.id"] == call.id
        ]
        assert is_below(one(exporter, f"select {id}"), span)


async def test_a_handler_in_a_thread_stands_there_too_with_the_callers_baggage(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        token = context.attach(baggage.set_baggage("customer", "acme"))
        try:
            result = await broker.execute("return await tools.orders.sync({})")
        finally:
            context.detach(token)
    assert result.value == "acme"
    assert is_below(one(exporter, "in a thread"), one(exporter, "enclave.tool orders:sync"))


async def test_failures_and_refusals_are_errors_with_their_code_and_no_text(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        await broker.execute(
            "await callTool('made up by \\n the script', {}).catch(() => 0); await tools.orders.get({ id: 9 })"
        )
    failed, unknown = one(exporter, "enclave.tool orders:get"), one(exporter, "enclave.tool (unknown)")
    for span, outcome, code, rule in [
        (failed, "failed", "NO_SUCH_ORDER", "handler"),
        (unknown, "denied", "UNKNOWN_TOOL", "route"),
    ]:
        attributes = span.attributes or {}
        assert (attributes["enclave.outcome"], attributes["enclave.rule"]) == (outcome, rule)
        assert attributes["error.type"] == code
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, code)
        assert span.events == ()
    execution = one(exporter, "enclave.execute")
    assert (execution.attributes or {})["enclave.status"] == "failed"
    assert execution.status.description == "NO_SUCH_ORDER"
    assert "no such order" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_no_span_is_left_open_when_a_session_ends_in_mid_call(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        await broker.execute(
            "tools.wait({}); for (let i = 0; i < 3; i++) await tools.orders.get({ id: i }); await sleep(60000)",
            timeout=0.3,
        )
    call, execution = one(exporter, "enclave.tool wait"), one(exporter, "enclave.execute")
    assert (call.attributes or {})["enclave.outcome"] == "unknown"
    assert call.status.description == "unknown"
    assert execution.status.description == "SESSION_EXPIRED"
    assert call.end_time is not None
    assert execution.end_time is not None
    assert call.end_time <= execution.end_time


async def test_a_call_of_the_hosts_stands_below_the_hosts_span(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        session = await broker.create_session()
        with trace.get_tracer("host").start_as_current_span("request"):
            await broker.execute_tool_call(session.id, {"name": "orders:get", "args": {"id": 1}})
    assert is_below(one(exporter, "enclave.tool orders:get"), one(exporter, "request"))


async def test_the_time_of_a_wait_is_a_span_below_its_call(exporter: InMemorySpanExporter) -> None:
    parent = here()
    assert parent is not None
    with trace.get_tracer("host").start_as_current_span("request") as request:
        call = ToolSpan(trace.get_tracer("host"), context.get_current(), request)
        call.wait("approval").end("approved")
    wait = one(exporter, "enclave.wait")
    assert is_below(wait, one(exporter, "request"))
    assert wait.attributes == {"enclave.wait": "approval", "enclave.decision": "approved"}


async def test_without_a_provider_there_is_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert here() is None
    assert execute_span("s_1") is None
    async with twin_broker() as broker:
        add_tools(broker)
        assert (await broker.execute(TWO)).ok


def test_the_api_is_not_imported_for_a_host_that_does_not_trace() -> None:
    program = (
        "import asyncio, sys\n"
        "from enclave_broker import Broker\n"
        "asyncio.run(Broker().execute('return 1'))\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in {'opentelemetry', 'prometheus_client'}]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_the_wait_for_a_person_is_a_span_of_its_own_below_the_call(exporter: InMemorySpanExporter) -> None:
    async with twin_broker() as broker:

        @broker.tool("refund", requires_approval=True)
        async def refund() -> None:
            with trace.get_tracer("host").start_as_current_span("pay"):
                pass

        for word in ("approve", "deny"):
            result = await broker.execute("await tools.refund({}).catch(() => null)", return_when="waiting")
            assert named(exporter, "enclave.wait")[bool(word == "deny") :] == []
            await getattr(broker.approvals, word)(result.pending[0].id, by=Principal("bea"))
            session = broker.sessions.get(result.session_id)
            assert session is not None
            await session.wait()
        tools, waits = named(exporter, "enclave.tool refund"), named(exporter, "enclave.wait")
        assert [wait.attributes for wait in waits] == [
            {"enclave.wait": "approval", "enclave.decision": "approved"},
            {"enclave.wait": "approval", "enclave.decision": "denied"},
        ]
        assert all(is_below(wait, tool) for wait, tool in zip(waits, tools, strict=True))
        assert is_below(one(exporter, "pay"), tools[0])
