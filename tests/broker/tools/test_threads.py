from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.types.errors import ClosedError, ToolError

seen = contextvars.ContextVar("seen", default="nothing")


async def until_none_is_abandoned(threads: HandlerThreads) -> None:
    while threads.abandoned:  # noqa: ASYNC110 a thread counts itself out just after the handler's last line, untold
        await asyncio.sleep(0)


async def test_a_function_runs_beside_the_loop_and_returns_its_result() -> None:
    threads = HandlerThreads()
    assert await threads.run(threading.get_ident) != threading.get_ident()
    assert await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(200))) == [n * n for n in range(200)]


async def test_context_variables_reach_the_thread_and_none_comes_back() -> None:
    def change() -> str:
        before = seen.get()
        seen.set("changed")
        return before

    threads = HandlerThreads()
    seen.set("the caller's")
    assert await threads.run(change) == "the caller's"
    assert seen.get() == "the caller's"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_a_function_raises_is_raised_to_its_caller(error: BaseException) -> None:
    def fail() -> None:
        raise error

    caught: BaseException | None = None
    try:
        await HandlerThreads().run(fail)
    except BaseException as raised:  # noqa: BLE001 that is what is tested
        caught = raised
    assert caught is error


async def test_a_stop_iteration_does_not_break_the_loop() -> None:
    def fail() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await HandlerThreads().run(fail)


async def test_no_more_functions_run_at_once_than_there_are_threads() -> None:
    threads = HandlerThreads(max_threads=3)
    full, release = threading.Barrier(4), threading.Event()

    def hold() -> None:
        full.wait()
        release.wait()

    held = [asyncio.create_task(threads.run(hold)) for _ in range(3)]
    waiting = asyncio.create_task(threads.run(lambda: "done"))
    await asyncio.to_thread(full.wait)
    assert not waiting.done()
    release.set()
    assert await waiting == "done"
    await asyncio.gather(*held)


async def test_a_cancelled_caller_leaves_at_once_and_its_thread_is_counted_until_it_ends() -> None:
    threads = HandlerThreads()
    began, release, ended = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait()
        ended.set()

    task = asyncio.create_task(threads.run(hang))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads.abandoned == 1
    release.set()
    await asyncio.to_thread(ended.wait)
    await until_none_is_abandoned(threads)


async def test_what_is_cancelled_before_it_begins_never_begins() -> None:
    threads = HandlerThreads(max_threads=1)
    began, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        began.set()
        release.wait()

    first = asyncio.create_task(threads.run(hold))
    await asyncio.to_thread(began.wait)
    second = asyncio.create_task(threads.run(lambda: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    assert await threads.run(lambda: list(ran)) == []
    assert threads.abandoned == 0


async def test_work_is_refused_when_every_thread_is_abandoned() -> None:
    threads = HandlerThreads(max_threads=2)
    release = threading.Event()
    began = threading.Barrier(3)

    def hang() -> None:
        began.wait()
        release.wait()

    tasks = [asyncio.create_task(threads.run(hang)) for _ in range(2)]
    await asyncio.to_thread(began.wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(ToolError, match="no thread is free"):
        await threads.run(int)
    release.set()
    await until_none_is_abandoned(threads)
    assert await threads.run(int) == 0


async def test_closed_threads_take_no_work_and_finish_what_they_have() -> None:
    threads = HandlerThreads()
    began, release = threading.Event(), threading.Event()

    def hold() -> str:
        began.set()
        release.wait()
        return "finished"

    task = asyncio.create_task(threads.run(hold))
    await asyncio.to_thread(began.wait)
    threads.close()
    with pytest.raises(ClosedError):
        await threads.run(int)
    release.set()
    assert await task == "finished"


def test_one_object_serves_one_loop_after_the_other() -> None:
    threads = HandlerThreads(max_threads=1)
    assert [asyncio.run(threads.run(lambda: "a")) for _ in range(3)] == ["a"] * 3


def test_a_handler_that_hangs_does_not_hold_up_the_exit_of_the_interpreter() -> None:
    program = """if True:
        import asyncio, threading
        from enclave_broker.broker.tools.threads import HandlerThreads

        async def main():
            began = threading.Event()
            def hang():
                began.set()
                threading.Event().wait()
            task = asyncio.create_task(HandlerThreads().run(hang))
            await asyncio.to_thread(began.wait)
            task.cancel()
            await asyncio.wait([task])
            print("abandoned")

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "abandoned\n"
    assert done.stderr == ""
