from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.sessions.log import Log
from enclave_broker.broker.sessions.machine import FINISHED, State, check
from enclave_broker.broker.store.records import Printed, Record
from enclave_broker.types.events import FinalEvent, StdoutEvent


@pytest.fixture(autouse=True)
def not_replayed(replays_every_session: list[object]) -> Any:
    """Logs that no engine has written can't be run again."""
    yield
    replays_every_session.clear()


def new_log() -> Log:
    return Log("s_1", lambda: 1.5)


def append(log: Log, *chunks: str | None) -> None:
    """Events, or facts where there is None, as one batch."""
    batch = log.batch()
    for chunk in chunks:
        if chunk is None:
            batch.fact(Printed())
        elif chunk == "final":
            batch.event(FinalEvent, ok=True)
        else:
            batch.event(StdoutEvent, chunk=chunk)
        batch.weight += 10
    log.append(batch)


@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), max_size=4), max_size=10))
def test_indexes_are_dense_over_records_and_seqs_over_events(batches: list[list[str | None]]) -> None:
    log = new_log()
    for batch in batches:
        append(log, *batch)
    assert [record.index for record in log.records] == list(range(sum(map(len, batches))))
    events = [record.public for record in log.records if record.public is not None]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert log.size_bytes >= 10 * len(log.records)
    assert {record.at for record in log.records} <= {1.5}


def test_a_batch_that_was_overtaken_is_refused_whole() -> None:
    log = new_log()
    late = log.batch()
    late.event(StdoutEvent, chunk="late")
    append(log, "first")
    with pytest.raises(ValueError, match="another batch"):
        log.append(late)
    assert len(log.records) == 1


async def test_followers_read_history_then_what_comes_until_it_is_closed() -> None:
    log = new_log()
    append(log, "a", None)

    async def read(from_index: int) -> list[Record]:
        return [record async for record in log.follow(from_index)]

    readers = [asyncio.ensure_future(read(n)) for n in (0, 1, 5)]
    await asyncio.sleep(0)
    append(log, "b")
    await asyncio.sleep(0)
    append(log, "c", "d", None)
    log.close()
    whole = list(log.records)
    assert [await reader for reader in readers] == [whole, whole[1:], whole[5:]]
    assert await read(0) == whole


async def test_a_cancelled_follower_leaves_nothing_and_disturbs_nobody() -> None:
    log = new_log()

    async def read() -> list[Record]:
        return [record async for record in log.follow()]

    gone, stays = asyncio.ensure_future(read()), asyncio.ensure_future(read())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    append(log, "a")
    log.close()
    assert len(await stays) == 1


@given(st.lists(st.sampled_from(["a", "final", None]), max_size=12), st.integers(1, 14))
def test_events_end_at_the_first_final_from_where_they_begin(chunks: list[str | None], start: int) -> None:
    log = new_log()
    append(log, *chunks)
    log.close()

    async def read() -> list[int]:
        return [event.seq async for event in log.events(start)]

    public = [chunk for chunk in chunks if chunk is not None]
    expected: list[int] = []
    for seq, chunk in enumerate(public, 1):
        if seq >= start:
            expected.append(seq)
            if chunk == "final":
                break
    assert asyncio.run(read()) == expected


# -- the states --------------------------------------------------------------------------------------------------------

ALLOWED = {
    ("starting", "running"),
    ("starting", "cancelled"),
    ("starting", "failed"),
    ("completed", "running"),
    ("completed", "cancelled"),
    ("failed", "running"),
    ("failed", "cancelled"),
    *(
        (before, after)
        for before in ("running", "waiting_for_tool", "waiting_for_approval")
        for after in ("running", "waiting_for_tool", "waiting_for_approval", "completed", "failed", "cancelled")
    ),
}


@pytest.mark.parametrize("before", list(State))
@pytest.mark.parametrize("after", list(State))
def test_a_session_goes_only_where_the_table_says(before: State, after: State) -> None:
    if before is after or (before.value, after.value) in ALLOWED:
        assert check(before, after) is after
    else:
        with pytest.raises(AssertionError, match=before.value):
            check(before, after)


def test_a_cancelled_session_stays_so_and_three_states_are_ends() -> None:
    assert {state.value for state in FINISHED} == {"completed", "failed", "cancelled"}
    assert [after for after in State if after is not State.CANCELLED and ("cancelled", after.value) in ALLOWED] == []
