"""Section "In the script"."""

from __future__ import annotations

import pytest

from tests.protocol.client import Enclave


def test_call_tool_takes_a_name_and_an_object_and_gives_the_result(enclave: Enclave) -> None:
    run = enclave.run("return await callTool('orders:get', { id: 2 })")
    assert run.result == {"id": 2, "total": 20}


@pytest.mark.parametrize("args", ["1", "'a'", "null", "true", "[]", "[{ id: 1 }]", "() => 1", "new Date(0)"])
def test_arguments_that_are_no_object_are_a_validation_error(enclave: Enclave, args: str) -> None:
    assert enclave.run(f"await callTool('echo', {args})").code == "VALIDATION_ERROR"
    caught = enclave.run(f"try {{ await callTool('echo', {args}) }} catch (error) {{ return error.code }}")
    assert caught.result == "VALIDATION_ERROR"


def test_tools_ns_name_is_call_tool_of_ns_colon_name(enclave: Enclave) -> None:
    run = enclave.run("return [await tools.orders.get({ id: 1 }), await callTool('orders:get', { id: 1 })]")
    assert run.result == [{"id": 1, "total": 10}] * 2
    assert {call["toolName"] for call in run.of("tool_call")} == {"orders:get"}


@pytest.mark.parametrize("args", ["1", "null", "[]"])
def test_tools_ns_name_wants_an_object_too(enclave: Enclave, args: str) -> None:
    assert enclave.run(f"await tools.orders.get({args})").code == "VALIDATION_ERROR"


def test_tools_with_any_name_in_brackets_is_call_tool_of_it(enclave: Enclave) -> None:
    run = enclave.run(
        "return [await tools['odd:na-me/x.y']({ n: 1 }), await tools['ping']({}), await tools['orders:get']({ id: 3 })]"
    )
    assert run.result == [1, "pong", {"id": 3, "total": 30}]
    assert [call["toolName"] for call in run.of("tool_call")] == ["odd:na-me/x.y", "ping", "orders:get"]


def test_a_name_with_odd_characters_after_its_namespace_is_reached_in_brackets(enclave: Enclave) -> None:
    assert enclave.run("return await tools.odd['na-me/x.y']({ n: 7 })").result == 7


def test_parallel_gives_each_item_to_the_function_and_keeps_their_order(enclave: Enclave) -> None:
    run = enclave.run("return await parallel([3, 1, 2], async (id) => (await tools.orders.get({ id })).total)")
    assert run.result == [30, 10, 20]
    assert run.final["stats"]["toolCallCount"] == 3


def test_parallel_runs_its_items_at_once(enclave: Enclave) -> None:
    code = "async (key) => key === 'p-1' ? tools.gate.wait({ key }) : tools.gate.open({ key: 'p-1' })"
    assert enclave.run(f"await parallel(['p-1', 'p-2'], {code}); return 'both'").result == "both"


def test_parallel_of_nothing_is_empty_and_an_error_is_the_callers(enclave: Enclave) -> None:
    assert enclave.run("return await parallel([], async () => 1)").result == []
    code = "try { await parallel([1, 9], async (id) => tools.orders.get({ id })) } catch (error) { return error.code }"
    assert enclave.run(code).result == "NO_SUCH_ORDER"


def test_sleep_is_awaited_in_milliseconds(enclave: Enclave) -> None:
    run = enclave.run("const before = Date.now(); await sleep(60); return Date.now() - before")
    assert run.result >= 59


def test_sleeps_end_in_the_order_of_their_times(enclave: Enclave) -> None:
    code = "const order = []; await Promise.all([80, 10].map(async (ms) => { await sleep(ms); order.push(ms) }))"
    assert enclave.run(f"{code}; return order").result == [10, 80]


@pytest.mark.parametrize("method", ["log", "info", "debug", "warn", "error"])
def test_console_has_its_five_methods(enclave: Enclave, method: str) -> None:
    run = enclave.run(f"console.{method}('a'); return typeof console.{method}")
    assert run.result == "function"
    assert len(run.of("stdout") + run.of("log")) == 1
