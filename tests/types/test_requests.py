from __future__ import annotations

import json
import pickle
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.requests import (
    WIRE_LIMITS,
    CancelRequest,
    InvalidRequestError,
    RequestedLimits,
    SessionRequest,
    ToolResultFailure,
    ToolResultRequest,
    clamp,
    parse_cancel,
    parse_session_request,
    parse_tool_result,
)


def session(**body: Any) -> SessionRequest:
    return parse_session_request(json.dumps({"code": "return 1", **body}).encode())


def refused(field: str, reason: str, **body: Any) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        session(**body)
    assert caught.value.field == field


def test_code_alone_is_a_request() -> None:
    assert parse_session_request(b'{"code":"return 1"}') == SessionRequest(code="return 1")


def test_what_the_existing_client_sends_is_understood() -> None:
    request = session(
        sessionId="s_1b4e28ba-2fa1-41d2-883f-0016d3cca427",
        config={"maxExecutionMs": 5_000, "maxToolCalls": 3, "heartbeatIntervalMs": 1_000},
    )
    assert request.session_id == "s_1b4e28ba-2fa1-41d2-883f-0016d3cca427"
    assert request.limits == RequestedLimits(timeout=5.0, max_tool_calls=3, heartbeat_interval=1.0)


def test_every_field_of_the_protocol_is_understood() -> None:
    filter: dict[str, Any] = {"mode": "include", "rules": []}
    assert session(
        protocolVersion=1,
        encryption={"mode": "optional", "clientHello": {}},
        filter=filter,
        language="typescript",
        allowedTools=["orders:*"],
        metadata={"a": [1]},
        detach=True,
        stream=False,
        limits={"deadlineMs": 0, "cancelOnFirstError": True},
    ) == SessionRequest(
        code="return 1",
        protocol_version=1,
        filter=filter,
        language="typescript",
        allowed_tools=("orders:*",),
        metadata={"a": [1]},
        detach=True,
        stream=False,
        limits=RequestedLimits(cancel_on_first_error=True),
    )


def test_null_is_as_good_as_absent() -> None:
    names = ["sessionId", "config", "limits", "filter", "encryption", "protocolVersion", "language", "allowedTools"]
    assert session(**dict.fromkeys([*names, "metadata", "detach", "stream"])) == session()


def test_fields_that_are_not_known_are_left_alone() -> None:
    assert session(later={"a": 1}, x=2) == session()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("allowed_tools", "allowedTools"),
        ("AllowedTools", "allowedTools"),
        ("session-id", "sessionId"),
        ("Limits", "limits"),
    ],
)
def test_a_known_field_spelled_otherwise_is_refused(name: str, right: str) -> None:
    refused(name, f"did you mean {right}", **{name: []})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "must be a JSON object, not a list"),
        (b"null", "not null"),
        (b'"code"', "not a text"),
        (b'{"code":"\xff"}', "UTF-8"),
        (b'{"code":NaN}', "no JSON"),
        (b'{"code":' + b"[" * 100_000, "nested too deep"),
        (b'{"limits":{"maxToolCalls":' + b"9" * 5_000 + b"}}", "out of range"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, reason: str) -> None:
    for parse in (parse_session_request, parse_tool_result, parse_cancel):
        if body or parse is not parse_cancel:
            with pytest.raises(InvalidRequestError, match=reason) as caught:
                parse(body)
            assert caught.value.field == ""


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("code", None, "is missing"),
        ("code", 1, "must be a text, not a number"),
        ("sessionId", 1, "must be a text"),
        ("sessionId", "", "is wrong: a session id is 's_'"),
        ("sessionId", "s_", "is wrong"),
        ("sessionId", "x_1", "is wrong"),
        ("sessionId", "s_" + "a" * 127, "is wrong"),
        ("sessionId", "s_a\n", "is wrong"),
        ("sessionId", "s_../x", "is wrong"),
        ("config", [], "must be an object, not a list"),
        ("limits", 1, "must be an object, not a number"),
        ("filter", "a", "must be an object, not a text"),
        ("metadata", [], "must be an object"),
        ("metadata", {"a": "x" * 20_000}, "at most 16,384 bytes"),
        ("language", True, "must be a text, not true or false"),
        ("allowedTools", "orders:*", "must be a list of patterns over tool names"),
        ("allowedTools", ["a"] * 1_001, "1001 patterns; 1000 are the most"),
        ("detach", 1, "must be true or false, not a number"),
        ("stream", "false", "must be true or false, not a text"),
        ("protocolVersion", 3, "must be 2"),
        ("protocolVersion", 0, "must be 2"),
        ("protocolVersion", True, "must be 2"),
        ("protocolVersion", "2", "must be 2"),
        ("protocolVersion", 2.5, "must be 2"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_by_name(field: str, value: Any, reason: str) -> None:
    refused(field, reason, **{field: value})


def test_a_pattern_that_is_no_text_is_refused_by_place() -> None:
    refused("allowedTools[1]", "must be a text, not a number", allowedTools=["a", 1])


@pytest.mark.parametrize(
    ("encryption", "reason"),
    [
        ({"mode": "required"}, "doesn't encrypt"),
        ({"mode": "maybe"}, "disabled, optional or required"),
        ({}, "disabled, optional or required"),
        ("required", "disabled, optional or required"),
    ],
)
def test_encryption_can_not_be_required(encryption: Any, reason: str) -> None:
    refused("encryption.mode", reason, encryption=encryption)


def test_a_refusal_carries_code_and_details_of_the_wire() -> None:
    with pytest.raises(EnclaveError) as caught:
        session(limits={"maxToolCalls": -1})
    error = caught.value
    reason = "must be at least 0, not -1"
    assert error.code == "INVALID_REQUEST"
    assert error.message == f"limits.maxToolCalls {reason}"
    assert error.details == [{"type": "validation_info", "field": "limits.maxToolCalls", "reason": reason}]
    again = pickle.loads(pickle.dumps(error))
    assert (again.field, again.reason, again.details) == ("limits.maxToolCalls", reason, error.details)


# --- Limits


MILLISECONDS = ["sessionTtlMs", "deadlineMs", "toolTimeoutMs", "perToolDeadlineMs", "maxCpuMs", "heartbeatIntervalMs"]
COUNTS = [
    "maxToolCalls",
    "maxConcurrentCalls",
    "maxTimers",
    "maxMemoryBytes",
    "maxStdoutBytes",
    "maxToolArgsBytes",
    "maxToolResultBytes",
    "maxCodeBytes",
    "maxLogBytes",
]
MAY_BE_ZERO = {"deadlineMs", "maxToolCalls", "maxTimers", "maxStdoutBytes"}


def test_every_limit_of_a_session_has_its_name_on_the_wire() -> None:
    asked = session(
        limits={**dict.fromkeys(MILLISECONDS, 1_500), **dict.fromkeys(COUNTS, 1 << 23), "cancelOnFirstError": True}
    )
    assert set(WIRE_LIMITS.values()) == {field.name for field in fields(SessionLimits)}
    assert {name for name in RequestedLimits.__struct_fields__ if getattr(asked.limits, name) is not None} == {
        field.name for field in fields(SessionLimits)
    }
    assert asked.limits.timeout == asked.limits.heartbeat_interval == 1.5
    assert asked.limits.max_code_bytes == 1 << 23


@pytest.mark.parametrize("where", ["limits", "config"])
def test_an_unknown_limit_is_refused_by_name(where: str) -> None:
    refused(f"{where}.maxFoo", f"is no limit; known in {where} are .*maxToolCalls", **{where: {"maxFoo": 1}})


@pytest.mark.parametrize("name", [*MILLISECONDS, *COUNTS, "cancelOnFirstError"])
@pytest.mark.parametrize("value", [None, "1", [1], {}, "NaN"])
def test_a_limit_of_the_wrong_kind_is_refused(name: str, value: Any) -> None:
    refused(f"limits.{name}", "must be", limits={name: value})


@pytest.mark.parametrize("name", [*MILLISECONDS, *COUNTS])
def test_a_bool_is_no_number(name: str) -> None:
    refused(f"limits.{name}", "not true or false", limits={name: True})


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number(name: str) -> None:
    refused(f"limits.{name}", "must be a whole number, not 9000000.5", limits={name: 9_000_000.5})


def test_a_flag_is_no_number() -> None:
    refused("limits.cancelOnFirstError", "must be true or false, not a number", limits={"cancelOnFirstError": 1})


@pytest.mark.parametrize("name", [*MILLISECONDS, *COUNTS])
def test_no_limit_is_negative_and_few_are_zero(name: str) -> None:
    refused(f"limits.{name}", "must be at least", limits={name: -1})
    refused(f"limits.{name}", "must be at least", limits={name: -(10**400)})
    if name in MAY_BE_ZERO:
        assert session(limits={name: 0})
    else:
        refused(f"limits.{name}", "must be at least", limits={name: 0})


def test_less_memory_than_the_engine_needs_is_refused() -> None:
    refused("limits.maxMemoryBytes", "at least 4194304", limits={"maxMemoryBytes": 1_000_000})


def test_where_config_and_limits_ask_for_the_same_the_smaller_counts() -> None:
    limits = session(
        config={"maxExecutionMs": 5_000, "maxToolCalls": 9}, limits={"sessionTtlMs": 7_000, "maxToolCalls": 2}
    ).limits
    assert limits == RequestedLimits(timeout=5.0, max_tool_calls=2)


OPERATOR = SessionLimits(
    timeout=10.0, max_tool_calls=5, max_memory_bytes=8 << 20, heartbeat_interval=5.0, tool_timeout=2.0
)


def allowed(limits: dict[str, Any], operator: SessionLimits = OPERATOR) -> SessionLimits:
    return clamp(session(limits=limits).limits, operator)


def test_who_asks_for_nothing_gets_the_operators_limits() -> None:
    assert allowed({}) == OPERATOR


def test_less_than_the_operators_is_granted_and_more_is_clamped() -> None:
    got = allowed({"sessionTtlMs": 2_500, "maxToolCalls": 6, "maxMemoryBytes": 1 << 40, "toolTimeoutMs": 1_999.5})
    assert got == OPERATOR.override(timeout=2.5, tool_timeout=1.9995)


def test_numbers_beyond_all_measure_are_clamped() -> None:
    assert allowed(dict.fromkeys([*MILLISECONDS, *COUNTS], 10**400)).max_tool_calls == 5
    assert allowed(dict.fromkeys(MILLISECONDS, 1e300)).timeout == 10.0


@pytest.mark.parametrize(("asked", "got"), [(1, 0.05), (50, 0.05), (1_000, 1.0), (20_000, 20.0), (60_000, 20.0)])
def test_the_heartbeat_goes_either_way_within_its_range(asked: int, got: float) -> None:
    assert allowed({"heartbeatIntervalMs": asked}).heartbeat_interval == got


def test_a_deadline_of_zero_is_the_operators() -> None:
    assert allowed({"deadlineMs": 0}).deadline is None
    assert allowed({"deadlineMs": 500}).deadline == 0.5
    strict = OPERATOR.override(deadline=3.0)
    assert [allowed({"deadlineMs": ms}, strict).deadline for ms in (0, 500, 9_000)] == [3.0, 0.5, 3.0]


def test_ending_at_the_first_error_can_be_switched_on_but_not_off() -> None:
    assert allowed({"cancelOnFirstError": True}).cancel_on_first_error
    assert allowed({"cancelOnFirstError": False}, OPERATOR.override(cancel_on_first_error=True)).cancel_on_first_error


NUMBERS = st.integers(0, 10**12) | st.floats(0, 1e12)


@given(
    st.dictionaries(st.sampled_from(MILLISECONDS), NUMBERS),
    st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 10**12)),
)
def test_no_request_gets_more_than_the_operator_allows(times: dict[str, Any], counts: dict[str, Any]) -> None:
    operator = SessionLimits(deadline=100.0)
    try:
        got = allowed({**times, **counts}, operator)
    except InvalidRequestError:
        return
    for field in fields(SessionLimits):
        if field.name != "heartbeat_interval":
            assert getattr(got, field.name) <= getattr(operator, field.name)


# --- Answers of client tools, cancel


def tool_result(**body: Any) -> ToolResultRequest:
    return parse_tool_result(json.dumps(body).encode())


def test_a_result_of_a_clients_tool_is_understood() -> None:
    assert tool_result(callId="c_1", ok=True, result=[1]) == ToolResultRequest(call_id="c_1", ok=True, result=[1])
    assert tool_result(callId="c_1", ok=True).result is msgspec.UNSET
    assert tool_result(callId="c_1", ok=True, result=None, error=None).result is None
    failure = {"message": "m", "code": "C", "details": {"a": 1}, "stack": "s"}
    assert tool_result(callId="c_1", ok=False, error=failure) == ToolResultRequest(
        call_id="c_1", ok=False, error=ToolResultFailure(message="m", code="C", details={"a": 1})
    )
    assert tool_result(callId="c_1", ok=False, result=None, error={"message": ""}).result is msgspec.UNSET


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ok": True}, "callId"),
        ({"callId": "c_", "ok": True}, "callId"),
        ({"callId": "1", "ok": True}, "callId"),
        ({"callId": 1, "ok": True}, "callId"),
        ({"callId": "c_1"}, "ok"),
        ({"callId": "c_1", "ok": 1}, "ok"),
        ({"callId": "c_1", "ok": True, "error": {"message": "m"}}, "error"),
        ({"callId": "c_1", "ok": False}, "error"),
        ({"callId": "c_1", "ok": False, "error": "m"}, "error"),
        ({"callId": "c_1", "ok": False, "error": {}}, "error.message"),
        ({"callId": "c_1", "ok": False, "error": {"message": 1}}, "error.message"),
        ({"callId": "c_1", "ok": False, "error": {"message": "m", "code": 1}}, "error.code"),
        ({"callId": "c_1", "ok": False, "result": 1, "error": {"message": "m"}}, "result"),
        ({"call_id": "c_1", "ok": True}, "call_id"),
    ],
)
def test_a_result_that_makes_no_sense_is_refused_by_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        tool_result(**body)
    assert caught.value.field == field


def test_a_cancel_may_say_why_or_nothing() -> None:
    assert parse_cancel(b'{"reason":"enough"}') == CancelRequest(reason="enough")
    assert parse_cancel(b"") == parse_cancel(b" \r\n") == parse_cancel(b"{}") == CancelRequest()


@pytest.mark.parametrize("reason", [1, ["a"], "x" * 1_001])
def test_a_reason_is_a_short_text(reason: Any) -> None:
    with pytest.raises(InvalidRequestError, match="reason"):
        parse_cancel(json.dumps({"reason": reason}).encode())


@given(st.binary(max_size=50))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_session_request(body)


NAMES = st.sampled_from(
    ["code", "sessionId", "config", "limits", "filter", "encryption", "language", "allowedTools", "metadata"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(NAMES, VALUES))
def test_any_object_is_a_request_or_refused(body: dict[str, Any]) -> None:
    try:
        clamp(parse_session_request(json.dumps(body).encode()).limits, OPERATOR)
    except InvalidRequestError as error:
        assert error.reason  # noqa: PT017 both ends are right
