from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from enclave_broker import Broker, ConfigurationError, ExecutionError, ScriptError, SessionLimits, ToolError
from tests.broker.sessions.support import EPOCH, jumping, twin_broker


class Order(BaseModel):
    id: int
    total: float = 0.0


class Row(TypedDict):
    n: int


async def double(n: int) -> int:
    await asyncio.sleep(0.5)
    return 2 * n


async def refuse() -> None:
    raise ToolError("no more", code="REFUSED", details={"left": 0})


async def crash() -> None:
    raise OSError("/etc/secret is not there")


TOOLS = {"double": double, "refuse": refuse, "crash": crash}


@jumping
async def test_a_good_result_has_value_output_calls_and_stats() -> None:
    async with twin_broker(tools=TOOLS) as broker:
        result = await broker.execute("console.log('é'); console.warn('w'); return await callTool('double', {n: 21})")
    assert (result.ok, result.status, result.value, result.error) == (True, "completed", 42, None)
    assert result.stdout == "é\n"
    assert result.session_id.startswith("s_")
    (call,) = result.calls
    assert (call.name, call.args, call.outcome, call.error, call.rule) == ("double", {"n": 21}, "done", None, None)
    assert (call.args_bytes, call.result_bytes, call.by_host) == (8, 2, False)
    assert call.id.startswith("c_")
    assert call.started == pytest.approx(EPOCH + 1000, abs=0.01)
    assert call.duration == pytest.approx(0.5, abs=0.01)
    assert result.stats.duration == pytest.approx(0.5, abs=0.01)
    assert (result.stats.tool_call_count, result.stats.stdout_bytes) == (1, 3)
    assert result.stats.cpu_time > 0
    assert result.pending == []
    assert result.raise_for_error() is result


@jumping
async def test_a_failing_script_is_a_result_that_keeps_what_it_did() -> None:
    code = """console.log("one");
await callTool("double", {n: 1});
function deep() { throw new TypeError("no") }
deep();"""
    async with twin_broker(tools=TOOLS) as broker:
        result = await broker.execute(code)
    assert (result.ok, result.status, result.value, result.stdout) == (False, "failed", None, "one\n")
    assert [call.outcome for call in result.calls] == ["done"]
    error = result.error
    assert isinstance(error, ScriptError)
    assert (error.code, error.message, error.name) == ("EXECUTION_ERROR", "no", "TypeError")
    assert error.line == 3
    assert error.column is not None
    assert "deep" in (error.stack or "")
    with pytest.raises(ExecutionError) as raised:
        result.raise_for_error()
    assert raised.value.result is result


@pytest.mark.parametrize(
    ("code", "expected", "name", "message"),
    [
        ("throw 'plain'", "EXECUTION_ERROR", "Error", "plain"),
        ("throw {message: 'own', code: 'MINE'}", "MINE", "Error", "own"),
        ("throw Object.assign(new Error('x'), {code: 'CPU_LIMIT'})", "EXECUTION_ERROR", "Error", "x"),
        ("throw Object.assign(new Error('x'), {code: 'SESSION_CANCELLED'})", "EXECUTION_ERROR", "Error", "x"),
        ("return (", "SYNTAX_ERROR", "SyntaxError", None),
        ("await callTool('refuse')", "REFUSED", "ToolError", "no more"),
        ("await callTool('nothing')", "UNKNOWN_TOOL", "ToolError", None),
        ("await callTool('double', [])", "VALIDATION_ERROR", None, None),
        ("await new Promise(() => {})", "EXECUTION_ERROR", None, None),
    ],
)
@jumping
async def test_each_way_to_fail_has_its_code(code: str, expected: str, name: str | None, message: str | None) -> None:
    async with twin_broker(tools=TOOLS) as broker:
        result = await broker.execute(code)
    assert (result.ok, result.status) == (False, "failed")
    assert result.error is not None
    assert result.error.code == expected
    assert name in {None, result.error.name}
    assert message in {None, result.error.message}


@jumping
async def test_what_a_handler_did_not_mean_to_say_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with twin_broker(tools=TOOLS) as broker:
        result = await broker.execute("await callTool('crash')")
    assert result.error is not None
    assert result.error.code == "EXECUTION_ERROR"
    assert result.error.message.startswith("tool 'crash' failed (error id ")
    assert "secret" not in str(result)
    error_id = result.error.message.split("error id ")[1].rstrip(")")
    (record,) = [record for record in caplog.records if error_id in record.getMessage()]
    assert record.exc_info is not None
    assert "/etc/secret" in str(record.exc_info[1])


@jumping
async def test_a_call_is_done_failed_denied_unknown_or_not_run() -> None:
    never = asyncio.Event()

    async def wait() -> None:
        await never.wait()

    code = """
      await callTool("double", {n: 1});
      for (const [name, args] of [["refuse", {}], ["double", {n: "x"}], ["nothing", {}], ["secret", {}]])
        await callTool(name, args).catch(() => {});
      const waiting = callTool("wait"), queued = callTool("double", {n: 2});
      await sleep(1);
      throw new Error("enough");"""
    limits = SessionLimits(max_concurrent_calls=1, timeout=5)
    async with twin_broker(tools={**TOOLS, "wait": wait, "secret": double}) as broker:
        result = await broker.execute(code, limits=limits, allowed_tools=["double", "refuse", "wait", "nothing"])
    assert [(call.name, call.outcome, call.error and call.error.code) for call in result.calls] == [
        ("double", "done", None),
        ("refuse", "failed", "REFUSED"),
        ("double", "failed", "VALIDATION_ERROR"),
        ("nothing", "denied", "UNKNOWN_TOOL"),
        ("secret", "denied", "TOOL_NOT_ALLOWED"),
        ("wait", "unknown", None),
        ("double", "not_run", None),
    ]
    started = [call.started is not None for call in result.calls]
    assert started == [True, True, False, False, False, True, False]
    assert [call.duration is not None for call in result.calls] == [True, True, True, True, True, False, False]
    assert result.calls[3].rule == "route"
    assert result.calls[4].rule == "allow-list"


@pytest.mark.parametrize(
    ("type", "code", "value"),
    [
        (int, "1", 1),
        (list[Row], "[{n: 1}, {n: 2}]", [{"n": 1}, {"n": 2}]),
        (Order, "({id: 7})", Order(id=7)),
        (dict[str, Order], "({a: {id: 7, total: 2.5}})", {"a": Order(id=7, total=2.5)}),
        (int | None, "undefined", None),
    ],
)
@jumping
async def test_a_result_type_makes_the_value_one_of_it(type: Any, code: str, value: Any) -> None:
    async with twin_broker() as broker:
        result = await broker.execute(code, result_type=type)
    assert (result.ok, result.value) == (True, value)


@pytest.mark.parametrize(
    ("type", "code", "named"), [(Order, "({id: 'x'})", "id"), (list[int], "[1, 'x']", "1"), (int, "undefined", "int")]
)
@jumping
async def test_a_value_of_another_type_is_a_failed_result_that_names_the_place(
    type: Any, code: str, named: str
) -> None:
    async with twin_broker() as broker:
        result = await broker.execute(f"console.log('kept'); {code}", result_type=type)
    assert (result.ok, result.status, result.value, result.stdout) == (False, "failed", None, "kept\n")
    assert result.error is not None
    assert result.error.code == "VALIDATION_ERROR"
    assert "invalid" in result.error.message
    assert named in result.error.message


@jumping
async def test_a_result_type_leaves_a_failed_script_its_own_error() -> None:
    async with twin_broker() as broker:
        result = await broker.execute("throw new Error('mine')", result_type=int)
    assert result.error is not None
    assert result.error.message == "mine"


@pytest.mark.parametrize("type", [5, "no such type"])
async def test_a_result_type_that_is_no_type_is_refused_before_anything_runs(type: Any) -> None:
    started: list[str] = []
    broker = Broker(tools={"note": started.append})
    with pytest.raises(ConfigurationError, match="result_type"):
        await broker.execute("await callTool('note')", result_type=type)
    assert started == []
    await broker.aclose()
