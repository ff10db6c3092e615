from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import Broker
from enclave_broker.types.events import Event
from tests.broker.sessions.support import jumping, turns, twin_broker, until, within

CODE = "console.log('a'); console.warn('b'); return 1"
TYPES = ["session_init", "stdout", "log", "final"]


@jumping
async def test_a_function_gets_every_event_in_order_before_execute_returns() -> None:
    seen: list[str] = []
    async with twin_broker() as broker:
        await broker.execute(CODE, on_event=lambda event: seen.append(event.type))
        assert seen == TYPES


@jumping
async def test_an_async_function_gets_every_event_in_order_before_execute_returns() -> None:
    seen: list[str] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(1)
        seen.append(event.type)

    async with twin_broker() as broker:
        await broker.execute(CODE, on_event=slow)
        assert seen == TYPES


@jumping
async def test_the_brokers_callback_gets_the_events_of_every_session() -> None:
    seen: dict[str, list[int]] = {}
    broker_wide: list[Any] = []
    async with twin_broker() as broker:

        @broker.on_event
        async def note(event: Event) -> None:
            await asyncio.sleep(0)
            seen.setdefault(event.session_id, []).append(event.seq)

        broker_wide.append(note)
        broker.on_event(broker_wide.append)
        results = await asyncio.gather(*(broker.execute(CODE) for _ in range(5)))
        session = await broker.create_session()
        await session.execute(CODE)
        await session.execute("return 2")
    assert seen == {**{result.session_id: [1, 2, 3, 4] for result in results}, session.id: [1, 2, 3, 4, 5]}
    assert len(broker_wide) == 1 + 5 * 4 + 5


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopIteration()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("where", ["execute", "broker"])
@jumping
async def test_a_callback_that_raises_harms_nothing(
    error: BaseException, is_async: bool, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    other: list[str] = []

    def fail(event: Event) -> None:
        seen.append(event.type)
        raise error

    async def fail_later(event: Event) -> None:
        await asyncio.sleep(0)
        fail(event)

    callback: Any = fail_later if is_async else fail
    async with twin_broker() as broker:
        broker.on_event(lambda event: other.append(event.type))
        if where == "broker":
            broker.on_event(callback)
        options = {"on_event": callback} if where == "execute" else {}
        result = await within(broker.execute(CODE, **options))
        await until(lambda: len(other) == 4)
        await turns()
        assert (result.value, seen, other) == (1, TYPES, TYPES)
        assert (await broker.execute("return 2")).value == 2
    assert sum("event callback failed" in record.getMessage() for record in caplog.records) >= 4


@jumping
async def test_a_slow_callback_does_not_hold_up_the_run_or_the_others() -> None:
    gate = asyncio.Event()
    fast: list[str] = []

    async def stuck(event: Event) -> None:
        await gate.wait()

    async with twin_broker() as broker:
        broker.on_event(stuck)
        broker.on_event(lambda event: fast.append(event.type))
        assert (await within(broker.execute(CODE))).value == 1
        await until(lambda: fast == TYPES)
        gate.set()


@jumping
async def test_a_callback_that_never_returns_does_not_hold_up_the_end() -> None:
    async def stuck(event: Event) -> None:
        await asyncio.get_running_loop().create_future()

    async with twin_broker() as broker:
        broker.on_event(stuck)
        assert (await broker.execute(CODE)).value == 1


@jumping
async def test_a_cancelled_execute_leaves_no_watcher_behind() -> None:
    seen: list[str] = []
    async with twin_broker() as broker:
        run = asyncio.ensure_future(broker.execute("await sleep(1e6)", on_event=lambda event: seen.append(event.type)))
        await turns(30)
        run.cancel()
        await asyncio.wait([run])
        await turns()
        assert seen == ["session_init", "final"]
        assert {task for task in asyncio.all_tasks() if "_pump" in repr(task)} == set()


async def test_callbacks_of_another_loop_run_in_the_brokers() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    def note(event: Event) -> None:
        loops.add(asyncio.get_running_loop())

    async with Broker() as broker:
        result = await asyncio.to_thread(lambda: asyncio.run(broker.execute(CODE, on_event=note)))
    assert result.value == 1
    assert loops == {asyncio.get_running_loop()}
