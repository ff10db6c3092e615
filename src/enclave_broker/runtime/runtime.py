"""Where engines run: the one interface that worker processes, the in-memory twin and later runtimes share.

A session starts a run, delivers inputs and gets each step's effects back; it knows nothing of processes. One contract
suite runs over every implementation (tests/runtime/test_contract.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from enclave_broker.types.messages import Verdict

__all__ = ["Key", "Listener", "Run", "Runtime", "StepTaken"]


class Key(NamedTuple):
    """Runs of one key may share a process at the same time; runs of different keys never do."""

    engine: str
    tenant: str


class StepTaken(NamedTuple):
    """One step of an engine. `effects` is JSON text, untrusted (types/messages.py decodes it)."""

    effects: bytes
    cpu_us: int
    ended: bool
    """The run is over and its memory is gone: the script has settled and awaits nothing, or there is a verdict."""
    verdict: Verdict
    inputs: int
    """How many of the delivered inputs this step consumed; 0 for the start."""


class Listener(Protocol):
    """Whoever started a run. Called in the event loop's thread."""

    def stepped(self, step: StepTaken, /) -> None:
        """One start or delivery has been worked off, in order.

        Raises ValueError, before it has changed anything, for effects that no engine makes: the runtime then ends.
        """
        ...

    def lost(self, reason: str, /) -> None:
        """The process that held the run is gone, and the run with it. Nothing comes after this."""
        ...


class Run(Protocol):
    """One execution in an engine. Neither call blocks, waits or raises."""

    def deliver(self, body: bytes, /) -> None:
        """Hand one input over (types/messages.py encodes it). Those of one loop turn become one step."""
        ...

    def flush(self) -> None:
        """Don't wait for the end of this loop turn: nothing more will come in it."""
        ...

    def cancel(self, spent: Callable[[int], None] | None = None, /) -> None:
        """End the run now. The listener is called no more.

        `spent` is, now or later, with the CPU microseconds of each step that the listener hasn't heard of; in the event
        loop's thread, and it must not raise.
        """
        ...


class Runtime(Protocol):
    """A place for runs."""

    @property
    def engines(self) -> Mapping[str, str]:
        """Language to engine hash. A log is replayed only by the engine that wrote it."""
        ...

    async def start(self) -> None:
        """Be ready for the first run. Raises ConfigurationError when the sandbox can't be built here."""
        ...

    def run(self, body: bytes, key: Key, listener: Listener) -> Run:
        """Start a run (types/messages.py encodes `body`).

        Raises OverloadedError when neither a place nor room to wait for one is left.
        """
        ...

    def abandon(self) -> None:
        """Its event loop is over: let every process go, without waiting for anything."""
        ...

    async def aclose(self) -> None:
        """End every run (their listeners hear `lost`) and every process."""
        ...
