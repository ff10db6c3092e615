"""A run in a worker process: what it is owed, what it owes, and its way to another process that nobody sees.

runtime/process.py owns the process and calls this with what comes from it, which is untrusted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from enclave_broker.runtime.frames import CLOSED, STEP, Down, FrameError, pack
from enclave_broker.runtime.runtime import Key, Listener, StepTaken
from enclave_broker.types.messages import Verdict, start_budget

if TYPE_CHECKING:
    from enclave_broker.runtime.process import WorkerProcess

__all__ = ["ProcessRun"]

MAX_PLACES = 2
"""A run whose process ends before its first step starts in another, once: no script can end one after the other."""


class ProcessRun:
    """A run in a worker process (runtime/runtime.py has the contract)."""

    __slots__ = (
        "_delivered",
        "_id",
        "_listener",
        "_pending",
        "_places_left",
        "_spent",
        "_worker",
        "body",
        "key",
        "max_bytes",
    )

    def __init__(self, listener: Listener, body: bytes, key: Key) -> None:
        self.body = body
        """What starts it; kept until its first step."""
        self.key = key
        self.max_bytes, _ = start_budget(body)
        """What its engine may grow to."""
        self._places_left = MAX_PLACES
        self._listener: Listener | None = listener
        self._worker: WorkerProcess | None = None
        self._id = 0
        self._pending: list[bytes] = []
        self._delivered: deque[int] = deque()
        self._spent: Callable[[int], None] | None = None

    def deliver(self, body: bytes) -> None:
        if self._listener is None:
            return
        self._pending.append(body)
        if self._worker is not None and len(self._pending) == 1:
            self._worker.want_flush(self)

    def flush(self) -> None:
        if self._worker is not None:
            self._worker.flush()

    def cancel(self, spent: Callable[[int], None] | None = None, /) -> None:
        self._listener = None
        self._spent = spent
        if self._worker is not None:
            self._worker.kill_run(self._id)

    # -- for the worker process ------------------------------------------------------------------------------------

    def placed(self, worker: WorkerProcess, id: int) -> None:
        self._worker, self._id = worker, id
        self._places_left -= 1
        self._owe(0)
        if self._pending:
            worker.want_flush(self)

    def displaced(self) -> bool:
        """Its process is gone; whether it may start in another, since nothing that it did was ever seen."""
        if self._listener is None or not self.body or not self._places_left:
            return False
        self._worker = None
        self._delivered.clear()
        return True

    @property
    def cancelled(self) -> bool:
        return self._listener is None

    def frame(self) -> bytes:
        """All that waits to be delivered, as one frame."""
        if self._listener is None or not self._pending:
            return b""
        body = b"".join(self._pending)
        self._owe(len(self._pending))
        self._pending.clear()
        return pack(Down.DELIVER, self._id, body)

    def _owe(self, inputs: int) -> None:
        """One more frame to answer; from the first one on the run is inside a step."""
        if not self._delivered and self._worker is not None:
            self._worker.inside_bytes += self.max_bytes
        self._delivered.append(inputs)

    def stepped(self, body: bytes) -> bool:
        """Pass a step on; whether the run has ended. Raises FrameError for a step that nobody asked for."""
        if len(body) < STEP.size or not self._delivered:
            raise FrameError("a step that nobody asked for")
        cpu_us, ended, verdict = STEP.unpack_from(body)
        if ended > 1 or verdict > Verdict.HOST_MEMORY or (verdict and not ended):
            raise FrameError("a step that no worker makes")
        listener, inputs = self._listener, self._delivered.popleft()
        self.body = b""
        if not self._delivered and self._worker is not None:
            self._worker.inside_bytes -= self.max_bytes
        if listener is not None:
            listener.stepped(StepTaken(body[STEP.size :], cpu_us, bool(ended), Verdict(verdict), inputs))
        elif self._spent is not None:
            self._spent(cpu_us)
        if ended:
            self._listener = None
        return bool(ended)

    def closed(self, body: bytes) -> None:
        """The worker has let go of it, as it was told to. Raises FrameError for what no worker says."""
        if len(body) != CLOSED.size:
            raise FrameError("a closed run without its CPU time")
        if self._spent is not None:
            self._spent(CLOSED.unpack(body)[0])

    @property
    def owed(self) -> int:
        """Frames that the worker has still to answer."""
        return len(self._delivered)

    def lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(reason)
