"""Commit before publish: with a store that is slow or refuses, nothing is seen and no handler starts too early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from enclave_broker import Broker, StoreError
from enclave_broker.broker.store.memory import MemoryStore
from enclave_broker.broker.store.records import HandlerStarted, Record
from enclave_broker.broker.store.store import Appended
from enclave_broker.runtime.memory import MemoryRuntime
from tests.broker.sessions.support import within


class GatedStore(MemoryStore):
    """Writes when the gate is open, and refuses as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.refusals = 0
        self.commits = 0

    async def append(self, batches: Sequence[Appended], owner: str) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.refusals:
            self.refusals -= 1
            raise StoreError("disk full")
        self.commits += 1
        await super().append(batches, owner)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def facts(records: Sequence[Record]) -> list[str]:
    return [type(record.fact).__name__ for record in records if record.fact is not None]


async def test_nothing_is_seen_and_no_handler_starts_before_its_record_is_durable() -> None:
    store, started = GatedStore(), asyncio.Event()

    async def pay() -> int:
        assert any(isinstance(record.fact, HandlerStarted) for record in await store.read(session.id))
        started.set()
        return 1

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("return await callTool('pay')"))
        cursor = session.cursor()
        await within(store.asked.wait())
        await turns()
        assert cursor.take() == b""
        assert session.durable() is not None
        assert not started.is_set()
        store.gate.set()
        assert (await within(running)).value == 1
        assert cursor.take().count(b"\n") == 6
        assert facts(await store.read(session.id)) == facts(session.log.records)


async def test_a_commit_that_fails_is_tried_again_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    store = GatedStore()
    store.gate.set()
    store.refusals = 2
    async with Broker(store=store, runtimes=[MemoryRuntime()]) as broker:
        session = await broker.create_session()
        assert (await within(session.execute("console.log('x'); return 1"))).value == 1
        assert len(await store.read(session.id)) == len(session.log.records)
    assert "disk full" in caplog.text


async def test_what_arrives_during_a_commit_is_one_commit_for_all_sessions() -> None:
    store = GatedStore()
    async with Broker(store=store, runtimes=[MemoryRuntime()]) as broker:
        runs = [asyncio.ensure_future(broker.execute(f"return {n}")) for n in range(50)]
        await within(store.asked.wait())
        await turns()
        store.gate.set()
        assert [result.value for result in await within(asyncio.gather(*runs))] == list(range(50))
    assert store.commits <= 10


async def test_a_result_whose_final_is_not_durable_is_not_given() -> None:
    store = GatedStore()
    async with Broker(store=store, runtimes=[MemoryRuntime()]) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("return 1"))
        await within(store.asked.wait())
        await turns(200)
        assert not running.done()
        assert session.state == "running"
        store.gate.set()
        await within(running)
        assert session.state == "completed"
