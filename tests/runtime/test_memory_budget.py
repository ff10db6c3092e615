"""Admission by memory: what the workers hold and may still grow to stays within a budget."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from enclave_broker import Broker, OverloadedError
from enclave_broker.runtime import budget
from enclave_broker.runtime.budget import default_budget, memory_of
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.messages import Verdict
from tests.http.live import refusal, serving
from tests.runtime.support import start, value_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read")

CAP = 64 << 20
GREEDY = "const all = []; for (let n = 0; n < 40; n++) all.push(new Uint8Array(1 << 20).fill(1)); return all.length"


@asynccontextmanager
async def pool_with_room_for(caps: int) -> AsyncGenerator[ProcessPool]:
    """A pool of one process whose budget is what that has and so many sessions' most."""
    pool = ProcessPool(workers=1, max_workers=1)
    await pool.start()
    try:
        pool.memory_bytes = memory_of(pool.pids) + caps * CAP + CAP // 2
        yield pool
    finally:
        await pool.aclose()


async def test_no_more_runs_are_inside_a_step_than_there_is_memory_for_and_all_get_their_turn() -> None:
    async with pool_with_room_for(2) as pool:
        hearers = [start(pool, GREEDY, max_memory_bytes=CAP)[1] for _ in range(8)]
        most = 0
        async with asyncio.timeout(30):
            while not all(hearer.steps or hearer.reason for hearer in hearers):
                most = max(most, pool.inside_bytes)
                await asyncio.sleep(0)
        assert [hearer.reason for hearer in hearers] == [None] * 8
        assert 0 < most <= 2 * CAP


async def test_a_run_that_finds_no_memory_even_beside_idle_ones_is_refused_with_a_hint() -> None:
    async with pool_with_room_for(0) as pool:
        with pytest.raises(OverloadedError, match="max_memory_bytes") as refused:
            start(pool, "return 1", max_memory_bytes=CAP)
        assert refused.value.retry_after
        pool.memory_bytes = None
        assert await value_of(pool, "return 1", max_memory_bytes=CAP) == 1


async def test_what_is_waiting_for_memory_and_cancelled_takes_no_place() -> None:
    async with pool_with_room_for(1) as pool:
        _, first = start(pool, "for (;;);", max_memory_bytes=CAP, cpu_ms=300)
        cancelled, _ = start(pool, "return 1", max_memory_bytes=CAP)
        _, last = start(pool, "return 2", max_memory_bytes=CAP)
        cancelled.cancel()
        await last.over()
        assert (first.verdict, last.value) == (Verdict.CPU_LIMIT, 2)


def test_a_server_without_memory_answers_overloaded_and_when_to_come_back() -> None:
    pool = ProcessPool(memory_bytes=1 << 20)
    with serving(Broker(runtimes=[pool])) as live:
        response = live.post("return 1")
        assert refusal(response) == (503, "OVERLOADED")
        assert int(response.headers["retry-after"]) >= 1
        assert live.client.get("/sessions").json()["total"] == 0


def test_the_default_is_a_share_of_the_machine_at_most() -> None:
    machine = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemTotal" in line)
    found = default_budget()
    assert found is not None
    assert 0 < found <= int(machine.split()[1]) * 1024 * budget.SHARE


def test_a_control_group_counts_with_all_it_lies_in(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "a" / "memory.max").write_text("1073741824\n")
    (tmp_path / "memory.max").write_text("2147483648\n")
    assert budget.limits_from(tmp_path, "/a/b", "memory.max") == [1 << 30, 2 << 30]
    assert budget.limits_from(tmp_path, "/not/there", "memory.max") == [2 << 30]


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert memory_of([2**22 + 1]) == 0
    assert memory_of([os.getpid()]) > 1 << 20
