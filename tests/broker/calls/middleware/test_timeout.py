from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from enclave_broker import ConfigurationError, ToolCall, ToolError
from enclave_broker.broker.calls.middleware.timeout import Timeout
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.types.errors import ToolTimeoutError
from tests.broker.calls.middleware.support import Door, Handler, a_call, around, error_of, spawn
from tests.broker.sessions.support import jumping, turns, until


@jumping
async def test_what_ends_in_time_passes_with_its_result_or_its_error() -> None:
    async def works() -> str:
        await asyncio.sleep(4.9)
        return "done"

    assert await around(Handler(works), Timeout(5))(a_call()) == "done"
    fault = KeyError("x")
    assert await error_of(around(Handler(fault), Timeout(5))(a_call())) is fault
    await asyncio.sleep(100)  # nothing rings afterwards


@jumping
async def test_what_takes_longer_is_cancelled_and_ends_as_a_tool_time_out() -> None:
    door = Door()
    began = asyncio.get_running_loop().time()
    error = await error_of(around(door, Timeout(timedelta(seconds=5)))(a_call()))
    assert isinstance(error, ToolTimeoutError)
    assert error.code == "TOOL_TIMEOUT"
    assert "users:get" in error.message
    assert "5 s" in error.message
    assert door.cancelled == ["c_1"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.01)
    assert_not_cancelled()


def assert_not_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def swallows() -> Any:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "late"


async def trips() -> Any:
    try:
        await asyncio.sleep(3600)
    finally:
        raise ToolError("the cleaning up failed", code="MINE")


async def goes_on() -> Any:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(10)
        return "much later"


@pytest.mark.parametrize("handler", [swallows, trips, goes_on])
@jumping
async def test_whatever_a_handler_makes_of_its_cancellation_it_is_late(handler: Any) -> None:
    error = await error_of(around(Handler(handler), Timeout(5))(a_call()))
    assert isinstance(error, ToolTimeoutError)
    assert_not_cancelled()


@jumping
async def test_a_handlers_own_time_out_is_its_error() -> None:
    async def own() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(3600)

    error = await error_of(around(Handler(own), Timeout(5))(a_call()))
    assert type(error) is TimeoutError


@jumping
async def test_a_cancellation_from_outside_stays_one() -> None:
    door = Door()
    task = await spawn(around(door, Timeout(5)), a_call())
    task.cancel()
    await turns()
    assert task.cancelled()
    assert door.cancelled == ["c_1"]


@jumping
async def test_a_cancellation_in_the_moment_of_the_time_out_stays_one() -> None:
    door = Door()
    loop = asyncio.get_running_loop()
    began = loop.time()
    task = await spawn(around(door, Timeout(5)), a_call())
    loop.call_at(began + 5, task.cancel)  # due in the same turn as the time-out
    assert isinstance(await error_of(task), asyncio.CancelledError)
    assert loop.time() - began == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize(("outer", "inner"), [(5, 9), (9, 5)])
@jumping
async def test_of_two_time_outs_the_shorter_decides(outer: float, inner: float) -> None:
    error = await error_of(around(Door(), Timeout(outer), Timeout(inner))(a_call()))
    assert isinstance(error, ToolTimeoutError)
    assert "5 s" in error.message
    assert_not_cancelled()


@jumping
async def test_a_scope_around_it_that_ends_in_the_same_moment_is_not_confused() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await around(Door(), Timeout(5))(a_call())
    assert_not_cancelled()


async def test_a_handler_in_a_thread_is_left_behind_and_counted() -> None:
    threads = HandlerThreads()
    release = threading.Event()

    async def innermost(call: ToolCall) -> Any:
        return await threads.run(release.wait)

    try:
        while not threads.abandoned:  # one that has not begun by then never does
            error = await error_of(around(innermost, Timeout(0.05))(a_call()))
            assert isinstance(error, ToolTimeoutError)
        assert threads.abandoned == 1
    finally:
        release.set()
    await until(lambda: threads.abandoned == 0)
    threads.close()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_time_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="Timeout: timeout"):
        Timeout(wrong)
