from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker import ConfigurationError, ToolError
from enclave_broker.broker.calls.middleware.concurrency_limit import ConcurrencyLimit
from tests.broker.calls.middleware.support import Door, Handler, a_call, around, error_of, spawn
from tests.broker.sessions.support import jumping, run_jumping, turns


def ids(*numbers: int) -> list[str]:
    return [f"c_{number}" for number in numbers]


@jumping
async def test_calls_beyond_the_places_wait_and_enter_in_order() -> None:
    door = Door()
    invoke = around(door, ConcurrencyLimit(2))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(5)]
    assert door.inside == ids(0, 1)
    door.open("c_1", "one")
    await turns()
    assert door.inside == ids(0, 2)
    door.open("c_0", "zero")
    door.open("c_2", "two")
    await turns()
    assert door.inside == ids(3, 4)
    door.open("c_3", "three")
    door.open("c_4", "four")
    assert await asyncio.gather(*tasks) == ["zero", "one", "two", "three", "four"]
    assert door.entered == ids(0, 1, 2, 3, 4)


@jumping
async def test_a_newcomer_never_overtakes_who_waits() -> None:
    door = Door()
    invoke = around(door, ConcurrencyLimit(1))
    tasks = [await spawn(invoke, a_call(id="c_0")), await spawn(invoke, a_call(id="c_1"))]
    door.open("c_0")
    tasks.append(asyncio.ensure_future(invoke(a_call(id="c_2"))))
    await turns()
    assert door.inside == ids(1)
    door.open("c_1")
    await turns()
    door.open("c_2")
    await asyncio.gather(*tasks)


@jumping
async def test_the_limit_is_of_all_tools_or_of_each() -> None:
    for per_tool, inside in ((False, ["c_0"]), (True, ids(0, 2))):
        door = Door()
        invoke = around(door, ConcurrencyLimit(1, per_tool=per_tool))
        names = ["a", "a", "b", "b"]
        tasks = [await spawn(invoke, a_call(id=f"c_{n}", name=name)) for n, name in enumerate(names)]
        assert door.inside == inside
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@jumping
async def test_one_object_in_two_places_is_one_limit() -> None:
    door, limit = Door(), ConcurrencyLimit(1)
    tasks = [await spawn(around(door, limit), a_call(id="c_0")), await spawn(around(door, limit), a_call(id="c_1"))]
    assert door.inside == ["c_0"]
    door.open("c_0")
    await turns()
    door.open("c_1")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("fault", [KeyError("x"), ToolError("x"), asyncio.CancelledError()], ids=repr)
@jumping
async def test_a_failure_gives_its_place_back(fault: BaseException) -> None:
    limit = ConcurrencyLimit(1)
    for _ in range(3):
        assert await error_of(around(Handler(fault), limit)(a_call())) is fault
    assert await around(Handler("next"), limit)(a_call()) == "next"


@jumping
async def test_more_than_may_wait_are_refused_at_once() -> None:
    door = Door()
    invoke = around(door, ConcurrencyLimit(1, max_waiting=2))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(3)]
    error = await error_of(invoke(a_call(id="c_3")))
    assert isinstance(error, ToolError)
    assert error.code == "OVERLOADED"
    assert "users:get" in error.message
    assert "try again in 1 s" in error.message
    assert error.details == [{"type": "retry_info", "retryDelayMs": 1_000}]
    tasks[1].cancel()
    await turns()
    tasks.append(await spawn(invoke, a_call(id="c_4")))
    assert not tasks[-1].done(), "who gives up makes room"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@jumping
async def test_a_call_cancelled_in_the_moment_its_turn_comes_hands_the_turn_on() -> None:
    door = Door()
    invoke = around(door, ConcurrencyLimit(1))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(3)]
    door.open("c_0")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[1].cancel()
    await turns()
    assert door.inside == ["c_2"]
    door.open("c_2", "last")
    assert await tasks[2] == "last"


@given(
    places=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["call", "call", "open", "cancel"]), st.integers(0, 30), st.integers(0, 3))
    ),
)
def test_never_more_than_the_places_and_no_place_is_lost(places: int, steps: list[tuple[str, int, int]]) -> None:
    async def scenario() -> None:
        door, limit = Door(), ConcurrencyLimit(places)
        invoke = around(door, limit)
        tasks: dict[str, asyncio.Task[Any]] = {}
        for what, which, pause in steps:
            if what == "call":
                tasks[f"c_{len(tasks)}"] = asyncio.ensure_future(invoke(a_call(id=f"c_{len(tasks)}")))
            elif what == "open" and door.inside:
                call_id = door.inside[which % len(door.inside)]
                if not door.is_open(call_id):
                    door.open(call_id)
            elif tasks:
                tasks[f"c_{which % len(tasks)}"].cancel()
            await turns(pause)
            assert len(door.inside) <= places
        await turns()
        under_way = [call_id for call_id, task in tasks.items() if not task.done()]
        assert door.inside == sorted(door.inside, key=lambda call_id: int(call_id[2:]))
        assert len(door.inside) == min(places, len(under_way)), "a place stands empty while somebody waits"
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert limit._gates == {}  # pyright: ignore[reportPrivateUsage] nothing else shows it

    run_jumping(scenario)


def test_one_object_serves_one_loop_after_the_other() -> None:
    limit = ConcurrencyLimit(1)

    async def crowd() -> list[Any]:
        async def short() -> str:
            await asyncio.sleep(1)
            return "done"

        invoke = around(Handler(short), limit)
        return await asyncio.gather(*(invoke(a_call(id=f"c_{n}")) for n in range(4)))

    for _ in range(3):
        assert run_jumping(crowd) == ["done"] * 4


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"n": True}, {"n": 1.5}, {"n": 1, "max_waiting": -1}, {"n": 1, "per_tool": 1}], ids=str
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="ConcurrencyLimit"):
        ConcurrencyLimit(**options)
