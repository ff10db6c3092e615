"""Tools with secrets, end to end: they have their own, and nothing that anybody can read or search holds one."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enclave_broker import Broker, ConfigurationError, Env, File, Retry, SessionLimits, ToolContext, ToolError
from enclave_broker import ToolRouter as Router
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.calls import ToolCall
from tests.broker.calls.leaky import TOOLS, WAYS, forms
from tests.broker.sessions.support import twin_broker
from tests.http.live import Live, serving
from tests.security.process_memory import found_in_memory

VALUE = "canary-of-the-secret"
MARK = "[secret key]"


def broker_of(tools: dict[str, Any], value: Any = VALUE, **options: Any) -> Broker:
    broker = Broker(secrets={"key": value}, **options)
    for name, handler in tools.items():
        broker.tool(name, effect="read", secrets=["key"])(handler)
    return broker


# --- Nowhere ---------------------------------------------------------------------------------------------------------

CODE = """
const held = ["control-" + "CONTROL"];
for (const name of NAMES) for (const way of WAYS) {
  try { held.push(await callTool(name, { way })) }
  catch (error) {
    held.push({ error, message: error.message, stack: error.stack, details: error.details, code: error.code });
    console.error(error, error.cause);
  }
}
console.log(JSON.stringify(held));
await tools.browser.wait({});
return held;
"""


@pytest.fixture(scope="module")
def value() -> str:
    return secrets.token_urlsafe(32)


@pytest.fixture(scope="module", params=[False, True], ids=["without middleware", "with middleware"])
def told(request: pytest.FixtureRequest, value: str) -> Iterator[dict[str, Any]]:
    """All that can be read of a run whose tools say their secret in every place and way, and the workers' memory."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit = lambda record: texts.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    pool = ProcessPool(workers=1, max_workers=2)
    options: dict[str, Any] = {"middleware": [Retry(2, chance=lambda: 0.0), watching(texts)]} if request.param else {}
    limits = SessionLimits(max_tool_calls=1_000)
    broker = broker_of(TOOLS, value, runtimes=[pool], limits=limits, **options)
    broker.client_tool("browser:wait", args=dict[str, int], timeout=60.0)
    control = secrets.token_hex(8)
    code = CODE.replace("NAMES", json.dumps(list(TOOLS))).replace("WAYS", json.dumps(list(WAYS)))
    try:
        with serving(broker) as live:
            yield {"texts": texts, **run(live, pool, code.replace("CONTROL", control), value, f"control-{control}")}
    finally:
        logging.getLogger().removeHandler(handler)


def watching(texts: list[str]) -> Any:
    async def watch(call: ToolCall, call_next: Any) -> Any:
        try:
            value = await call_next(call)
        except Exception as error:
            logging.getLogger("enclave_broker.test").exception("seen by a middleware")
            texts.append(f"{error!r} {error.__cause__!r} {error.__context__!r} {getattr(error, 'details', None)!r}")
            raise
        texts.append(repr(value))
        return value

    return watch


def run(live: Live, pool: ProcessPool, code: str, value: str, control: str) -> dict[str, Any]:
    with live.streaming(code, maxToolCalls=1_000) as stream:
        lines = [stream.next("session_init")]
        while lines[-1]["type"] != "tool_call" or lines[-1]["payload"]["toolName"] != "browser:wait":
            lines.append(stream.next())
        wanted = [form for text in (value, control) for form in forms(text)]
        try:
            memory = set[bytes]().union(*(found_in_memory(pid, wanted) for pid in pool.pids))
        except PermissionError:
            memory = None
        answer = {"callId": lines[-1]["payload"]["callId"], "ok": True, "result": 1}
        live.client.post(f"/sessions/{stream.id}/tool-result", json=answer)
        lines += stream.rest()
        session = live.session(stream.id)
        return {
            "events": json.dumps(lines, ensure_ascii=False),
            "calls": live.client.get(f"/sessions/{stream.id}/calls").text,
            "history": json.dumps(msgspec.to_builtins(session.history()), ensure_ascii=False),
            "records": "\n".join(map(repr, session.log.records)),
            "metrics": live.client.get("/metrics").text,
            "memory": memory,
            "control": control.encode(),
            "lines": lines,
        }


@pytest.mark.parametrize("place", ["events", "calls", "history", "records", "log"])
def test_a_secret_that_its_tool_says_in_every_place_and_way_is_nowhere(
    told: dict[str, Any], value: str, place: str
) -> None:
    text = "\n".join(told["texts"]) if place == "log" else told[place]
    assert [form for form in forms(value) if form in text.encode()] == []
    assert "[secret key]" in text, "what was said is there, without the secret"


def test_no_secret_is_in_the_metrics(told: dict[str, Any], value: str) -> None:
    assert "leak:code" in told["metrics"]
    assert [form for form in forms(value) if form in told["metrics"].encode()] == []


def test_every_leak_was_tried(told: dict[str, Any]) -> None:
    calls = json.loads(told["calls"])["calls"]
    assert {(call["toolName"], call["args"]["way"]) for call in calls if call["toolName"].startswith("leak:")} == {
        (name, way) for name in TOOLS for way in WAYS
    }
    assert sum(line["type"] == "log" for line in told["lines"]) >= len(WAYS)
    assert [line["payload"]["ok"] for line in told["lines"] if line["type"] == "final"] == [True]


def test_no_secret_is_in_the_memory_of_a_worker_where_what_a_script_holds_is_found(
    told: dict[str, Any], value: str
) -> None:
    if told["memory"] is None:
        pytest.skip("only root may read the memory of a worker")
    assert told["control"] in told["memory"]
    assert [form for form in forms(value) if form in told["memory"]] == []


# --- What a tool has -------------------------------------------------------------------------------------------------


async def test_a_tool_has_the_secrets_that_it_declares_and_no_others() -> None:
    seen: list[dict[str, str]] = []

    async def look(context: ToolContext) -> None:
        seen.append(dict(context.secrets))
        assert VALUE not in repr(context)

    broker = Broker(secrets={"key": VALUE, "other": "another-secret"})
    for names in ([], ["key"], ["key", "other"]):
        broker.tool(f"look{len(names)}", secrets=names)(look)
    async with broker:
        result = await broker.execute("for (const name of ['look0', 'look1', 'look2']) await callTool(name, {})")
    assert result.error is None
    assert seen == [{}, {"key": VALUE}, {"key": VALUE, "other": "another-secret"}]


async def test_a_routers_handler_has_its_secrets_too() -> None:
    router = Router()

    async def handle(name: str, args: dict[str, Any], context: ToolContext) -> list[str]:
        return [name, context.secrets["key"], str(len(context.secrets["key"]))]

    router.register("db:*", handler=handle, secrets=["key"])
    async with twin_broker(router=router, secrets={"key": VALUE}) as broker:
        result = await broker.execute("return await tools.db.query({})")
    assert result.value == ["db:query", MARK, str(len(VALUE))]


async def test_a_value_that_has_changed_counts_at_the_next_call_and_the_one_before_stays_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    kept: list[str] = []

    async def use(context: ToolContext) -> list[str]:
        kept.extend(context.secrets.values())
        return kept

    broker = Broker(secrets={"file": File(file), "variable": Env("ENCLAVE_TEST_KEY")})
    broker.tool(secrets=["file", "variable"])(use)
    async with broker:
        for turn in ("first", "second"):
            file.write_text(f"file-{turn}-value\n", encoding="utf-8")
            monkeypatch.setenv("ENCLAVE_TEST_KEY", f"variable-{turn}-value")
            result = await broker.execute("return await tools.use({})")
    assert kept == ["file-first-value", "variable-first-value", "file-second-value", "variable-second-value"]
    assert result.value == ["[secret file]", "[secret variable]"] * 2


async def test_each_attempt_asks_anew() -> None:
    seen: list[str] = []

    async def use(context: ToolContext) -> str:
        seen.append(context.secrets["key"])
        if len(seen) == 1:
            raise RuntimeError("once more")
        return f"{seen}"

    values = iter(["the-first-value", "the-second-value"])
    broker = broker_of({"use": use}, lambda: next(values), middleware=[Retry(chance=lambda: 0.0)])
    async with broker:
        result = await broker.execute("return await tools.use({})")
    assert seen == ["the-first-value", "the-second-value"]
    assert result.value == f"['{MARK}', '{MARK}']"


async def test_a_number_and_a_progress_that_are_a_secret_do_not_go_out() -> None:
    async def number(context: ToolContext) -> Any:
        await context.progress(float(context.secrets["key"]))
        await context.progress(1.0, 2.0)
        return [int(context.secrets["key"]), 12]

    broker = broker_of({"number": number}, "9876543210")
    async with broker, await broker.create_session() as session:
        result = await session.execute("return await tools.number({})")
        events = [msgspec.json.encode(record.public.to_wire()) for record in session.log.records if record.public]
    assert result.value == [MARK, 12]
    assert [event for event in events if b"9876543210" in event] == []


async def test_tests_may_put_other_values_in_a_secrets_place() -> None:
    async def use(context: ToolContext) -> int:
        return len(context.secrets["key"])

    broker = broker_of({"use": use}, Env("ENCLAVE_TEST_NONE"))
    async with broker:
        async with broker.override(secrets={"key": "12345678"}):
            assert (await broker.execute("return await tools.use({})")).value == 8
        assert (await broker.execute("return await tools.use({})")).error is not None
        with pytest.raises(ConfigurationError, match="no secret is called 'kye'"):
            async with broker.override(secrets={"kye": VALUE}):
                pass


async def test_a_tool_that_declares_nothing_is_not_scrubbed() -> None:
    async def other() -> str:
        return VALUE

    async with twin_broker(tools={"other": other}, secrets={"key": VALUE}) as broker:
        assert (await broker.execute("return await tools.other({})")).value == VALUE


async def test_a_result_may_not_become_too_long_by_scrubbing() -> None:
    async def many() -> list[str]:
        return ["12345678"] * 20

    broker = broker_of({"many": many}, "12345678", limits=SessionLimits(max_tool_result_bytes=250))
    async with broker:
        result = await broker.execute("return await tools.many({})")
    assert result.error is not None
    assert result.error.code == "TOOL_RESULT_TOO_LARGE"


async def test_the_host_that_calls_a_tool_gets_no_secret_either() -> None:
    broker = broker_of(TOOLS)
    async with broker, await broker.create_session() as session:
        value = await broker.execute_tool_call(session.id, {"name": "leak:in_thread", "args": {"way": "plain"}})
        assert value == f"<{MARK}>"
        with pytest.raises(ToolError) as refused:
            await broker.execute_tool_call(session.id, {"name": "leak:error", "args": {"way": "plain"}})
    assert (refused.value.message, refused.value.details) == (f"<{MARK}>", {f"<{MARK}>": [f"<{MARK}>"]})


# --- What can't be had -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("middleware", [(), (Retry(chance=lambda: 0.0),)], ids=["alone", "with middleware"])
async def test_a_missing_secret_refuses_the_call_before_the_handler(middleware: Any) -> None:
    started: list[str] = []

    async def use(context: ToolContext) -> None:
        started.append(context.call_id)

    broker = broker_of({"use": use}, Env("ENCLAVE_TEST_NONE"), middleware=middleware)
    async with broker:
        result = await broker.execute(
            "try { await tools.use({}) } catch (error) { return [error.code, error.message] }"
        )
    assert result.value == ["SECRET_ERROR", "tool 'use' needs the secret 'key', and it can't be had"]
    assert started == []
    (record,) = result.calls
    assert (record.outcome, record.rule, record.error and record.error.code) == ("failed", "secrets", "SECRET_ERROR")


async def test_a_source_that_hangs_ends_with_the_tools_time() -> None:
    async def use(context: ToolContext) -> None: ...

    broker = broker_of({"use": use}, asyncio.Event().wait, limits=SessionLimits(tool_timeout=0.05))
    async with broker:
        result = await broker.execute("return await tools.use({})")
    assert result.error is not None
    assert result.error.code == "TOOL_TIMEOUT"


def test_a_tool_that_asks_for_an_unknown_secret_is_refused_where_it_is_registered() -> None:
    async def use(context: ToolContext) -> None: ...

    broker = Broker(secrets={"key": VALUE})
    with pytest.raises(ConfigurationError, match="no secret is called 'kye'; known are key"):
        broker.tool(secrets=["kye"])(use)
    with pytest.raises(ConfigurationError, match="no secret is called 'kye'"):
        broker.router.register("db:*", use_router, secrets=["kye"])
    assert broker.tools == []


async def use_router(name: str, args: dict[str, Any]) -> None: ...


def test_a_router_that_asks_for_an_unknown_secret_is_refused_by_the_broker() -> None:
    router = Router()
    router.register("db:*", use_router, secrets=["kye"])
    with pytest.raises(ConfigurationError, match=r"route db:\*: no secret is called 'kye'"):
        Broker(router=router, secrets={"key": VALUE})
    with pytest.raises(ConfigurationError, match="the broker has none"):
        Broker(router=router)


def test_a_short_plain_secret_is_refused_by_the_broker() -> None:
    with pytest.raises(ConfigurationError, match="less than 8"):
        Broker(secrets={"key": "1234567"})
