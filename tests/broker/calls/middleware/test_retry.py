from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker import AccessDeniedError, ConfigurationError, RateLimitError, ToolError
from enclave_broker.broker.calls.middleware.retry import Retry
from enclave_broker.broker.calls.middleware.timeout import Timeout
from enclave_broker.types.errors import (
    RESERVED_CODES,
    MaxToolCallsError,
    StoreError,
    ToolTimeoutError,
    ToolValidationError,
)
from tests.broker.calls.middleware.support import Door, Handler, a_call, around, error_of, spawn
from tests.broker.sessions.support import jumping, run_jumping, turns

LOST = ConnectionError("the line was cut")


def gaps(handler: Handler) -> list[float]:
    return [later - earlier for earlier, later in zip(handler.times, handler.times[1:], strict=False)]


@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize("fault", [LOST, ToolTimeoutError("late"), RateLimitError("wait", retry_after=0.5)])
@jumping
async def test_a_tool_that_failed_is_asked_again(effect: str, fault: Exception) -> None:
    handler = Handler(fault, fault, "at last")
    assert await around(handler, Retry())(a_call(effect=effect)) == "at last"
    assert len(handler.calls) == 3


@pytest.mark.parametrize(
    "fault", [LOST, ToolTimeoutError("late"), RateLimitError("wait"), ToolError("no", code="BUSY")]
)
@jumping
async def test_no_write_is_started_twice(fault: Exception) -> None:
    handler = Handler(fault, "never")
    assert await error_of(around(handler, Retry(codes={"BUSY"}))(a_call(effect="write"))) is fault
    assert len(handler.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ToolValidationError("invalid"),
        AccessDeniedError("no"),
        MaxToolCallsError("enough"),
        ToolError("no such user"),
        ToolError("no such user", code="NOT_THERE"),
        StoreError("the disk is full"),
        *(ToolError("x", code=code) for code in sorted(RESERVED_CODES - {"TOOL_TIMEOUT", "EXECUTION_ERROR"})),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.code}",
)
@jumping
async def test_an_answer_is_no_failure(answer: Exception) -> None:
    handler = Handler(answer, "never")
    assert await error_of(around(handler, Retry())(a_call())) is answer
    assert len(handler.calls) == 1


@jumping
async def test_codes_of_the_tools_own_are_failures_if_the_host_says_so() -> None:
    handler = Handler(ToolError("x", code="BUSY"), ToolError("x"), "at last")
    assert await around(handler, Retry(codes=["BUSY", "EXECUTION_ERROR"]))(a_call()) == "at last"


@pytest.mark.parametrize("attempts", [1, 2, 5])
@jumping
async def test_after_the_last_attempt_the_last_error_is_raised(attempts: int) -> None:
    faults = [ConnectionError(str(number)) for number in range(10)]
    handler = Handler(*faults)
    error = await error_of(around(handler, Retry(attempts, budget=1000.0))(a_call()))
    assert error is faults[attempts - 1]
    assert len(handler.calls) == attempts


@jumping
async def test_waits_double_up_to_ten_seconds_and_chance_takes_its_part_of_each() -> None:
    chances = iter([1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0])
    handler = Handler(LOST)
    await error_of(around(handler, Retry(9, budget=1000.0, chance=lambda: next(chances)))(a_call()))
    assert gaps(handler) == pytest.approx([0.25, 0.5, 0.5, 0.0, 4.0, 8.0, 10.0, 10.0], abs=0.01)


@jumping
async def test_waits_differ_from_call_to_call() -> None:
    seen: set[float] = set()
    for _ in range(20):
        handler = Handler(LOST, "at last")
        await around(handler, Retry())(a_call())
        assert 0 <= gaps(handler)[0] <= 0.26
        seen.add(round(gaps(handler)[0], 4))
    assert len(seen) > 5


@given(
    attempts=st.integers(1, 20),
    budget=st.floats(0.01, 60),
    takes=st.lists(st.floats(0, 20), min_size=20, max_size=20),
    chance=st.floats(0, 1),
)
def test_no_attempt_starts_after_the_budget_and_none_is_missing_within_it(
    attempts: int, budget: float, takes: list[float], chance: float
) -> None:
    handler = Handler()
    ends: list[float] = []

    async def fails() -> None:
        await asyncio.sleep(takes[len(handler.calls) - 1])
        ends.append(asyncio.get_running_loop().time())
        raise ConnectionError

    async def scenario() -> None:
        handler.outcomes = [fails]
        began = asyncio.get_running_loop().time()
        error = await error_of(around(handler, Retry(attempts, budget, chance=lambda: chance))(a_call()))
        assert isinstance(error, ConnectionError)
        assert 1 <= len(handler.times) <= attempts
        assert all(start - began <= budget + 0.01 for start in handler.times)
        if len(handler.times) < attempts:
            wait = chance * min(10.0, 0.25 * 2 ** (len(handler.times) - 1))
            assert ends[-1] - began + wait > budget - 0.01

    run_jumping(scenario)


@jumping
async def test_a_rate_limit_says_how_long_to_wait() -> None:
    handler = Handler(RateLimitError("wait", retry_after=7.0), "at last")
    assert await around(handler, Retry())(a_call()) == "at last"
    assert gaps(handler)[0] == pytest.approx(7.0, abs=0.01)


@jumping
async def test_a_rate_limit_that_lasts_longer_than_the_budget_is_raised_at_once() -> None:
    refusal = RateLimitError("wait", retry_after=7.0)
    handler = Handler(refusal, "never")
    began = asyncio.get_running_loop().time()
    assert await error_of(around(handler, Retry(budget=5))(a_call())) is refusal
    assert asyncio.get_running_loop().time() == began


@jumping
async def test_a_cancellation_ends_an_attempt_and_makes_no_other() -> None:
    door = Door()
    task = await spawn(around(door, Retry()), a_call())
    task.cancel()
    await turns()
    assert task.cancelled()
    assert door.entered == ["c_1"]


@jumping
async def test_a_cancellation_ends_a_wait_and_makes_no_attempt() -> None:
    handler = Handler(LOST)
    task = await spawn(around(handler, Retry(chance=lambda: 1.0)), a_call())
    assert len(handler.calls) == 1
    task.cancel()
    await turns()
    assert task.cancelled()
    assert len(handler.calls) == 1


@pytest.mark.parametrize("fatal", [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError()])
@jumping
async def test_what_is_no_exception_passes_at_once(fatal: BaseException) -> None:
    handler = Handler(fatal, "never")
    assert await error_of(around(handler, Retry())(a_call())) is fatal
    assert len(handler.calls) == 1


@jumping
async def test_a_time_out_inside_bounds_each_attempt_and_one_outside_all_of_them() -> None:
    door = Door()
    error = await error_of(around(door, Retry(3, budget=100), Timeout(5))(a_call()))
    assert isinstance(error, ToolTimeoutError)
    assert len(door.entered) == 3
    door = Door()
    error = await error_of(around(door, Timeout(8), Retry(3, budget=100), Timeout(5))(a_call()))
    assert isinstance(error, ToolTimeoutError)
    assert "8 s" in error.message
    assert len(door.entered) == 2


@jumping
async def test_calls_at_the_same_time_count_their_attempts_apart() -> None:
    tries: dict[str, int] = {}

    async def innermost(call: Any) -> int:
        tries[call.id] = tries.get(call.id, 0) + 1
        await asyncio.sleep(0)
        if tries[call.id] < 3:
            raise ConnectionError
        return tries[call.id]

    invoke = around(innermost, Retry())
    assert await asyncio.gather(*(invoke(a_call(id=f"c_{n}")) for n in range(50))) == [3] * 50


async def test_a_failure_that_another_attempt_makes_good_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "enclave_broker.calls"):
        await around(Handler(LOST, "at last"), Retry(chance=lambda: 0.0))(a_call())
    (record,) = caplog.records
    assert "users:get failed at attempt 1 of 3 (ConnectionError)" in record.getMessage()
    assert "the line" not in record.getMessage()


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 2.0},
        {"budget": 0},
        {"budget": float("inf")},
        {"budget": "10"},
        {"codes": "BUSY"},
        {"codes": [1]},
        {"codes": ["VALIDATION_ERROR"]},
        {"codes": ["BUSY", "ACCESS_DENIED"]},
        {"codes": ["OUTCOME_UNKNOWN"]},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Retry"):
        Retry(**options)
