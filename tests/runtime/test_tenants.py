"""A worker process serves one tenant until it is empty: shown with real processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from enclave_broker import Broker, Principal, ToolContext
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.runtime.run import ProcessRun
from enclave_broker.runtime.runtime import Key
from tests.runtime.support import fulfilled, start, value_of

SECONDS = 20


@pytest.fixture
async def pool() -> AsyncIterator[ProcessPool]:
    made = ProcessPool(workers=2, max_workers=3)
    await made.start()
    yield made
    await made.aclose()


def tenants_of(pool: ProcessPool) -> list[set[str]]:
    """Of each process, whose runs it holds now."""
    return [
        {run.key.tenant for run in worker._runs.values()}  # pyright: ignore[reportPrivateUsage] what is in it
        for worker in pool.workers
    ]


async def test_runs_of_two_tenants_are_never_in_one_process_whatever_comes_and_goes(pool: ProcessPool) -> None:
    chance = random.Random(7)
    seen: set[str] = set()

    async def one(tenant: str) -> None:
        run, heard = start(pool, "return await callTool('w', {})", Key("javascript", tenant))
        assert isinstance(run, ProcessRun)
        await heard.heard(1)
        for held in tenants_of(pool):
            assert len(held) <= 1
            seen.update(held)
        if chance.random() < 0.2:
            run.cancel()
        else:
            run.deliver(fulfilled(1, tenant))
            await heard.over()
            assert heard.value == tenant

    async def several(tenant: str) -> None:
        for _ in range(10):
            await asyncio.gather(*(one(tenant) for _ in range(chance.randint(1, 5))))

    async with asyncio.timeout(60):
        await asyncio.gather(*(several(f"tenant-{number}") for number in range(6)))
    assert len(seen) == 6  # more tenants than processes: each has had one that was empty


async def test_a_process_that_became_empty_takes_another_tenant() -> None:
    pool = ProcessPool(workers=1, max_workers=1)
    await pool.start()
    try:
        pids = pool.pids
        for tenant in ("ours", "theirs", "ours"):
            assert await value_of(pool, "return 1", Key("javascript", tenant)) == 1
            assert {worker.key for worker in pool.workers} == {Key("javascript", tenant)}
        assert pool.pids == pids
    finally:
        await pool.aclose()


async def test_the_tenant_of_a_session_decides_where_it_runs_and_who_has_none_is_of_no_tenant() -> None:
    pool = ProcessPool(workers=1, max_workers=4)
    held, go = asyncio.Queue[str](), asyncio.Event()
    async with Broker(runtimes=[pool]) as broker:

        @broker.tool("hold")
        async def hold(context: ToolContext) -> None:
            held.put_nowait(context.principal.subject)
            await go.wait()

        who = [
            Principal("ann", tenant="acme"),
            Principal("bob", tenant="acme"),
            Principal("ann", tenant="other"),
            Principal("ann"),
            Principal("bob"),
            None,
        ]
        runs = [asyncio.ensure_future(broker.execute("await tools.hold({})", principal=each)) for each in who]
        async with asyncio.timeout(SECONDS):
            for _ in who:
                await held.get()
            assert sorted(map(sorted, tenants_of(pool))) == [[""], ["acme"], ["other"]]
            go.set()
            assert all(result.ok for result in await asyncio.gather(*runs))
