"""What every session of a broker is given: loop, clocks, randomness, runtime, calls. Made when the broker starts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from enclave_broker.broker.calls.runner import CallRunner
from enclave_broker.broker.wheel import Wheel
from enclave_broker.runtime.runtime import Runtime

__all__ = ["Host", "Sources", "hand_over"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where time and chance come from, so that a test can fix both."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: Callable[[int], bytes] = os.urandom


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Shared by all sessions; each belongs to the loop that started the broker."""

    loop: asyncio.AbstractEventLoop
    wheel: Wheel
    runtime: Runtime
    runner: CallRunner
    sources: Sources

    async def here(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what `make` makes in the broker's loop, from whichever loop this is."""
        return await hand_over(self.loop, make)


async def hand_over(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await what `make` makes in `loop`, a running one; cancelling this cancels it there."""
    if loop is asyncio.get_running_loop():
        return await make()

    async def there() -> T:
        return await make()

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))
