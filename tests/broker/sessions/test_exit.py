"""What is left when the interpreter exits, whatever the host forgot: no output, no child, no delay."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc, which only Linux has")

HEAD = """
import asyncio, os, sys, threading
from pathlib import Path
from enclave_broker import Broker

def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += (task / "children").read_text().split()
    return found

broker = Broker()

@broker.tool
async def double(n: int) -> int:
    return 2 * n

CODE = "return await callTool('double', {n: 21})"
"""
TELL = "\nprint(*children(), flush=True)\n"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def exits_cleanly(code: str) -> list[str]:
    """What the program printed to stdout, line by line; it must end well, silently and without children left."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, pids = done.stdout.splitlines()
    workers = [int(word) for word in pids.split()]
    assert workers, "the program had no worker to leave behind"
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its broker"
    return lines


def test_execute_sync_without_aclose() -> None:
    assert exits_cleanly(f"print(broker.execute_sync(CODE).value){TELL}") == ["42"]


def test_asyncio_run_without_aclose() -> None:
    code = """
    async def main():
        print((await broker.execute(CODE)).value)
        print(*children(), flush=True)

    asyncio.run(main())
    """
    assert exits_cleanly(code) == ["42"]


def test_asyncio_run_twice_without_aclose() -> None:
    code = """
    async def main():
        print((await broker.execute(CODE)).value)

    asyncio.run(main())
    asyncio.run(main())
    print(broker.execute_sync(CODE).value)
    print(*children(), flush=True)
    """
    assert exits_cleanly(code) == ["42", "42", "42"]


def test_a_run_under_way_when_the_main_coroutine_ends() -> None:
    code = """
    async def main():
        began = asyncio.Event()

        async def wait() -> None:
            began.set()
            await asyncio.get_running_loop().create_future()

        broker.tool("wait")(wait)
        task = asyncio.ensure_future(broker.execute("await callTool('wait')"))
        await began.wait()
        print(*children(), flush=True)

    asyncio.run(main())
    """
    assert exits_cleanly(code) == []


def test_a_sync_handler_that_hangs_does_not_hold_up_the_exit() -> None:
    code = """
    def hang() -> None:
        threading.Event().wait()

    broker.tool("hang")(hang)
    result = broker.execute_sync("await callTool('hang')", timeout=0.2)
    print(result.error.code)
    print(*children(), flush=True)
    """
    assert exits_cleanly(code) == ["SESSION_EXPIRED"]


def test_a_sync_handler_that_hangs_does_not_hold_up_the_end_of_async_with() -> None:
    code = """
    def hang() -> None:
        threading.Event().wait()

    broker.tool("hang")(hang)

    async def main():
        async with broker:
            print((await broker.execute("await callTool('hang')", timeout=0.2)).error.code)
            print(*children(), flush=True)

    asyncio.run(main())
    """
    assert exits_cleanly(code) == ["SESSION_EXPIRED"]


def test_execute_sync_in_a_thread_that_is_still_at_it() -> None:
    code = """
    began = threading.Event()

    async def wait() -> None:
        began.set()
        await asyncio.get_running_loop().create_future()

    broker.tool("wait")(wait)
    threading.Thread(target=lambda: broker.execute_sync("await callTool('wait')"), daemon=True).start()
    began.wait()
    print(*children(), flush=True)
    """
    assert exits_cleanly(code) == []


def test_an_exception_out_of_async_with() -> None:
    code = """
    async def main():
        async with broker:
            print((await broker.execute(CODE)).value)
            print(*children(), flush=True)
            raise KeyError("mine")

    try:
        asyncio.run(main())
    except KeyError:
        pass
    """
    assert exits_cleanly(code) == ["42"]


def test_sys_exit_within_a_running_loop() -> None:
    code = """
    async def main():
        await broker.execute(CODE)
        print(*children(), flush=True)
        sys.exit(0)

    asyncio.run(main())
    """
    assert exits_cleanly(code) == []


def test_resources_are_closed_under_every_warning_when_the_broker_is() -> None:
    code = HEAD + textwrap.dedent("""
    async def main():
        async with broker:
            await broker.execute(CODE)

    asyncio.run(main())
    broker.execute_sync(CODE)
    asyncio.run(broker.aclose())
    """)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
