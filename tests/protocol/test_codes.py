"""Section "Error codes": each of `final` and of the script, and what is said of them."""

from __future__ import annotations

import os
import re
import signal

import pytest

from enclave_broker.runtime.pool import ProcessPool
from tests.http.live import serving
from tests.http.served import Served
from tests.protocol import shop
from tests.protocol.client import Enclave, hold, unique
from tests.protocol.codes import CODES, LATER

FOREVER = "for (;;) try { await tools.gate.wait({ key: 'never' }) } catch {}"
LOUD = "for (;;) try { console.log('x'.repeat(100)); await sleep(0) } catch {}"
ENDED: dict[str, tuple[str, dict[str, int]]] = {
    "UNKNOWN_TOOL": ("await tools.no.such({})", {}),
    "VALIDATION_ERROR": ("await tools.orders.get({ id: 'one' })", {}),
    "TOOL_TIMEOUT": ("await tools.gate.patient({ key: 'never' })", {"toolTimeoutMs": 50}),
    "TOOL_RESULT_TOO_LARGE": ("await tools.text.make({ length: 500 })", {"maxToolResultBytes": 400}),
    "MAX_TOOL_CALLS": ("await callTool('ping')", {"maxToolCalls": 0}),
    "EXECUTION_ERROR": ("throw new Error('no')", {}),
    "SYNTAX_ERROR": ("return 1 +", {}),
    "DEADLINE_EXCEEDED": (FOREVER, {"deadlineMs": 50}),
    "SESSION_EXPIRED": (FOREVER, {"sessionTtlMs": 50}),
    "MEMORY_LIMIT": ("try { 'x'.repeat(2 ** 24) } catch { return 'caught' }", {"maxMemoryBytes": 8_388_608}),
    "CPU_LIMIT": ("for (;;) try { for (;;); } catch {}", {"maxCpuMs": 50}),
    "STDOUT_LIMIT": (LOUD, {"maxStdoutBytes": 1_000}),
    "LOG_LIMIT": (LOUD, {"maxLogBytes": 5_000}),
    "TIMER_LIMIT": ("await Promise.all([sleep(1), sleep(1)])", {"maxTimers": 1}),
    "ARGUMENTS_TOO_LARGE": (f"await callTool('echo', {{ a: '{'x' * 99}' }})", {"maxToolArgsBytes": 50}),
    "CODE_TOO_LARGE": ("return 123456789", {"maxCodeBytes": 10}),
}
"""Scripts that end so, and the limits that they need."""
UNCATCHABLE = {"MEMORY_LIMIT", "CPU_LIMIT", "DEADLINE_EXCEEDED", "SESSION_EXPIRED", "STDOUT_LIMIT", "LOG_LIMIT"}
CATCHABLE = {
    *("UNKNOWN_TOOL", "VALIDATION_ERROR", "TOOL_TIMEOUT", "TOOL_RESULT_TOO_LARGE", "MAX_TOOL_CALLS"),
    *("EXECUTION_ERROR", "TIMER_LIMIT", "ARGUMENTS_TOO_LARGE"),
}
GOVERNED = {"ACCESS_DENIED", "APPROVAL_DENIED", "APPROVAL_EXPIRED", "RATE_LIMITED", "SECRET_ERROR"}
"""Those of test_governed_codes.py."""
BY_OTHER_TESTS = {"TOOL_NOT_ALLOWED", "SESSION_CANCELLED", "RUNTIME_LOST", "SHUTTING_DOWN"} | GOVERNED


def test_every_code_is_provoked_here_or_comes_later() -> None:
    assert ENDED.keys() | BY_OTHER_TESTS == CODES - LATER.keys()


@pytest.mark.parametrize("code", ENDED)
def test_a_run_ends_with_each_code(enclave: Enclave, code: str) -> None:
    script, limits = ENDED[code]
    error = enclave.run(script, limits=limits).error
    assert error["code"] == code
    assert error["message"]


def test_tool_not_allowed_ends_a_run_that_calls_what_it_may_not(enclave: Enclave) -> None:
    assert enclave.run("await callTool('ping')", allowedTools=["orders:*"]).code == "TOOL_NOT_ALLOWED"


def test_session_cancelled_ends_a_run_that_catches_everything(enclave: Enclave) -> None:
    with enclave.watching(f"try {{ {FOREVER} }} finally {{ console.log('went on') }}") as watch:
        watch.next("tool_call")
        enclave.cancel(watch.id)
        run = watch.end()
    assert run.code == "SESSION_CANCELLED"
    assert run.printed == ""


def test_runtime_lost_ends_a_run_whose_worker_died() -> None:
    pool = ProcessPool(workers=1)
    with serving(shop.make(runtimes=[pool])) as live:
        enclave = Enclave(live.client)
        with enclave.watching(hold(unique("gate"))) as watch:
            watch.next("tool_progress", phase="processing")
            for pid in live.do(lambda: [worker.pid for worker in pool.workers if worker.key]):
                os.kill(pid, signal.SIGKILL)
            assert watch.end().code == "RUNTIME_LOST"
        assert enclave.run("return 1").result == 1


def test_shutting_down_ends_every_run_of_a_server_that_ends() -> None:
    with serving(shop.make()) as live:
        enclave = Enclave(live.client)
        with enclave.watching(hold(unique("gate"))) as watch:
            watch.next("tool_call")
            live.do(live.broker.shut_down)
            assert watch.end().code == "SHUTTING_DOWN"


# -- what a script can catch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(CATCHABLE))
def test_a_script_can_catch_every_calls_error_and_that_of_timers(enclave: Enclave, code: str) -> None:
    script, limits = ENDED[code]
    caught = enclave.run(f"try {{ {script} }} catch (error) {{ return [error.code, error.message] }}", limits=limits)
    if code != "EXECUTION_ERROR":  # an error of the script's own has no code
        assert caught.result[0] == code
    assert caught.result[1]


def test_a_script_can_catch_a_full_stack(enclave: Enclave) -> None:
    code = "function f() { return f() } try { f() } catch (error) { return error instanceof RangeError }"
    assert enclave.run(code).result is True


@pytest.mark.parametrize("code", sorted(UNCATCHABLE))
def test_a_script_cannot_catch_a_verdict(enclave: Enclave, code: str) -> None:
    script, limits = ENDED[code]
    wrapped = f"try {{ {script} }} catch {{ console.warn('caught') }} finally {{ console.warn('finally') }}"
    run = enclave.run(wrapped, limits=limits)
    assert run.code == code
    assert run.of("log") == []


def test_deadline_ms_ends_as_the_event_and_its_code_and_session_ttl_ms_without(enclave: Enclave) -> None:
    assert enclave.run(FOREVER, limits={"deadlineMs": 50}).types[-2:] == ["deadline_exceeded", "final"]
    assert "deadline_exceeded" not in enclave.run(FOREVER, limits={"sessionTtlMs": 50}).types


# -- what a handler raised -------------------------------------------------------------------------------------------

CATCH = "catch (error) { return [error.code, error.message] }"


def test_a_tool_error_reaches_the_script_as_it_is(enclave: Enclave) -> None:
    assert enclave.run("try { await tools.bad.code({ code: 'OF_MY_OWN' }) } " + CATCH).result == [
        "OF_MY_OWN",
        "told on purpose",
    ]
    error = enclave.run("await tools.orders.get({ id: 9 })").error
    assert (error["code"], error["message"]) == ("NO_SUCH_ORDER", "there is no order 9")


@pytest.mark.parametrize("code", sorted(CODES - {"EXECUTION_ERROR"}))
def test_a_handler_cannot_take_a_code_of_the_protocols(enclave: Enclave, code: str) -> None:
    assert enclave.run(f"try {{ await tools.bad.code({{ code: '{code}' }}) }} {CATCH}").result[0] != code


def test_any_other_exception_is_execution_error_with_an_error_id_and_the_log_has_the_rest(
    server: Served, enclave: Enclave
) -> None:
    run = enclave.run("await tools.bad.crash({})")
    assert run.code == "EXECUTION_ERROR"
    found = re.fullmatch(r"tool '?bad:crash'? failed \(error id (\w+)\)", run.error["message"])
    assert found
    assert "hunter2" not in str(run.events)
    server.hear(found[1])
    server.hear("hunter2")


# -- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("tools.orders.get({ id: 'one' })", ["id", "whole number"]),
        ("tools.orders.get({})", ["id", "missing"]),
        ("tools.orders.get({ id: 1, limit: 2 })", ["limit"]),
        ("tools.orders.list({ status: 'opne' })", ["status", "open", "paid"]),
        ("callTool('orders:get', 7)", ["object"]),
    ],
)
def test_a_validation_message_says_invalid_names_the_field_and_what_would_be_right(
    enclave: Enclave, call: str, words: list[str]
) -> None:
    error = enclave.run(f"await {call}").error
    assert error["code"] == "VALIDATION_ERROR"
    for word in ["invalid", *words]:
        assert word in error["message"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("orders:gte", "orders:get"),
        ("order:get", "orders:get"),
        ("orders.get", "orders:get"),
        ("orders get", "orders:get"),
        ("orders:get*", "orders:get"),
        ("örders:get", "orders:get"),
        ("pnig", "ping"),
    ],
)
def test_unknown_tool_names_the_tool_and_the_nearest_also_if_it_cannot_be_a_name(
    enclave: Enclave, name: str, nearest: str
) -> None:
    error = enclave.run(f"await callTool('{name}', {{}})").error
    assert error["code"] == "UNKNOWN_TOOL"
    assert name in error["message"]
    assert nearest in error["message"].replace(name, "")


@pytest.mark.parametrize(
    ("script", "message", "code"),
    [
        ("throw 'not enough'", "not enough", "EXECUTION_ERROR"),
        ("throw { message: 'not enough' }", "not enough", "EXECUTION_ERROR"),
        ("throw { message: 'not enough', code: 'TOO_FEW' }", "not enough", "TOO_FEW"),
        ("throw new TypeError('not enough')", "not enough", "EXECUTION_ERROR"),
    ],
)
def test_a_thrown_string_and_a_thrown_objects_own_message_are_the_message(
    enclave: Enclave, script: str, message: str, code: str
) -> None:
    error = enclave.run(script).error
    assert (error["message"], error["code"]) == (message, code)


@pytest.mark.parametrize("script", ["throw null", "throw undefined", "throw 7", "throw { a: 1 }", "throw []"])
def test_whatever_is_thrown_has_a_message(enclave: Enclave, script: str) -> None:
    error = enclave.run(script).error
    assert error["code"] == "EXECUTION_ERROR"
    assert error["message"]


# -- un-awaited calls ------------------------------------------------------------------------------------------------


def test_calls_that_started_are_waited_for_before_the_final(enclave: Enclave) -> None:
    key = unique("gate")
    code = f"tools.gate.wait({{ key: '{key}' }}).then(() => console.log('late')); return 'done'"
    with enclave.watching(code) as watch:
        watch.next("tool_progress", phase="processing")
        enclave.open(key)
        run = watch.end()
    assert run.result == "done"
    assert run.printed == "late\n"
    assert run.types.index("tool_result_applied") < run.types.index("final")


def test_calls_are_waited_for_within_their_deadlines(enclave: Enclave) -> None:
    code = "tools.gate.wait({ key: 'never' }).catch((e) => console.log(e.code)); return 'done'"
    run = enclave.run(code, limits={"perToolDeadlineMs": 50})
    assert (run.result, run.printed) == ("done", "TOOL_TIMEOUT\n")


def test_queued_calls_do_not_start(enclave: Enclave) -> None:
    key = unique("gate")
    code = f"tools.gate.wait({{ key: '{key}' }}); callTool('echo', {{ queued: true }}); return 'done'"
    with enclave.watching(code, limits={"maxConcurrentCalls": 1}) as watch:
        watch.next("tool_call", toolName="echo")
        enclave.open(key)
        run = watch.end()
    assert run.result == "done"
    assert [progress["phase"] for progress in run.of("tool_progress")].count("processing") == 1


@pytest.mark.parametrize("call", ["tools.orders.get({ id: 9 })", "tools.bad.crash({})", "tools.no.such({})"])
def test_failures_of_calls_that_nobody_awaited_do_not_fail_the_run(enclave: Enclave, call: str) -> None:
    assert enclave.run(f"{call}; return 'done'").result == "done"
