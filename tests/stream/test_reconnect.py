from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.stream.reconnect import Arrival, Backoff, BackoffOptions, HeartbeatWatch, SequenceTracker


def test_delays_grow_to_their_maximum_and_end() -> None:
    backoff = Backoff(BackoffOptions(initial=1.0, factor=2.0, maximum=5.0, jitter=0.0, attempts=4))
    assert [backoff.next(0.5) for _ in range(6)] == [1.0, 2.0, 4.0, 5.0, None, None]
    assert backoff.attempt == 4


def test_a_delay_is_spread_to_both_sides() -> None:
    options = BackoffOptions(initial=10.0, jitter=0.3)
    assert [Backoff(options).next(chance) for chance in (0.0, 0.5, 1.0)] == [7.0, 10.0, 13.0]


def test_progress_starts_the_delays_anew() -> None:
    backoff = Backoff(BackoffOptions(jitter=0.0, attempts=2))
    assert [backoff.next(0.5), backoff.next(0.5), backoff.next(0.5)] == [1.0, 2.0, None]
    backoff.reset()
    assert (backoff.attempt, backoff.next(0.5)) == (0, 1.0)


def test_a_server_that_names_a_time_is_not_asked_before_it() -> None:
    backoff = Backoff(BackoffOptions(jitter=0.0, maximum=2.0))
    assert backoff.next(0.5, at_least=60.0) == 60.0
    assert backoff.next(0.5, at_least=0.1) == 2.0


def test_attempts_may_be_without_end() -> None:
    backoff = Backoff(BackoffOptions(attempts=None, factor=1e300))
    assert all(0 < (backoff.next(1.0) or 0) <= 39 for _ in range(5_000))


@given(st.floats(0.001, 100), st.floats(1, 10), st.floats(0, 1), st.lists(st.floats(0, 1), max_size=20))
def test_no_delay_is_beyond_what_was_configured(
    initial: float, factor: float, jitter: float, chances: list[float]
) -> None:
    backoff = Backoff(BackoffOptions(initial=initial, factor=factor, maximum=100.0, jitter=jitter, attempts=20))
    for chance in chances:
        delay = backoff.next(chance)
        assert delay is not None
        assert initial * (1 - jitter) * 0.999 <= delay <= 100.0 * (1 + jitter) * 1.001


@pytest.mark.parametrize(
    "options",
    [
        {"initial": 0.0},
        {"initial": math.nan},
        {"initial": 31.0},
        {"maximum": math.inf},
        {"factor": 0.5},
        {"factor": math.nan},
        {"jitter": 1.5},
        {"attempts": -1},
    ],
)
def test_delays_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BackoffOptions(**options)


def test_events_are_taken_once_and_in_order() -> None:
    tracker = SequenceTracker()
    assert [tracker.receive(seq) for seq in (1, 2, 2, 1, 3)] == [
        Arrival.NEW,
        Arrival.NEW,
        Arrival.DUPLICATE,
        Arrival.DUPLICATE,
        Arrival.NEW,
    ]
    assert (tracker.last_seq, tracker.replay_from) == (3, 4)


def test_a_gap_is_replayed_from_its_beginning() -> None:
    tracker = SequenceTracker()
    tracker.receive(1)
    assert tracker.receive(4) is Arrival.GAP
    assert tracker.replay_from == 2
    assert [tracker.receive(seq) for seq in (2, 3, 4)] == [Arrival.NEW] * 3


def test_a_stream_taken_up_in_its_middle_wants_the_event_it_asked_for() -> None:
    tracker = SequenceTracker(5)
    assert [tracker.receive(seq) for seq in (4, 6, 5)] == [Arrival.DUPLICATE, Arrival.GAP, Arrival.NEW]
    assert SequenceTracker(0).replay_from == SequenceTracker(-3).replay_from == 1


def test_what_a_filter_left_out_is_no_gap() -> None:
    tracker = SequenceTracker(sparse=True)
    assert [tracker.receive(seq) for seq in (1, 5, 5, 9)] == [Arrival.NEW, Arrival.NEW, Arrival.DUPLICATE, Arrival.NEW]
    assert tracker.replay_from == 10


def test_what_no_replay_brings_can_be_given_up() -> None:
    tracker = SequenceTracker()
    assert tracker.receive(3) is Arrival.GAP
    tracker.skip_to(3)
    tracker.skip_to(1)
    assert tracker.receive(3) is Arrival.NEW


@given(st.integers(1, 30), st.data())
def test_every_event_is_taken_once_whatever_is_cut(total: int, data: st.DataObject) -> None:
    tracker = SequenceTracker()
    taken: list[int] = []
    while len(taken) < total:
        start = data.draw(st.integers(1, tracker.replay_from))
        stop = data.draw(st.integers(tracker.replay_from, total))
        lost = data.draw(st.sets(st.integers(tracker.replay_from + 1, total + 1)))
        arriving = (seq for seq in range(start, stop + 1) if seq not in lost)
        taken += [seq for seq in arriving if tracker.receive(seq) is Arrival.NEW]
    assert taken == list(range(1, total + 1))


def test_a_silent_connection_is_given_up_after_its_time() -> None:
    watch = HeartbeatWatch(30.0)
    assert watch.deadline is None
    assert not watch.is_silent(1e9)
    watch.heard(100.0)
    assert watch.deadline == 130.0
    assert not watch.is_silent(129.9)
    assert watch.is_silent(130.0)
    watch.heard(130.0)
    assert not watch.is_silent(159.0)
    watch.heard(120.0)
    assert watch.deadline == 160.0
    watch.stop()
    assert watch.deadline is None


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.inf, math.nan])
def test_a_watch_without_an_end_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        HeartbeatWatch(timeout)
