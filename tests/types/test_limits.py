from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import MAX_MEMORY_BYTES, MAX_SECONDS, MIN_MEMORY_BYTES, SessionLimits, seconds

DURATIONS = ["timeout", "deadline", "tool_timeout", "per_tool_deadline", "cpu_time", "heartbeat_interval"]
COUNTS = [field.name for field in fields(SessionLimits) if field.name.startswith("max_")]


def limits(**given_limits: Any) -> SessionLimits:
    return SessionLimits(**given_limits)


def test_the_defaults_are_those_of_the_wire() -> None:
    default = SessionLimits()
    assert {field.name: getattr(default, field.name) for field in fields(default)} == {
        "timeout": 60.0,
        "deadline": None,
        "tool_timeout": 30.0,
        "per_tool_deadline": 30.0,
        "cpu_time": 10.0,
        "heartbeat_interval": 15.0,
        "max_tool_calls": 50,
        "max_concurrent_calls": 16,
        "max_timers": 1000,
        "cancel_on_first_error": False,
        "max_memory_bytes": 67108864,
        "max_stdout_bytes": 262144,
        "max_tool_args_bytes": 5242880,
        "max_tool_result_bytes": 5242880,
        "max_code_bytes": 262144,
        "max_log_bytes": 67108864,
    }


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    "value",
    [True, False, float("nan"), float("inf"), float("-inf"), -1, -0.5, 0, 0.0, "5", "1_0", [], b"1", 10**400],
    ids=lambda value: repr(value)[:20],
)
def test_a_duration_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        limits(**{name: value})


@pytest.mark.parametrize("name", [name for name in DURATIONS if name != "deadline"])
def test_only_a_deadline_may_be_none(name: str) -> None:
    assert limits(deadline=None).deadline is None
    with pytest.raises(ConfigurationError, match=name):
        limits(**{name: None})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    "value",
    [True, False, float("nan"), float("inf"), 5.0, -1, "5", "1_0", None, 2**31, 10**400, timedelta(seconds=1)],
    ids=lambda value: repr(value)[:20],
)
def test_a_count_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        limits(**{name: value})


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_a_flag_is_a_bool_and_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="cancel_on_first_error"):
        limits(cancel_on_first_error=value)


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="max_fun"):
        limits(max_fun=1)
    with pytest.raises(TypeError, match="max_fun"):
        SessionLimits().override(max_fun=1)


@pytest.mark.parametrize("name", ["max_concurrent_calls", "max_code_bytes", "max_tool_args_bytes", "max_log_bytes"])
def test_what_nothing_can_run_without_may_not_be_zero(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        limits(**{name: 0})


def test_calls_timers_and_output_may_be_forbidden() -> None:
    none = limits(max_tool_calls=0, max_timers=0, max_stdout_bytes=0)
    assert (none.max_tool_calls, none.max_timers, none.max_stdout_bytes) == (0, 0, 0)


@pytest.mark.parametrize("value", [MIN_MEMORY_BYTES - 1, MAX_MEMORY_BYTES + 1])
def test_memory_ends_where_the_engines_own_does(value: int) -> None:
    with pytest.raises(ConfigurationError, match="256 MiB"):
        limits(max_memory_bytes=value)
    assert limits(max_memory_bytes=MIN_MEMORY_BYTES).max_memory_bytes == MIN_MEMORY_BYTES
    assert limits(max_memory_bytes=MAX_MEMORY_BYTES).max_memory_bytes == MAX_MEMORY_BYTES


@given(st.floats(min_value=0, max_value=MAX_SECONDS, exclude_min=True))
def test_a_number_and_a_timedelta_are_the_same_duration(value: float) -> None:
    assert seconds(value, "x") == value
    delta = timedelta(seconds=value)
    if delta > timedelta(0):
        assert seconds(delta, "x") == delta.total_seconds()


def test_a_whole_number_of_seconds_becomes_a_float() -> None:
    assert isinstance(limits(timeout=5).timeout, float)
    assert limits(deadline=timedelta(minutes=2)).deadline == 120.0


def test_an_override_keeps_what_is_not_given_and_is_checked() -> None:
    base = limits(timeout=5, max_tool_calls=3)
    assert base.override(timeout=None, max_tool_calls=None) is base
    assert base.override(max_tool_calls=0) == limits(timeout=5, max_tool_calls=0)
    with pytest.raises(ConfigurationError, match="timeout"):
        base.override(timeout=-1)


def test_limits_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SessionLimits().timeout = 1.0  # pyright: ignore[reportAttributeAccessIssue] that is what is tested
