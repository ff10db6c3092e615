"""The contract of a Store, over each implementation."""

from __future__ import annotations

import pytest

from enclave_broker import StoreError
from enclave_broker.broker.store.memory import MemoryStore
from enclave_broker.broker.store.records import Record
from enclave_broker.broker.store.store import Appended, Store


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory"])
def store(clock: Clock) -> Store:
    return MemoryStore(clock)


def records(*indices: int) -> list[Record]:
    return [Record(index, 1.0, None, None) for index in indices]


async def test_what_was_appended_is_read_from_any_index(store: Store) -> None:
    await store.append([Appended("s_1", records(0, 1)), Appended("s_2", records(0))], "me")
    await store.append([Appended("s_1", records(2))], "me")
    assert [record.index for record in await store.read("s_1", 1)] == [1, 2]
    assert [record.index for record in await store.read("s_2")] == [0]
    assert list(await store.read("s_3")) == []


async def test_a_batch_with_a_gap_is_refused_whole(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.append([Appended("s_1", records(0)), Appended("s_2", records(1))], "me")
    assert list(await store.read("s_1")) == []


async def test_only_the_owner_of_a_lease_appends_until_it_is_over(store: Store, clock: Clock) -> None:
    assert await store.lease("s_1", "me", 10)
    assert not await store.lease("s_1", "you", 10)
    assert await store.lease("s_1", "me", 10)
    with pytest.raises(StoreError):
        await store.append([Appended("s_1", records(0))], "you")
    clock.now = 11.0
    assert await store.lease("s_1", "you", 10)
    with pytest.raises(StoreError):
        await store.append([Appended("s_1", records(0))], "me")
    await store.append([Appended("s_1", records(0))], "you")


async def test_nothing_is_left_of_a_session_that_is_forgotten(store: Store) -> None:
    await store.lease("s_1", "me", 10)
    await store.append([Appended("s_1", records(0))], "me")
    await store.forget("s_1")
    assert list(await store.read("s_1")) == []
    assert await store.lease("s_1", "you", 10)
