"""Where a broker's loop or process goes away under whoever waits for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from enclave_broker.types.events import Event
from tests.broker.sessions.support import twin_broker, within

FORK = """
import os, sys
from enclave_broker import Broker

broker = Broker()
assert broker.execute_sync("return 1").value == 1
child = os.fork()
if child == 0:
    print("child", broker.execute_sync("return 2").value, flush=True)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", broker.execute_sync("return 3").value)
"""
FORK_AND_EXIT = """
import os, sys
from enclave_broker import Broker

broker = Broker()
broker.execute_sync("return 1")
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("parent", broker.execute_sync("return 3").value)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize(("code", "said"), [(FORK, "child 2\nparent 3\n"), (FORK_AND_EXIT, "parent 3\n")])
def test_a_forked_child_starts_its_own_and_leaves_the_parents_alone(code: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, check=False)
    assert (done.stdout, done.returncode) == (said, 0), done.stderr


ENDED_LOOP = """
import asyncio, threading
from enclave_broker import Broker, ClosedError

broker = Broker()
reached = threading.Event()

@broker.tool("wait")
async def wait() -> None:
    reached.set()
    await asyncio.sleep(3600)

async def own():
    await broker.execute("return 1")
    await asyncio.to_thread(reached.wait, 20)

async def guest():
    while broker.loop is None:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(20):
        try:
            await broker.execute("return await callTool('wait')")
        except ClosedError:
            return "told"

owner = threading.Thread(target=lambda: asyncio.run(own()))
owner.start()
print(asyncio.run(guest()))
owner.join(20)
print(broker.execute_sync("return 'anew'").value)
"""


def test_who_waits_in_another_loop_is_told_when_the_brokers_loop_ends() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED_LOOP], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("told\nanew\n", 0), done.stderr


async def test_a_callback_that_closes_the_broker_costs_nobody_his_result() -> None:
    async with twin_broker() as broker:
        closing: list[asyncio.Task[None]] = []

        async def close(event: Event) -> None:
            if event.type == "final":
                closing.append(asyncio.ensure_future(broker.aclose()))
                await asyncio.sleep(60)

        result = await within(broker.execute("return 1", on_event=close))
        await asyncio.gather(*closing)
    assert result.value == 1
