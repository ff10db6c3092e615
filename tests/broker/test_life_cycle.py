"""When a broker starts and ends, in which loop it lives, and what is left behind: nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from enclave_broker import Broker, ClosedError, ConfigurationError
from enclave_broker.runtime.memory import MemoryRuntime
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.runtime.runtime import Key, Listener, Run
from tests.broker.sessions.support import turns, within

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc, which only Linux has")


def children() -> set[int]:
    """The living child processes of this one."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(word) for word in (task / "children").read_text(encoding="ascii").split()}
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def loop_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "enclave-broker"}


class Starting:
    """A Runtime over the in-process one that counts its starts, may fail, and waits for the test."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.starts = self.ends = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._inner = MemoryRuntime()

    @property
    def engines(self) -> Mapping[str, str]:
        return self._inner.engines

    async def start(self) -> None:
        self.starts += 1
        await self.gate.wait()
        if self.starts <= self.failures:
            raise ConfigurationError(f"no sandbox today ({self.starts})")
        self._inner = MemoryRuntime()
        await self._inner.start()

    def run(self, body: bytes, key: Key, listener: Listener) -> Run:
        return self._inner.run(body, key, listener)

    def abandon(self) -> None:
        self._inner.abandon()

    async def aclose(self) -> None:
        self.ends += 1
        await self._inner.aclose()


async def test_making_a_broker_starts_nothing() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    await turns()
    assert runtime.starts == 0
    await broker.aclose()
    assert (runtime.starts, runtime.ends) == (0, 0)


async def test_the_first_await_starts_it_and_aclose_ends_it() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    assert (await broker.execute("return 1")).value == 1
    assert (await broker.execute("return 2")).value == 2
    await broker.aclose()
    await broker.aclose()
    assert (runtime.starts, runtime.ends) == (1, 1)
    for work in (broker.execute("1"), broker.create_session(), broker.execute_tool_call("s_1", {"name": "x"})):
        with pytest.raises(ClosedError):
            await work


async def test_execute_sync_after_the_end_is_refused_and_starts_no_thread() -> None:
    broker = Broker(runtimes=[Starting()])
    await broker.aclose()
    before = loop_threads()
    with pytest.raises(ClosedError):
        broker.execute_sync("1")
    assert loop_threads() == before


async def test_concurrent_first_awaits_start_it_once() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    results = await asyncio.gather(*(broker.execute(f"return {n}") for n in range(20)), broker.create_session())
    assert [getattr(result, "value", None) for result in results[:20]] == list(range(20))
    assert runtime.starts == 1
    await broker.aclose()


async def test_it_can_be_entered_again_after_its_end() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    for _ in range(2):
        async with broker as entered:
            assert entered is broker
            assert (await broker.execute("return 1")).value == 1
    await broker.aclose()
    async with broker:
        assert (await broker.execute("return 1")).value == 1
    assert (runtime.starts, runtime.ends) == (3, 3)


async def test_a_failed_start_is_reported_to_all_who_wait_and_can_be_tried_again() -> None:
    runtime = Starting(failures=1)
    broker = Broker(runtimes=[runtime])
    failed = await asyncio.gather(*(broker.execute("1") for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["no sandbox today (1)"] * 3
    assert (await broker.execute("return 1")).value == 1
    await broker.aclose()


async def test_who_went_away_during_a_failed_start_leaves_no_stale_error_behind() -> None:
    runtime = Starting(failures=1)
    runtime.gate.clear()
    broker = Broker(runtimes=[runtime])
    first = asyncio.ensure_future(broker.execute("1"))
    await turns()
    first.cancel()
    await asyncio.wait([first])
    runtime.gate.set()
    await turns()
    assert (await broker.execute("return 1")).value == 1
    await broker.aclose()


async def test_cancelling_who_waits_first_does_not_stop_the_start_for_others() -> None:
    runtime = Starting()
    runtime.gate.clear()
    broker = Broker(runtimes=[runtime])
    first, second = (asyncio.ensure_future(broker.execute("return 1")) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    runtime.gate.set()
    assert (await second).value == 1
    assert runtime.starts == 1
    await broker.aclose()


async def test_a_broker_that_is_closed_while_it_starts_does_not_run_afterwards() -> None:
    runtime = Starting()
    runtime.gate.clear()
    broker = Broker(runtimes=[runtime])
    first = asyncio.ensure_future(broker.execute("return 1"))
    await turns()
    closing = asyncio.ensure_future(broker.aclose())
    await turns()
    runtime.gate.set()
    await within(closing)
    with pytest.raises(ClosedError):
        await within(first)
    assert (runtime.starts, runtime.ends) == (1, 1)


@LINUX
async def test_processes_and_descriptors_are_gone_after_the_end() -> None:
    async with Broker() as broker:
        await broker.execute("return 1")
    before = children(), descriptors()
    for _ in range(3):
        async with Broker() as broker:
            await broker.execute("return 1")
            assert children() - before[0]
    assert (children(), descriptors()) == before


async def test_a_tool_that_runs_a_script_while_the_broker_drains_leaves_nothing_behind() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    began, go = asyncio.Event(), asyncio.Event()

    async def nest() -> str:
        began.set()
        await go.wait()
        try:
            return str((await broker.execute("return 'nested'")).value)
        except ClosedError:
            return "closed"

    broker.tool("nest")(nest)
    async with broker:
        run = asyncio.ensure_future(broker.execute("return await callTool('nest')"))
        await began.wait()
        asyncio.get_running_loop().call_later(0.01, go.set)
    assert (await within(run)).value in {"nested", "closed"}
    assert runtime.starts == runtime.ends == 1
    await broker.aclose()


# -- loops and threads -------------------------------------------------------------------------------------------------


async def double(n: int) -> int:
    return 2 * n


async def in_thread_of(name: str) -> str:
    return threading.current_thread().name


async def test_another_threads_loop_hands_over_while_the_first_loop_lives() -> None:
    here = threading.get_ident()
    seen: list[int] = []

    async def where() -> int:
        seen.append(threading.get_ident())
        return 7

    runtime = Starting()
    async with Broker(tools={"where": where}, runtimes=[runtime]) as broker:

        async def elsewhere() -> Any:
            session = await broker.create_session()
            first = await broker.execute("return await callTool('where')")
            second = await session.execute("return await callTool('where')")
            third = await broker.execute_tool_call(session.id, {"name": "where", "args": {}})
            return [first.value, second.value, third]

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == [7, 7, 7]
    assert seen == [here] * 3
    assert runtime.starts == 1


def test_a_new_loop_after_the_first_one_ended_starts_it_anew() -> None:
    runtime = Starting()
    broker = Broker(tools={"double": double}, runtimes=[runtime])
    for n in range(3):
        assert asyncio.run(broker.execute(f"return await callTool('double', {{n: {n}}})")).value == 2 * n
    assert runtime.starts == 3
    asyncio.run(broker.aclose())


def test_a_loop_that_ended_leaves_no_sessions_to_the_next() -> None:
    broker = Broker(runtimes=[Starting()])
    session = asyncio.run(broker.create_session(session_id="s_mine"))

    async def again() -> None:
        async with broker:
            assert broker.sessions.get(session.id) is None
            await broker.create_session(session_id="s_mine")

    asyncio.run(again())


def test_entering_it_in_a_new_loop_after_the_first_one_ended_starts_it_anew() -> None:
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    assert asyncio.run(broker.execute("return 1")).value == 1

    async def again() -> Any:
        async with broker:
            return (await broker.execute("return 2")).value

    assert asyncio.run(again()) == 2
    assert runtime.starts == 2


def test_execute_sync_works_from_plain_code_and_again() -> None:
    before = loop_threads()
    runtime = Starting()
    broker = Broker(tools={"double": double}, runtimes=[runtime])
    for n in range(3):
        assert broker.execute_sync(f"return await callTool('double', {{n: {n}}})").value == 2 * n
    assert runtime.starts == 1
    asyncio.run(broker.aclose())
    assert runtime.ends == 1
    assert loop_threads() == before


async def test_execute_sync_works_beside_a_running_loop() -> None:
    broker = Broker(tools={"name": in_thread_of}, runtimes=[Starting()])
    result = broker.execute_sync("return await callTool('name', {name: 'x'})", timeout=20)
    assert result.value == "enclave-broker"
    assert (await broker.execute("return 2")).value == 2
    await broker.aclose()


def test_execute_sync_from_many_threads_starts_it_once() -> None:
    before = loop_threads()
    runtime = Starting()
    broker = Broker(runtimes=[runtime])
    barrier = threading.Barrier(8)
    values: list[Any] = []

    def work(n: int) -> None:
        barrier.wait()
        values.append(broker.execute_sync(f"return {n}").value)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(values) == list(range(8))
    assert runtime.starts == 1
    assert len(loop_threads() - before) == 1
    asyncio.run(broker.aclose())


async def test_execute_sync_in_the_brokers_own_loop_says_what_to_write() -> None:
    async with Broker(runtimes=[Starting()]) as broker:
        with pytest.raises(RuntimeError, match=r"await broker\.execute"):
            broker.execute_sync("return 1")

        def tool() -> int:
            return broker.execute_sync("return 5").value

        broker.tool("tool")(tool)
        assert (await broker.execute("return await callTool('tool')")).value == 5


@LINUX
def test_entering_it_in_a_loop_of_ones_own_after_execute_sync_ends_it_well() -> None:
    before = children()
    broker = Broker()
    assert broker.execute_sync("return 1").value == 1

    async def enter() -> Any:
        async with broker:
            return (await broker.execute("return 2")).value

    try:
        assert asyncio.run(within(enter())) == 2
        assert children() == before
    finally:
        asyncio.run(broker.aclose())


async def test_an_interrupted_execute_sync_ends_the_run() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async with Broker(tools={"wait": wait}, runtimes=[Starting()]) as broker:
        run = asyncio.ensure_future(broker.execute("await callTool('wait')"))
        await began.wait()
        run.cancel()
        await within(ended.wait())


async def test_two_pools_in_one_process_do_not_disturb_each_other() -> None:
    first, second = ProcessPool(workers=1), ProcessPool(workers=1)
    async with Broker(runtimes=[first]) as one, Broker(runtimes=[second]) as two:
        values = await asyncio.gather(one.execute("return 1"), two.execute("return 2"))
    assert [result.value for result in values] == [1, 2]
