"""How a client keeps to a stream that breaks: when to try again, from where, and when silence means that it is gone.

Three small state machines, sans-I/O: time is seconds of any clock, chance a number from 0 to 1, both arguments. The
client owns connections and waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Arrival", "Backoff", "BackoffOptions", "HeartbeatWatch", "SequenceTracker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackoffOptions:
    """Delays in seconds. The first is `initial`, each further one `factor` times the last, none above `maximum`.

    Each is spread by `jitter` of itself to both sides, so that clients of a server that fell don't return as one.
    `attempts` in a row may fail; None for no end. Raises ValueError for values out of range.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.3
    attempts: int | None = 5

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum < float("inf"):
            raise ValueError(f"initial is more than 0 and at most maximum, not {self.initial} of {self.maximum}")
        if not 1 <= self.factor < float("inf"):
            raise ValueError(f"factor is at least 1, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is from 0 to 1, not {self.jitter}")
        if self.attempts is not None and self.attempts < 0:
            raise ValueError(f"attempts is 0 or more, or None, not {self.attempts}")


class Backoff:
    """How long to wait before each attempt."""

    __slots__ = ("_delay", "_options", "attempt")

    def __init__(self, options: BackoffOptions | None = None) -> None:
        self._options = options or BackoffOptions()
        self._delay = self._options.initial
        self.attempt = 0
        """Attempts since the last `reset`."""

    def next(self, random: float, *, at_least: float = 0.0) -> float | None:
        """Seconds until the next attempt, or None when there were enough.

        `random` is from 0 to 1. `at_least` is what the server asked for (Retry-After); it may exceed the maximum.
        """
        options = self._options
        if options.attempts is not None and self.attempt >= options.attempts:
            return None
        self.attempt += 1
        delay = self._delay
        self._delay = min(delay * options.factor, options.maximum)
        return max(delay * (1 + options.jitter * (2 * random - 1)), at_least)

    def reset(self) -> None:
        """Progress was made: a new event came. A connection alone is none, or one that ends at once would be asked for
        for ever."""
        self.attempt = 0
        self._delay = self._options.initial


class Arrival(Enum):
    """What to do with an event that came."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """It was seen before: drop it."""
    GAP = "gap"
    """Some before it are missing: drop it and ask for a replay from `replay_from`."""


class SequenceTracker:
    """Sees to it that every event is taken once and in order.

    `next_seq` is the first that is wanted, 1 or the one that the stream was asked from. `sparse`: the stream is
    filtered, and what is missing was left out on purpose.
    """

    __slots__ = ("_sparse", "replay_from")

    def __init__(self, next_seq: int = 1, *, sparse: bool = False) -> None:
        self._sparse = sparse
        self.replay_from = max(next_seq, 1)
        """The seq that comes next: where a new connection takes up the stream."""

    @property
    def last_seq(self) -> int:
        """The last that was taken, 0 before the first."""
        return self.replay_from - 1

    def receive(self, seq: int) -> Arrival:
        """Whether the event of this number is to be taken. A gap changes nothing: the replay will bring it again."""
        if seq < self.replay_from:
            return Arrival.DUPLICATE
        if seq > self.replay_from and not self._sparse:
            return Arrival.GAP
        self.replay_from = seq + 1
        return Arrival.NEW

    def skip_to(self, seq: int) -> None:
        """Give up what is missing before `seq`: a replay didn't bring it, or its line can't be decoded."""
        self.replay_from = max(self.replay_from, seq)


class HeartbeatWatch:
    """Notices that a connection has fallen silent. Whatever comes is a sign of life, not heartbeats alone."""

    __slots__ = ("_heard", "timeout")

    def __init__(self, timeout: float = 30.0) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout is a finite number of seconds above 0, not {timeout}")
        self.timeout = timeout
        self._heard: float | None = None

    def heard(self, now: float) -> None:
        """Bytes came, or the connection was made: the watch runs from here. Time that goes back is ignored."""
        if self._heard is None or now > self._heard:
            self._heard = now

    def stop(self) -> None:
        """Nothing is expected, since there is no connection."""
        self._heard = None

    @property
    def deadline(self) -> float | None:
        """When to look again, None while nothing is expected."""
        return None if self._heard is None else self._heard + self.timeout

    def is_silent(self, now: float) -> bool:
        """Whether to give this connection up and make another."""
        deadline = self.deadline
        return deadline is not None and now >= deadline
