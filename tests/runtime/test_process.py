"""What only a real worker process can show: death, silence, lies, placement, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from enclave_broker.runtime import process as process_module
from enclave_broker.runtime.frames import CLOSED, HEADER, STEP, Up, pack
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.runtime.process import WorkerProcess
from enclave_broker.runtime.run import ProcessRun
from enclave_broker.runtime.runtime import Key
from enclave_broker.types.errors import OverloadedError
from enclave_broker.types.messages import encode_start
from tests.runtime.support import KEY, Hearer, fulfilled, start, start_message, value_of

LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc, which only Linux has")


@pytest.fixture
async def pool() -> AsyncIterator[ProcessPool]:
    made = ProcessPool(workers=1, max_workers=3)
    await made.start()
    yield made
    await made.aclose()


async def until(condition: object) -> None:
    """Until the callable is true; each look lets the loop turn."""
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 a process outside says nothing when it has changed
            await asyncio.sleep(0.001)


async def test_a_killed_worker_loses_its_runs_and_is_replaced(pool: ProcessPool) -> None:
    _, waiting = start(pool, "await callTool('w', {})")
    await waiting.heard(1)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    await waiting.over()
    assert waiting.reason == "the worker process ended"
    assert await value_of(pool, "1 + 1") == 2
    assert pool.pids != [pid]


async def test_a_stopped_worker_is_killed_when_it_owes_an_answer(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "PING_SECONDS", 0.05)
    (pid,) = pool.pids
    run, heard = start(pool, "await callTool('w', {})")
    await heard.heard(1)
    os.kill(pid, signal.SIGSTOP)
    run.deliver(fulfilled(1, 1))
    await heard.over()
    assert heard.reason == "the worker process did not answer"
    assert await value_of(pool, "2") == 2


async def test_a_run_whose_process_ends_before_its_first_step_starts_in_another(pool: ProcessPool) -> None:
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    run, heard = start(pool, "return await callTool('w', {})")
    await until(lambda: pool.workers[0].busy == 1)
    os.kill(pid, signal.SIGKILL)
    await heard.heard(1)
    run.deliver(fulfilled(1, "once"))
    await heard.over()
    assert (heard.value, heard.reason) == ("once", None)


async def test_a_burst_starts_no_more_processes_than_there_are_workers() -> None:
    pool = ProcessPool(workers=2, max_workers=4)
    await pool.start()
    try:
        assert await asyncio.gather(*(value_of(pool, "return 1") for _ in range(100))) == [1] * 100
        assert await value_of(pool, "return 2") == 2
        assert len(pool.pids) + pool.spawning <= 2
    finally:
        await pool.aclose()


async def test_a_long_step_is_no_silence(pool: ProcessPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "PING_SECONDS", 0.02)
    _, heard = start(pool, "for (;;) {}", cpu_ms=500)
    await heard.over()
    assert heard.reason is None
    assert heard.verdict.name == "CPU_LIMIT"


async def test_two_tenants_never_share_a_process(pool: ProcessPool) -> None:
    ours, theirs = Key("javascript", "ours"), Key("javascript", "theirs")
    _, one = start(pool, "await callTool('w', {})", ours)
    await one.heard(1)
    _, two = start(pool, "await callTool('w', {})", theirs)
    await two.heard(1)
    assert len(pool.pids) == 2
    keys = {worker.key for worker in pool.workers}
    assert keys == {ours, theirs}


async def test_a_tenant_without_a_place_waits_until_a_process_is_empty() -> None:
    pool = ProcessPool(workers=1, max_workers=1)
    await pool.start()
    try:
        run, one = start(pool, "await callTool('w', {})", Key("javascript", "ours"))
        await one.heard(1)
        _, two = start(pool, "return 2", Key("javascript", "theirs"))
        assert await value_of(pool, "return 3", Key("javascript", "ours")) == 3
        assert two.steps == []
        run.cancel()
        await two.over()
        assert two.value == 2
    finally:
        await pool.aclose()


async def test_who_finds_no_room_to_wait_is_refused(pool: ProcessPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclave_broker.runtime.pool.MAX_WAITING", 2)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr("enclave_broker.runtime.pool.CAPACITY", 1)
        runs = [start(pool, "return 1")[0] for _ in range(3)]
        with pytest.raises(OverloadedError) as refused:
            start(pool, "return 1")
        assert refused.value.retry_after > 0
        for run in runs:
            run.cancel()
    finally:
        os.kill(pid, signal.SIGCONT)


class Liar:
    """A process that does nothing, and its channel, on which the test says what a worker should not."""

    def __init__(self, worker: WorkerProcess, channel: socket.socket) -> None:
        self.worker = worker
        self.channel = channel


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    ours, theirs = socket.socketpair()
    worker = WorkerProcess(lambda _: None, lambda _worker, _runs: None)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    worker._process = child  # pyright: ignore[reportPrivateUsage] a process that runs no worker
    ours.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)
    with theirs:
        yield Liar(worker, theirs)
    worker.kill("the test is over")
    await worker.reap()
    assert child.stdin is not None
    child.stdin.close()


def lying(heard: Hearer) -> ProcessRun:
    """A run that has no second place to go."""
    run = ProcessRun(heard, encode_start(start_message("return 1")), KEY)
    run._places_left = 1  # pyright: ignore[reportPrivateUsage] as after its first process
    return run


def step(effects: bytes = b"[[5,1]]", *, ended: int = 1, verdict: int = 0) -> bytes:
    return STEP.pack(1, ended, verdict) + effects


LIES = {
    "a step of a run that was never placed": pack(Up.STEP, 99, step()),
    "a frame of a type that isn't there": pack(77, 1, b""),
    "a frame larger than any": HEADER.pack(2**31, Up.STEP, 1),
    "a step too short for its head": pack(Up.STEP, 1, b"\0"),
    "a verdict that isn't there": pack(Up.STEP, 1, step(verdict=200)),
    "a verdict of a run that goes on": pack(Up.STEP, 1, step(ended=0, verdict=2)),
    "two steps for one start": pack(Up.STEP, 1, step(b"[]", ended=0)) * 2,
    "a run closed that nobody cancelled": pack(Up.CLOSED, 1, CLOSED.pack(0)),
    "a hello that is no JSON": pack(Up.HELLO, 0, b"{"),
    "effects that are no JSON": pack(Up.STEP, 1, step(b"[[5,")),
    "effects of an unknown kind": pack(Up.STEP, 1, step(b"[[99,1]]")),
    "arguments that are no object": pack(Up.STEP, 1, step(b'[[1,1,"t",[]]]', ended=0)),
    "effects nested without end": pack(Up.STEP, 1, step(b"[[5," + b"[" * 100_000 + b"]" * 100_000 + b"]]")),
    "text that is no UTF-8": pack(Up.STEP, 1, step(b'[[5,"\xff"]]')),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_worker_that_lies_is_killed_and_its_run_lost(liar: Liar, lie: str) -> None:
    heard = Hearer()
    liar.worker.place(lying(heard))
    await until(lambda: liar.worker.busy == 1)
    liar.channel.sendall(LIES[lie])
    await until(lambda: liar.worker.ended)
    assert heard.reason == "the worker process broke the protocol"


async def test_late_frames_of_a_cancelled_run_are_no_lie(liar: Liar) -> None:
    heard = Hearer()
    run = lying(heard)
    liar.worker.place(run)
    run.cancel()
    liar.channel.sendall(pack(Up.STEP, 1, step()) + pack(Up.CLOSED, 1, CLOSED.pack(0)))
    await until(lambda: liar.worker.load == 0)
    assert not liar.worker.ended
    assert heard.steps == []


async def test_what_a_worker_writes_to_stderr_is_logged_as_one_bounded_escaped_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = WorkerProcess(lambda _: None, lambda _worker, _runs: None)
    code = "import sys; sys.stderr.write('oh\\n2026 forged line\\x1b[31m' + 'x' * 30000)"
    with caplog.at_level("WARNING", "enclave_broker.runtime"):
        worker._process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)  # pyright: ignore[reportPrivateUsage]
        await worker.reap()
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert "\\n2026 forged line\\x1b" in caplog.text
    assert len(caplog.text) < 20_000


def inventory() -> tuple[int, int, int, int]:
    """Descriptors, threads, tasks, children of this process."""
    children = sum(
        len((task / "children").read_text().split()) for task in Path("/proc/self/task").iterdir()
    )  # zombies count
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks()), children


@LINUX
async def test_a_thousand_killed_runs_and_twenty_killed_processes_leave_nothing_behind(pool: ProcessPool) -> None:
    assert await value_of(pool, "1") == 1
    await asyncio.to_thread(int)  # the default executor's thread is there from now on
    before = inventory()
    for _ in range(20):
        runs = [start(pool, "for (;;) {}" if n % 10 == 0 else "await callTool('w', {})") for n in range(50)]
        await asyncio.gather(*(heard.heard(1) for n, (_, heard) in enumerate(runs) if n % 10))
        for run, _ in runs:
            run.cancel()
        assert await value_of(pool, "2") == 2
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: pool.pids and pool.pids != [pid])
    assert await value_of(pool, "3") == 3
    await until(lambda: inventory()[2:] == before[2:])
    assert inventory()[0] == before[0]
    assert inventory()[1] <= before[1] + 4  # threads of the default executor


async def test_hello_names_the_walls(pool: ProcessPool) -> None:
    (worker,) = pool.workers
    assert worker.hello is not None
    walls = msgspec.json.decode(worker.hello.walls)
    assert {wall["name"] for wall in walls["walls"]} >= {"seccomp", "no_new_privs"}
