"""A store that is slow, refuses one log of many, or loses its own answers: nothing is seen early, nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from enclave_broker import Broker, SessionLimits, StoreError
from enclave_broker.broker.store import committer
from enclave_broker.broker.store.memory import MemoryStore
from enclave_broker.broker.store.store import Appended
from enclave_broker.runtime.memory import MemoryRuntime
from tests.broker.sessions.support import until, within
from tests.broker.store.test_commit import GatedStore


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(committer, "LAST_RETRY", 0.002)
    monkeypatch.setattr(committer, "CLOSE_SECONDS", 0.05)


async def test_a_session_that_is_ended_while_the_store_is_slow_does_not_end_the_committer() -> None:
    store = GatedStore()
    async with Broker(store=store, runtimes=[MemoryRuntime()]) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("await new Promise(() => setTimeout(() => 0, 60000))"))
        await within(store.asked.wait())
        session.close("LOG_LIMIT", "as at the limit of a log, or at shut_down()")
        store.gate.set()
        assert (await within(running, 2)).error is not None
        assert (await within(broker.execute("return 1"), 2)).value == 1


async def test_a_log_that_the_store_refuses_does_not_hold_up_others() -> None:
    class Picky(MemoryStore):
        async def append(self, batches: Sequence[Appended], owner: str) -> None:
            if any(batch.session_id == "s_bad" for batch in batches):
                raise StoreError("somebody else has the lease of s_bad")
            await super().append(batches, owner)

    async with Broker(store=Picky(), runtimes=[MemoryRuntime()]) as broker:
        bad = await broker.create_session(session_id="s_bad")
        running = asyncio.ensure_future(bad.execute("return 1"))
        try:
            assert (await within(broker.execute("return 1"), 2)).value == 1
        finally:
            running.cancel()


async def test_a_commit_whose_answer_was_lost_is_not_tried_for_ever() -> None:
    class Forgetful(MemoryStore):
        lost = 1

        async def append(self, batches: Sequence[Appended], owner: str) -> None:
            await super().append(batches, owner)
            if self.lost:
                self.lost -= 1
                raise StoreError("the connection broke after COMMIT")

    async with Broker(store=Forgetful(), runtimes=[MemoryRuntime()]) as broker:
        assert (await within(broker.execute("return 1"), 2)).value == 1


async def test_a_listener_of_calls_hears_of_one_when_it_is_durable() -> None:
    store, heard = GatedStore(), list[str]()

    async def pay() -> int:
        return 1

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        session = await broker.create_session()
        session.on("tool_call", lambda call: heard.append(call.name))
        running = asyncio.ensure_future(session.execute("return await callTool('pay')"))
        await within(store.asked.wait())
        await until(lambda: len(session.log.records) > 3)
        for _ in range(50):
            await asyncio.sleep(0)
        early = list(heard)
        store.gate.set()
        await within(running)
        assert early == []


async def test_a_call_whose_start_cannot_be_written_ends_at_its_deadline() -> None:
    store = GatedStore()
    limits = SessionLimits(timeout=60.0, tool_timeout=0.1, per_tool_deadline=0.1)

    async def pay() -> int:
        return 1

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}, limits=limits) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("return await callTool('pay').catch((e) => e.code)"))
        await within(store.asked.wait())
        try:
            await within(until(lambda: session.execution is not None and session.execution.over), 3)
        finally:
            store.gate.set()
        assert (await within(running)).value == "TOOL_TIMEOUT"


async def test_two_principals_with_one_session_id_have_a_log_each() -> None:
    store, paid = MemoryStore(), list[int]()

    async def pay(n: int) -> int:
        paid.append(n)
        return n

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        for n, user in enumerate(("ann", "bob"), 1):
            session = await broker.create_session(session_id="s_mine", user_id=user)
            result = await within(session.execute(f"return await callTool('pay', {{ n: {n} }})"))
            assert result.value == n
            assert list(await store.read(session.log.store_id)) == session.log.records
        assert paid == [1, 2]


async def test_a_log_is_never_taken_for_another_that_the_store_has() -> None:
    """Else all would count as recorded, and its calls would run."""
    store, paid = MemoryStore(), list[int]()

    async def pay() -> None:
        paid.append(1)

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        session = await broker.create_session(session_id="s_mine")
        await within(session.execute("for (let n = 0; n < 20; n++) console.log(n)"))
        await broker.sessions.destroy("s_mine")
        again = await broker.create_session(session_id="s_mine")
        running = asyncio.ensure_future(again.execute("await callTool('pay')"))
        await until(lambda: len(again.log.records) > 2)
        for _ in range(200):
            await asyncio.sleep(0)
        assert paid == []
        assert again.log.published == 0
        running.cancel()


async def test_a_store_that_cancels_by_itself_is_one_that_has_failed() -> None:
    class Cancelling(MemoryStore):
        left = 2

        async def append(self, batches: Sequence[Appended], owner: str) -> None:
            if self.left:
                self.left -= 1
                raise asyncio.CancelledError
            await super().append(batches, owner)

    async with Broker(store=Cancelling(), runtimes=[MemoryRuntime()]) as broker:
        assert (await within(broker.execute("return 1"), 5)).value == 1
