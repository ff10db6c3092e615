"""The body of POST /sessions, read back by what the server reads it with."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.client.body import session_body
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.requests import RequestedLimits, SessionRequest, parse_session_request

OTHER = SessionLimits(
    timeout=1.5,
    deadline=90.0,
    tool_timeout=2.0,
    per_tool_deadline=3.0,
    cpu_time=0.25,
    heartbeat_interval=5.0,
    max_tool_calls=0,
    max_concurrent_calls=3,
    max_timers=4,
    cancel_on_first_error=True,
    max_memory_bytes=5 << 20,
    max_stdout_bytes=6,
    max_tool_args_bytes=7,
    max_tool_result_bytes=8,
    max_code_bytes=9,
    max_log_bytes=10,
)


def sent(code: str = "code", **options: Any) -> SessionRequest:
    return parse_session_request(session_body(code, "s_1", options, filter=None, encryption="disabled"))  # type: ignore[arg-type]


def test_every_limit_arrives_in_its_unit() -> None:
    limits = sent(limits=OTHER).limits
    assert {f.name: getattr(limits, f.name) for f in fields(SessionLimits)} == {
        f.name: getattr(OTHER, f.name) for f in fields(SessionLimits)
    }


def test_a_limit_that_nobody_changed_is_left_to_the_server() -> None:
    assert sent(limits=SessionLimits(cpu_time=2.0)).limits == RequestedLimits(cpu_time=2.0)
    assert sent().limits == RequestedLimits()


def test_a_limit_that_is_named_is_sent_even_if_it_is_the_default() -> None:
    short = sent(timeout=60, deadline=timedelta(minutes=2), max_tool_calls=50).limits
    assert short == RequestedLimits(timeout=60.0, deadline=120.0, max_tool_calls=50)
    assert sent(limits=OTHER, timeout=9.0).limits.timeout == 9.0


def test_code_language_tools_and_labels_arrive() -> None:
    request = sent(
        "return 'é\u2028'", language="typescript", allowed_tools=["orders:*"], metadata={"ticket": [1, None]}
    )
    assert (request.code, request.session_id, request.language) == ("return 'é\u2028'", "s_1", "typescript")
    assert (request.allowed_tools, request.metadata) == (("orders:*",), {"ticket": [1, None]})
    assert sent(allowed_tools=[]).allowed_tools == ()
    assert sent(allowed_tools=None, metadata={}).allowed_tools is None


@given(st.text())
def test_any_code_arrives_halves_of_pairs_mended(code: str) -> None:
    assert sent(code).code == code.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"allowed_tool": ["a"]}, "unknown option allowed_tool; known are language, allowed_tools"),
        ({"allowed_tools": "orders:*"}, "allowed_tools is a list"),
        ({"timeout": -1}, "timeout must be more than 0"),
        ({"max_tool_calls": True}, "max_tool_calls must be a whole number"),
        ({"metadata": {"a": object()}}, "can't be written as JSON"),
    ],
)
def test_a_wrong_option_is_refused_before_it_is_sent(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        sent(**options)


def test_code_is_text() -> None:
    with pytest.raises(ConfigurationError, match="code must be a str"):
        sent(b"return 1")  # type: ignore[arg-type]


def test_nothing_is_sent_that_nobody_asked_for() -> None:
    body = session_body("code", "s_1", {}, filter=None, encryption="disabled")
    assert msgspec.json.decode(body) == {"code": "code", "sessionId": "s_1"}
