"""A store that is slow and fails by chance, or for ever: nothing is early, nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from enclave_broker import Broker, Session, SessionLimits, StoreError, ToolContext
from enclave_broker.broker.sessions.cursor import Cursor
from enclave_broker.broker.store import committer
from enclave_broker.broker.store.memory import MemoryStore
from enclave_broker.broker.store.records import CallSettled, HandlerStarted, Record
from enclave_broker.broker.store.store import Appended
from enclave_broker.runtime.memory import MemoryRuntime
from tests.broker.sessions.support import check_log, until, within


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits are tried again soon, and given up soon at the end."""
    monkeypatch.setattr(committer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(committer, "LAST_RETRY", 0.002)
    monkeypatch.setattr(committer, "CLOSE_SECONDS", 0.05)


class FlakyStore(MemoryStore):
    """Takes a few turns of the loop for each commit, and refuses many."""

    def __init__(self, seed: int, refused: float = 0.4) -> None:
        super().__init__()
        self.refused = refused
        self.refusals = 0
        self._chance = random.Random(seed)

    def kept(self, session_id: str) -> list[Record]:
        return self._logs.get(session_id, [])

    async def append(self, batches: Sequence[Appended], owner: str) -> None:
        for _ in range(self._chance.randint(0, 5)):
            await asyncio.sleep(0)
        if self._chance.random() < self.refused:
            self.refusals += 1
            raise StoreError("not now")
        await super().append(batches, owner)


SCRIPT = """
console.log("begun");
const first = await callTool("pay", { n: 1 });
console.warn("first", first);
const both = await Promise.all([2, 3].map((n) => callTool("pay", { n })));
await sleep(1);
const bad = await callTool("pay", { n: 0 }).catch((error) => error.code);
console.log(both.join());
return [first, ...both, bad];
"""


class Readers:
    """One of every kind, in this process. Each event has to be kept by the store when it is seen."""

    def __init__(self, store: FlakyStore, session: Session) -> None:
        self._store = store
        self._session = session
        self.seen: dict[str, list[int]] = {}
        session.on("stdout", lambda event: self.see("a listener of output", event.seq))
        self._cursors = {"ndjson": session.cursor(), "sse": session.cursor(sse=True), "late": session.cursor(4)}
        self._tasks = [
            asyncio.ensure_future(self._read_events()),
            *[asyncio.ensure_future(self._read(name, cursor)) for name, cursor in self._cursors.items()],
        ]

    def see(self, who: str, seq: int) -> None:
        kept = [record.public.seq for record in self._store.kept(self._session.id) if record.public is not None]
        assert seq in kept, f"{who} has seen event {seq} before it was durable"
        self.seen.setdefault(who, []).append(seq)

    async def _read_events(self) -> None:
        async for event in self._session.events():
            self.see("events()", event.seq)

    async def _read(self, name: str, cursor: Cursor) -> None:
        while not cursor.ended:
            await cursor.wait()
            for line in cursor.take().splitlines():
                if line.startswith((b"{", b"data: ")):
                    self.see(name, json.loads(line.removeprefix(b"data: "))["seq"])

    async def ended(self) -> dict[str, list[int]]:
        await within(asyncio.gather(*self._tasks))
        for cursor in self._cursors.values():
            cursor.close()
        return self.seen


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_store_does_nothing_is_early_lost_or_twice(seed: int) -> None:
    store, ran = FlakyStore(seed), list[int]()

    async def pay(n: int, context: ToolContext) -> int:
        started = [record.fact for record in store.kept(context.session_id) if isinstance(record.fact, HandlerStarted)]
        assert context.call_id in {fact.call_id for fact in started}, "the handler has started before its record"
        ran.append(n)
        return 10 // n

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        session = await broker.create_session()
        readers = Readers(store, session)
        result = await within(session.execute(SCRIPT))
        assert store.kept(session.id) == session.log.records, "the result is given when its final is durable"
        seen = await readers.ended()
    assert result.value == [10, 5, 3, "EXECUTION_ERROR"]
    assert sorted(ran) == [0, 1, 2, 3]
    check_log(list(session.log.records))
    public = [record.public for record in session.log.records if record.public is not None]
    every = [event.seq for event in public]
    assert seen == {
        "a listener of output": [event.seq for event in public if event.type == "stdout"],
        "events()": every,
        "ndjson": every,
        "sse": every,
        "late": every[3:],
    }


async def test_many_sessions_share_a_store_that_fails_now_and_then() -> None:
    store = FlakyStore(0, refused=0.2)

    async def pay(n: int) -> int:
        return n

    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}) as broker:
        sessions = [await broker.create_session() for _ in range(50)]
        code = "let sum = 0; for (let n = 1; n < 5; n++) { sum += await callTool('pay', { n }); } return sum"
        results = await within(asyncio.gather(*[session.execute(code) for session in sessions]))
        assert [result.value for result in results] == [10] * 50
        for session in sessions:
            assert store.kept(session.id) == session.log.records
    assert store.refusals


async def test_an_outcome_that_cannot_be_written_is_held_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    """The script goes on with it at once; nobody else hears of it, nor of anything that came of it."""
    store, ran, begun, go = FlakyStore(0, refused=0.0), list[str](), asyncio.Event(), asyncio.Event()

    async def pay() -> str:
        begun.set()
        await go.wait()
        ran.append("pay")
        return "paid"

    async def tell(what: str) -> None:
        ran.append(what)

    tools = {"pay": pay, "tell": tell}
    code = "const how = await callTool('pay'); console.log('it is', how); await callTool('tell', { what: how })"
    async with Broker(store=store, runtimes=[MemoryRuntime()], tools=tools) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute(code))
        cursor = session.cursor()
        await within(begun.wait())
        await until(lambda: session.log.is_durable)
        cursor.take()
        store.refused = 1.0
        go.set()
        await until(lambda: any(isinstance(record.fact, HandlerStarted) for record in session.log.records[-1:]))
        refusals = store.refusals
        await until(lambda: store.refusals > refusals + 5)
        assert ran == ["pay"], "the next handler waits for the outcome of the first"
        assert cursor.take() == b""
        assert not any(isinstance(record.fact, CallSettled) for record in store.kept(session.id))
        store.refused = 0.0
        assert (await within(running)).ok
        assert ran == ["pay", "paid"]
        assert b"it is paid" in cursor.take()
        assert store.kept(session.id) == session.log.records
        cursor.close()
    assert "they are kept and tried again" in caplog.text


async def test_with_a_store_that_fails_for_ever_nothing_starts_and_nothing_is_seen() -> None:
    store, ran = FlakyStore(0, refused=1.0), list[str]()

    async def pay() -> None:
        ran.append("pay")

    limits = SessionLimits(timeout=0.2)
    async with Broker(store=store, runtimes=[MemoryRuntime()], tools={"pay": pay}, limits=limits) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("return await callTool('pay')"))
        cursor = session.cursor()
        execution: Any = None
        await until(lambda: session.execution is not None)
        execution = session.execution
        await until(lambda: execution.over)  # its time is up
        refusals = store.refusals
        await until(lambda: store.refusals > refusals + 5)
        assert cursor.take() == b""
        assert session.durable() is not None
        assert session.state == "running"
        assert not running.done()
        running.cancel()
        cursor.close()
    assert ran == []
    assert store.kept(session.id) == []


async def test_leaving_a_broker_whose_store_fails_for_ever_comes_to_an_end() -> None:
    async with Broker(store=FlakyStore(0, refused=1.0), runtimes=[MemoryRuntime()]) as broker:
        session = await broker.create_session()
        running = asyncio.ensure_future(session.execute("await new Promise(() => setTimeout(() => 0, 60000))"))
        await until(lambda: session.execution is not None)
        await within(broker.aclose())
        running.cancel()
