"""One record a call, on the logger `enclave_broker.audit`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from typing import Any

import pytest

from enclave_broker import (
    AccessController,
    AccessDeniedError,
    Broker,
    Principal,
    RateLimit,
    RateLimiter,
    Rule,
    SessionLimits,
    ToolCall,
    ToolError,
)
from tests.broker.sessions.support import twin_broker, until

BOB = Principal("bob", tenant="acme", roles=frozenset({"support"}))
EVIL = "bob\n2026-01-01 ERROR forged\r\x1b[31m\u2028\u202e"


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "enclave_broker.audit")
    return caplog


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == "enclave_broker.audit"]


def add_tools(broker: Broker) -> asyncio.Event:
    started = asyncio.Event()

    @broker.tool("orders:get", effect="read")
    async def get(id: int, note: str = "") -> str:
        if id > 3:
            raise ToolError(f"there is no order {id}, said {note}", code="NO_SUCH_ORDER")
        return f"result of {note}"

    @broker.tool("wait")
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    return started


async def test_a_call_is_one_record_with_its_facts(audit: pytest.LogCaptureFixture) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        result = await broker.execute("return await tools.orders.get({ id: 1 })", principal=BOB)
    (record,) = records(audit)
    (call,) = result.calls
    assert (record.levelname, record.event) == ("INFO", "tool_call")
    assert (record.session_id, record.call_id) == (result.session_id, call.id)
    assert (record.tool, record.route, record.outcome) == ("orders:get", "orders:get", "done")
    assert (record.subject, record.tenant) == ("bob", "acme")
    assert (record.rule, record.error_code, record.attempts, record.by_host) == (None, None, 1, False)
    assert (record.args_bytes, record.result_bytes) == (call.args_bytes, call.result_bytes)
    assert record.args_hash == hashlib.sha256(b'{"id":1}').hexdigest()
    assert record.duration_ms >= 0


async def test_a_failure_and_a_refusal_have_their_code_and_what_decided(audit: pytest.LogCaptureFixture) -> None:
    rules = [Rule("orders:*", allow=True), Rule("wait", allow=False)]
    options = {"access": AccessController(rules=rules, default_policy="deny")}
    limiter = RateLimiter(per_tool={"orders:*": RateLimit(1, 3600.0)})
    async with twin_broker(**options, rate_limiter=limiter) as broker:
        add_tools(broker)
        calls = [f"await tools.orders.get({{ id: {id} }}).catch(() => 0)" for id in (7, 1)]
        calls += ["await tools.wait({}).catch(() => 0)", "await callTool('no:such', {}).catch(() => 0)"]
        await broker.execute(";".join(calls), principal=BOB)
    failed, limited, denied, unknown = records(audit)
    assert (failed.outcome, failed.error_code, failed.rule) == ("failed", "NO_SUCH_ORDER", "handler")
    assert (limited.outcome, limited.error_code, limited.attempts) == ("denied", "RATE_LIMITED", 0)
    assert (denied.outcome, denied.error_code, denied.route) == ("denied", "ACCESS_DENIED", "wait")
    assert denied.rule.startswith("access: wait")
    assert (unknown.outcome, unknown.error_code, unknown.route) == ("denied", "UNKNOWN_TOOL", None)
    assert (unknown.tool, unknown.rule) == ("no:such", "route")


async def test_the_outcome_in_a_record_is_that_of_history(audit: pytest.LogCaptureFixture) -> None:
    async def too_late(call: ToolCall, call_next: Any) -> Any:
        await call_next(call)
        raise AccessDeniedError("not you")

    async with twin_broker(limits=SessionLimits(tool_timeout=0.05)) as broker:
        add_tools(broker)

        @broker.tool("late", middleware=[too_late])
        async def late() -> None: ...

        result = await broker.execute("for (const name of ['wait', 'late']) await callTool(name, {}).catch(() => 0)")
    found = [("unknown", "TOOL_TIMEOUT"), ("failed", "ACCESS_DENIED")]
    assert [(call.outcome, call.error and call.error.code) for call in result.calls] == found
    assert [(record.outcome, record.error_code) for record in records(audit)] == found


async def test_no_value_of_a_call_is_in_its_record(audit: pytest.LogCaptureFixture) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        code = "await tools.orders.get({ id: 1, note: 'xyzzy' }); await tools.orders.get({ id: 9, note: 'xyzzy' })"
        await broker.execute(code)
    assert len(records(audit)) == 2
    assert "xyzzy" not in "".join(f"{record.getMessage()} {vars(record)}" for record in records(audit))


async def test_a_call_whose_session_ends_has_its_record_too(audit: pytest.LogCaptureFixture) -> None:
    limits = SessionLimits(max_concurrent_calls=1)
    async with twin_broker() as broker:
        started = add_tools(broker)
        session = await broker.create_session(limits=limits)
        running = asyncio.create_task(session.execute("await Promise.all([tools.wait({}), tools.wait({})])"))
        await asyncio.wait_for(started.wait(), 10)
        await session.cancel()
        await running
    assert [(record.outcome, record.attempts) for record in records(audit)] == [("unknown", 1), ("not_run", 0)]


async def test_a_call_of_the_hosts_has_its_record_too(audit: pytest.LogCaptureFixture) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        session = await broker.create_session()
        await broker.execute_tool_call(session.id, {"name": "orders:get", "args": {"id": 1}})
    (record,) = records(audit)
    assert (record.outcome, record.by_host) == ("done", True)


async def test_no_name_forges_a_line(audit: pytest.LogCaptureFixture) -> None:
    async with twin_broker() as broker:
        add_tools(broker)
        principal = Principal(EVIL, tenant=EVIL)
        await broker.execute(f"await callTool({json.dumps(EVIL)}, {{}}).catch(() => 0)", principal=principal)
    (record,) = records(audit)
    line = record.getMessage()
    assert line.isascii()
    assert line.isprintable()
    assert (record.subject, record.tenant) == (EVIL, EVIL)
    fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line))
    assert json.loads(fields["subject"]) == json.loads(fields["tenant"]) == EVIL


async def test_a_name_without_end_is_cut(audit: pytest.LogCaptureFixture) -> None:
    async with twin_broker() as broker:
        await broker.execute("await callTool('x'.repeat(100000), {}).catch(() => 0)", principal=Principal("s" * 10_000))
    (record,) = records(audit)
    assert len(record.getMessage()) < 2_500


async def test_nothing_is_recorded_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "enclave_broker.audit")
    async with twin_broker() as broker:
        add_tools(broker)
        await broker.execute("await tools.orders.get({ id: 1 })")
    assert records(caplog) == []
    assert broker.telemetry.counters.tools["orders:get"].outcomes["done"] == 1


async def test_counters_grow_over_all_starts_of_a_broker() -> None:
    broker = Broker()
    for _ in range(2):
        async with broker:
            await broker.execute("return 1")
    await until(lambda: broker.telemetry.counters.executions_finished["completed"] == 2)
    assert broker.telemetry.counters.executions_started == 2
