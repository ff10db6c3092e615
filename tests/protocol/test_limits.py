"""Section "Limits": each by default, enforced, lowered to the operator's, and refused when it is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enclave_broker import SessionLimits
from tests.http.live import serving
from tests.protocol import shop
from tests.protocol.client import Enclave, refused_field
from tests.protocol.conftest import LOW
from tests.protocol.streams import Run

MIB = 1_048_576
DEFAULTS: dict[str, tuple[str, object]] = {
    "sessionTtlMs": ("timeout", 60.0),
    "maxToolCalls": ("max_tool_calls", 50),
    "maxStdoutBytes": ("max_stdout_bytes", 262_144),
    "maxToolResultBytes": ("max_tool_result_bytes", 5_242_880),
    "toolTimeoutMs": ("tool_timeout", 30.0),
    "heartbeatIntervalMs": ("heartbeat_interval", 15.0),
    "deadlineMs": ("deadline", None),
    "perToolDeadlineMs": ("per_tool_deadline", 30.0),
    "cancelOnFirstError": ("cancel_on_first_error", False),
    "maxCpuMs": ("cpu_time", 10.0),
    "maxMemoryBytes": ("max_memory_bytes", 67_108_864),
    "maxCodeBytes": ("max_code_bytes", 262_144),
    "maxConcurrentCalls": ("max_concurrent_calls", 16),
    "maxTimers": ("max_timers", 1_000),
    "maxToolArgsBytes": ("max_tool_args_bytes", 5_242_880),
    "maxLogBytes": ("max_log_bytes", 67_108_864),
}
"""Wire name → the operator's name for it, and its default there."""


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_of_each_limit_is_the_protocols(name: str) -> None:
    attribute, value = DEFAULTS[name]
    assert getattr(SessionLimits(), attribute) == value


# -- by default, as a client sees it ---------------------------------------------------------------------------------


def test_session_ttl_is_60_s_by_default(enclave: Enclave) -> None:
    info = enclave.info(enclave.run("return 1").id)
    assert info["expiresAt"] - info["createdAt"] == 60_000


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("for (let i = 0; i < 50; i++) await callTool('ping')", None),
        ("for (let i = 0; i < 51; i++) await callTool('ping')", "MAX_TOOL_CALLS"),
        ("console.log('x'.repeat(262143))", None),
        ("console.log('x'.repeat(262144))", "STDOUT_LIMIT"),
        ("console.log('é'.repeat(131072))", "STDOUT_LIMIT"),
        ("await tools.text.make({ length: 5242878 }); return", None),
        ("await tools.text.make({ length: 5242879 }); return", "TOOL_RESULT_TOO_LARGE"),
        ("'x'.repeat(40 * 1048576); return", None),
        ("'x'.repeat(68 * 1048576); return", "MEMORY_LIMIT"),
        ("for (let i = 0; i < 1000; i++) setTimeout(() => 0, 60000)", None),
        ("for (let i = 0; i < 1001; i++) setTimeout(() => 0, 60000)", "TIMER_LIMIT"),
        ("await tools.orders.get({ id: 1, x: 'x'.repeat(5242880) })", "ARGUMENTS_TOO_LARGE"),
        ("await tools.orders.get({ id: 1, x: 'x'.repeat(5242800) })", "VALIDATION_ERROR"),
    ],
)
def test_what_fits_the_default_passes_and_one_more_does_not(enclave: Enclave, code: str, error: str | None) -> None:
    final = enclave.run(code).final
    assert final.get("error", {}).get("code") == error


@pytest.mark.parametrize(("size", "error"), [(262_144, None), (262_145, "CODE_TOO_LARGE")])
def test_max_code_bytes_is_262144_by_default(enclave: Enclave, size: int, error: str | None) -> None:
    assert enclave.run("//é".ljust(size - 1)).final.get("error", {}).get("code") == error


@pytest.mark.parametrize("tool", ["my.time", "my['long-time']"])
def test_a_call_has_30_s_by_default_whatever_its_tools_own_time_out(enclave: Enclave, tool: str) -> None:
    assert 15 < enclave.run(f"return await tools.{tool}({{}})").result <= 30


def test_16_calls_run_at_once_by_default_and_more_wait_in_order(enclave: Enclave) -> None:
    gates = [f"sixteen-{number}" for number in range(20)]
    code = f"return await Promise.all({gates}.map((key) => tools.gate.wait({{ key }})))"
    with enclave.watching(code) as watch:
        ids = [watch.next("tool_call")["callId"] for _ in gates]
        for id in ids[:16]:
            watch.next("tool_progress", callId=id, phase="processing")
        for gate, id in zip(gates, ids[16:], strict=False):
            assert not [e for e in watch.events if e["payload"].get("callId") == id and e["type"] != "tool_call"]
            enclave.open(gate)
            watch.next("tool_progress", callId=id, phase="processing")
        for gate in gates:
            enclave.open(gate)
        assert watch.end().result == ["waited"] * 20


# -- what a client asks for ------------------------------------------------------------------------------------------


HANG = "await tools.gate.patient({ key: 'never' })"
ENFORCED = [
    ({"sessionTtlMs": 100}, "await sleep(60000)", "SESSION_EXPIRED", "return 1"),
    ({"deadlineMs": 100}, "await sleep(60000)", "DEADLINE_EXCEEDED", "return 1"),
    ({"maxToolCalls": 2}, "for (;;) await callTool('ping')", "MAX_TOOL_CALLS", "await callTool('ping')"),
    ({"maxToolCalls": 0}, "await callTool('ping')", "MAX_TOOL_CALLS", "return 1"),
    ({"maxStdoutBytes": 32}, "console.log('x'.repeat(32))", "STDOUT_LIMIT", "console.log('x'.repeat(31))"),
    ({"maxStdoutBytes": 32}, "for (;;) console.error('x')", "STDOUT_LIMIT", "return 1"),
    (
        {"maxToolResultBytes": 50},
        "await tools.text.make({ length: 49 })",
        "TOOL_RESULT_TOO_LARGE",
        "await tools.text.make({ length: 48 })",
    ),
    ({"toolTimeoutMs": 50}, HANG, "TOOL_TIMEOUT", "return 1"),
    ({"perToolDeadlineMs": 50}, HANG.replace("patient", "wait"), "TOOL_TIMEOUT", "return 1"),
    ({"maxCpuMs": 50}, "for (;;);", "CPU_LIMIT", "return 1"),
    ({"maxMemoryBytes": 8 * MIB}, "'x'.repeat(9 * 1048576)", "MEMORY_LIMIT", "'x'.repeat(2 * 1048576); return"),
    ({"maxCodeBytes": 10}, "return 1234", "CODE_TOO_LARGE", "return 123"),
    ({"maxTimers": 1}, "await Promise.all([sleep(60000), sleep(60000)])", "TIMER_LIMIT", "await sleep(1)"),
    ({"maxToolArgsBytes": 30}, f"await callTool('echo', {{ a: '{'x' * 30}' }})", "ARGUMENTS_TOO_LARGE", "return 1"),
    ({"maxLogBytes": 5_000}, "for (;;) { console.log('x'.repeat(100)); await sleep(0) }", "LOG_LIMIT", "return 1"),
]


@pytest.mark.parametrize(("limits", "code", "error", "fits"), ENFORCED)
def test_each_limit_is_enforced(enclave: Enclave, limits: dict[str, int], code: str, error: str, fits: str) -> None:
    assert enclave.run(code, limits=limits).code == error
    assert enclave.run(fits, limits=limits).final["ok"] is True


@pytest.mark.parametrize(
    ("config", "code", "error"),
    [
        ({"maxExecutionMs": 100}, "await sleep(60000)", "SESSION_EXPIRED"),
        ({"maxToolCalls": 1}, "for (;;) await callTool('ping')", "MAX_TOOL_CALLS"),
    ],
)
def test_config_means_the_limits(enclave: Enclave, config: dict[str, int], code: str, error: str) -> None:
    assert enclave.run(code, config=config).code == error


def test_max_execution_ms_is_session_ttl_ms(enclave: Enclave) -> None:
    info = enclave.info(enclave.run("return 1", config={"maxExecutionMs": 5_000}).id)
    assert info["expiresAt"] - info["createdAt"] == 5_000


def test_tool_timeout_is_one_attempt_and_per_tool_deadline_the_call(enclave: Enclave) -> None:
    code = "return await tools.my.time({})"
    assert enclave.run(code, limits={"toolTimeoutMs": 9_000, "perToolDeadlineMs": 20_000}).result <= 9
    assert enclave.run(code, limits={"toolTimeoutMs": 20_000, "perToolDeadlineMs": 9_000}).result <= 9


def test_more_calls_than_max_concurrent_calls_wait_in_order(enclave: Enclave) -> None:
    code = "return await Promise.all([1, 2, 3, 4, 5].map((id) => callTool('echo', { id })))"
    run = enclave.run(code, limits={"maxConcurrentCalls": 1})
    ids = [call["callId"] for call in run.of("tool_call")]
    steps = [
        (event["payload"]["callId"], event["type"])
        for event in run.events
        if event["payload"].get("phase") == "processing" or event["type"] == "tool_result_applied"
    ]
    assert steps == [(id, type) for id in ids for type in ("tool_progress", "tool_result_applied")]
    assert run.result == [{"id": id} for id in range(1, 6)]


def test_a_deadline_of_0_is_none(enclave: Enclave) -> None:
    assert enclave.run("await sleep(10); return 1", limits={"deadlineMs": 0}).result == 1


FAILS = "try { await tools.orders.get({ id: 9 }) } catch {} console.log('went on')"


def test_cancel_on_first_error_ends_the_execution_with_the_first_failed_calls_error(enclave: Enclave) -> None:
    run = enclave.run(f"{FAILS}; await tools.bad.crash({{}})", limits={"cancelOnFirstError": True})
    assert run.error["code"] == "NO_SUCH_ORDER"
    assert run.error["message"] == "there is no order 9"
    assert run.printed == ""


@pytest.mark.parametrize("limits", [{}, {"cancelOnFirstError": False}])
def test_without_cancel_on_first_error_a_script_goes_on(enclave: Enclave, limits: dict[str, bool]) -> None:
    assert enclave.run(FAILS, limits=limits).printed == "went on\n"


# -- above the operator's --------------------------------------------------------------------------------------------

ABOVE = 10**9
CLAMPED = {
    "sessionTtlMs": ("await sleep(60000)", "SESSION_EXPIRED"),
    "maxToolCalls": ("for (let i = 0; i < 4; i++) await callTool('ping')", "MAX_TOOL_CALLS"),
    "maxStdoutBytes": ("console.log('x'.repeat(100))", "STDOUT_LIMIT"),
    "maxToolResultBytes": ("await tools.text.make({ length: 199 })", "TOOL_RESULT_TOO_LARGE"),
    "toolTimeoutMs": (HANG, "TOOL_TIMEOUT"),
    "perToolDeadlineMs": (HANG.replace("patient", "wait"), "TOOL_TIMEOUT"),
    "maxCpuMs": ("for (;;);", "CPU_LIMIT"),
    "maxMemoryBytes": ("'x'.repeat(9 * 1048576)", "MEMORY_LIMIT"),
    "maxCodeBytes": ("//" + "x" * 299, "CODE_TOO_LARGE"),
    "maxTimers": ("await Promise.all([1, 2, 3, 4].map(() => sleep(60000)))", "TIMER_LIMIT"),
    "maxToolArgsBytes": (f"await callTool('echo', {{ a: '{'x' * 200}' }})", "ARGUMENTS_TOO_LARGE"),
}


@pytest.mark.parametrize("name", CLAMPED)
def test_what_a_client_asks_above_the_operators_is_clamped(strict: Enclave, name: str) -> None:
    code, error = CLAMPED[name]
    assert strict.run(code, limits={name: ABOVE}).code == error


def most_at_once(run: Run) -> int:
    """How many handlers had started and had no outcome."""
    running, most = 0, 0
    for event in run.events:
        running += event["payload"].get("phase") == "processing"
        running -= event["type"] == "tool_result_applied"
        most = max(most, running)
    return most


def test_the_operators_calls_at_once_are_clamped_to(strict: Enclave) -> None:
    code = "return await Promise.all([1, 2, 3].map((n) => callTool('echo', { n })))"
    run = strict.run(code, limits={"maxConcurrentCalls": ABOVE})
    assert run.result == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert most_at_once(run) == 2


def test_the_time_to_live_of_config_is_clamped_and_told(strict: Enclave) -> None:
    run = strict.run("return 1", config={"maxExecutionMs": ABOVE})
    info = strict.info(run.id)
    assert info["expiresAt"] - info["createdAt"] == LOW["timeout"] * 1_000


def test_the_heartbeat_interval_may_go_below_the_operators(strict: Enclave) -> None:
    code = "await tools.browser.title({})"  # the session's time stands still for a client's tool
    with strict.watching(code, config={"heartbeatIntervalMs": 50}) as watch:
        watch.next("heartbeat")
        watch.next("heartbeat")
        strict.cancel(watch.id)
        watch.end()


@pytest.fixture(scope="module")
def stern() -> Iterator[Enclave]:
    limits = SessionLimits(deadline=0.5, cancel_on_first_error=True, max_log_bytes=5_000)
    with serving(shop.make(limits)) as live:
        yield Enclave(live.client)


@pytest.mark.parametrize("asked", [0, ABOVE])
def test_the_operators_deadline_is_clamped_to(stern: Enclave, asked: int) -> None:
    run = stern.run("await sleep(60000)", limits={"deadlineMs": asked})
    assert run.code == "DEADLINE_EXCEEDED"
    assert run.of("deadline_exceeded")[0]["budgetMs"] == 500


def test_the_operators_log_size_is_clamped_to(stern: Enclave) -> None:
    assert (
        stern.run("for (;;) { console.log('x'.repeat(100)); await sleep(0) }", limits={"maxLogBytes": ABOVE}).code
        == "LOG_LIMIT"
    )


def test_the_operators_cancel_on_first_error_cannot_be_taken_back(stern: Enclave) -> None:
    assert stern.run(FAILS, limits={"cancelOnFirstError": False}).code == "NO_SUCH_ORDER"


# -- what is none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", True, -1, [], {}, None])
@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "cancelOnFirstError"])
def test_a_limit_of_a_wrong_type_or_sign_is_refused_by_name(enclave: Enclave, name: str, value: object) -> None:
    assert refused_field(enclave.post("return 1", limits={name: value})).endswith(name)


@pytest.mark.parametrize("value", [1, 0, "true", None, []])
def test_cancel_on_first_error_of_a_wrong_type_is_refused_by_name(enclave: Enclave, value: object) -> None:
    field = refused_field(enclave.post("return 1", limits={"cancelOnFirstError": value}))
    assert field.endswith("cancelOnFirstError")


@pytest.mark.parametrize(
    "name", [name for name in DEFAULTS if name.startswith("max") and name.endswith(("s", "Bytes"))]
)
def test_a_number_of_things_is_a_whole_one(enclave: Enclave, name: str) -> None:
    if name != "maxCpuMs":
        assert refused_field(enclave.post("return 1", limits={name: 5_000_000.5})).endswith(name)


@pytest.mark.parametrize("value", ["1", True, -1, [], None])
@pytest.mark.parametrize("name", ["maxExecutionMs", "maxToolCalls", "heartbeatIntervalMs"])
def test_a_config_of_a_wrong_type_or_sign_is_refused_by_name(enclave: Enclave, name: str, value: object) -> None:
    assert refused_field(enclave.post("return 1", config={name: value})).endswith(name)
