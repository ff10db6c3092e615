"""CircuitBreaker: a tool that keeps failing is left alone for a while, then tried by one call at a time.

`Circuit` is the state machine of one tool, with time as an argument; `CircuitBreaker` keeps one for each name.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.broker.calls.middleware.concurrency_limit import OVERLOADED
from enclave_broker.broker.calls.middleware.options import check_count, failure_codes, is_failure
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import RESERVED_CODES, ToolError, retry_info
from enclave_broker.types.limits import seconds

__all__ = ["CIRCUIT_OPEN", "Circuit", "CircuitBreaker"]

log = logging.getLogger("enclave_broker.calls")

CIRCUIT_OPEN = "CIRCUIT_OPEN"
"""The code of the ToolError that refuses a call."""

_REFUSALS = RESERVED_CODES - {"EXECUTION_ERROR"} | {CIRCUIT_OPEN, OVERLOADED}
"""By these a call is refused or given up before or after its handler; any other code is the handler's word."""

_MAX_CIRCUITS = 10_000  # a pattern's tools have as many names as scripts invent; 200 bytes each


class Circuit:
    """Closed until so many failures in a row; then open for a while; then half open, with one probe at a time.

    Each admitted call has a ticket and gives it back by one of `succeeded`, `failed` and `released`. What calls of an
    earlier state say is ignored: a call that began before the circuit opened neither closes it nor keeps it open.
    """

    __slots__ = ("_era", "_failed", "_failures", "_opens_at", "_probing", "_reset_after")

    def __init__(self, failures: int, reset_after: float) -> None:
        self._failures = failures
        self._reset_after = reset_after
        self._failed = 0
        self._opens_at: float | None = None  # for a probe; None while closed
        self._probing = False
        self._era: int = 0

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        if self._opens_at is None:
            return "closed"
        return "open" if now < self._opens_at else "half_open"

    def admit(self, now: float) -> int | None:
        """A call's ticket; None if it is refused."""
        if self._opens_at is not None:
            if self._probing or now < self._opens_at:
                return None
            self._probing = True
        return self._era

    def retry_after(self, now: float) -> float:
        """Seconds until a probe may be admitted; 0 while one is under way or may be."""
        return 0.0 if self._opens_at is None else max(0.0, self._opens_at - now)

    def succeeded(self, ticket: int) -> bool:
        """The tool answered. Whether that closed the circuit."""
        if ticket != self._era:
            return False
        self._failed = 0
        if self._opens_at is None:
            return False
        self._opens_at = None
        self._probing = False
        self._era += 1
        return True

    def failed(self, ticket: int, now: float) -> bool:
        """The tool failed. Whether that opened the circuit."""
        if ticket != self._era:
            return False
        self._failed += 1
        if self._opens_at is None and self._failed < self._failures:
            return False
        self._opens_at = now + self._reset_after
        self._probing = False
        self._era += 1
        return True

    def released(self, ticket: int) -> None:
        """The call ended and says nothing about the tool."""
        if ticket == self._era:
            self._probing = False


class CircuitBreaker:
    """After `failures` failures of a tool in a row its calls are refused for `reset_after` seconds, by a ToolError of
    code CIRCUIT_OPEN that says in `details` when to try again. Then one call at a time is let through: its success
    lets all through again, its failure closes the way for as long again.

    A failure is an exception that nobody raised on purpose, a time-out, and a ToolError of one of `codes`. A handler's
    other ToolErrors are answers, as good as a result. What the broker says (VALIDATION_ERROR and the like) and a
    cancellation count for nothing. Counts are kept for each tool name, in this process; those of the 10,000 names
    called last. Cancelling is safe.
    """

    def __init__(
        self, failures: int = 5, reset_after: float | timedelta = 30.0, *, codes: Collection[str] = ()
    ) -> None:
        self._failures = check_count(failures, "CircuitBreaker: failures")
        self._reset_after = seconds(reset_after, "CircuitBreaker: reset_after")
        self._codes = failure_codes(codes, "CircuitBreaker")
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()

    def __repr__(self) -> str:
        return f"CircuitBreaker(failures={self._failures}, reset_after={self._reset_after:g})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        circuit = self._circuit(call.name)
        now = asyncio.get_running_loop().time
        ticket = circuit.admit(now())
        if ticket is None:
            raise _refusal(call, circuit.retry_after(now()))
        try:
            value = await call_next(call)
        except Exception as error:
            self._judge(call, circuit, ticket, error, now())
            raise
        except BaseException:
            circuit.released(ticket)
            raise
        self._judge(call, circuit, ticket, None, now())
        return value

    def _judge(self, call: ToolCall, circuit: Circuit, ticket: int, error: Exception | None, now: float) -> None:
        if error is not None and is_failure(error, self._codes):
            if circuit.failed(ticket, now):
                log.warning("tool %s keeps failing: its circuit is open for %g s", call.name, self._reset_after)
        elif error is None or (isinstance(error, ToolError) and error.code not in _REFUSALS):
            if circuit.succeeded(ticket):
                log.info("tool %s answers again: its circuit is closed", call.name)
        else:
            circuit.released(ticket)

    def _circuit(self, name: str) -> Circuit:
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = Circuit(self._failures, self._reset_after)
            if len(self._circuits) > _MAX_CIRCUITS:
                self._circuits.popitem(last=False)
        else:
            self._circuits.move_to_end(name)
        return circuit


def _refusal(call: ToolCall, retry_after: float) -> ToolError:
    seconds = max(1, math.ceil(retry_after))  # how long a probe takes that is under way nobody knows
    return ToolError(
        f"tool {call.name!r} keeps failing and is not called for now; try again in {seconds} s",
        code=CIRCUIT_OPEN,
        details=retry_info(seconds),
    )
