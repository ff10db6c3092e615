from __future__ import annotations

import pickle
from typing import Any

import pytest

from enclave_broker.types.errors import ExecutionError
from enclave_broker.types.results import CallRecord, ExecutionResult, ExecutionStats, ScriptError


def result(**changes: Any) -> ExecutionResult[Any]:
    given: dict[str, Any] = {
        "ok": True,
        "status": "completed",
        "value": 1,
        "error": None,
        "stdout": "",
        "calls": [],
        "stats": ExecutionStats(),
        "session_id": "s_1",
    }
    return ExecutionResult(**{**given, **changes})


def test_a_good_result_goes_on_as_itself() -> None:
    good = result()
    assert good.raise_for_error() is good
    assert good.pending == []


def test_a_failed_result_is_raised_with_everything_in_it() -> None:
    call = CallRecord(id="c_1", name="x", args={}, outcome="unknown")
    failed = result(
        ok=False, status="failed", value=None, error=ScriptError(code="CPU_LIMIT", message="too long"), calls=[call]
    )
    with pytest.raises(ExecutionError, match="too long") as raised:
        failed.raise_for_error()
    assert (raised.value.code, raised.value.result) == ("CPU_LIMIT", failed)
    assert pickle.loads(pickle.dumps(raised.value)).result == failed


def test_an_error_shows_its_place_in_the_script_if_it_has_one() -> None:
    assert str(ScriptError(code="X", message="m")) == "X: m"
    assert str(ScriptError(code="X", message="m", line=3, column=7)) == "X: m (line 3, column 7)"


def test_stats_on_the_wire_are_milliseconds_and_bytes() -> None:
    stats = ExecutionStats(duration=1.5, tool_call_count=2, stdout_bytes=3, cpu_time=0.25)
    assert stats.to_wire() == {"durationMs": 1500.0, "toolCallCount": 2, "stdoutBytes": 3}
