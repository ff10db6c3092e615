"""What the edge waits for, and how long. One frozen object, so that a test may have other times."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from enclave_broker.broker.wheel import Wheel

__all__ = ["Timers", "Timing"]

_WATCH_TICK = 0.05
_LINGER_TICK = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds."""

    linger: float = 0.01
    """How long the answer to a POST waits for more than its first event: a short run is then one write.

    Nobody notices it, and at 32 sessions at once a run of no work takes 5 to 10 ms.
    """
    watch: float = 0.5
    """The age from which a stream looks whether its client is still there; most end before, and pay nothing."""
    look: float = 2.0
    """How often such a stream looks whether its session is one that the broker still knows."""
    body: float = 10.0
    """How long a client may take to send a whole body."""
    durable: float = 10.0
    """How long an answer waits for the store to have what it says."""
    auth: float = 10.0
    """How long `auth` may take."""


class Timers:
    """The wheels of one application. They belong to the loop that runs it, and are made anew in another."""

    __slots__ = ("_linger", "_loop", "_watch", "timing")

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._linger: Wheel
        self._watch: Wheel

    def _here(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._linger = Wheel(loop, _LINGER_TICK)
            self._watch = Wheel(loop, _WATCH_TICK)

    @property
    def linger(self) -> Wheel:
        """For waits of a few milliseconds."""
        self._here()
        return self._linger

    @property
    def watch(self) -> Wheel:
        """For waits that are nearly always cancelled before they end."""
        self._here()
        return self._watch
