"""ConcurrencyLimit: how many calls are under way at once; others wait in order.

Not here: a session's own `max_concurrent_calls`, and limits of calls per time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.broker.calls.middleware.options import check_count
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, ToolError, retry_info

__all__ = ["OVERLOADED", "ConcurrencyLimit"]

OVERLOADED = "OVERLOADED"
"""The code of the ToolError that refuses a call when too many wait."""

_RETRY_SECONDS = 1.0  # a guess: when places become free depends on the handlers


class _Gate:
    """The places of one tool, or of all. It is there as long as somebody uses it."""

    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0


class ConcurrencyLimit:
    """Lets `n` calls through at once, counted in this process: of all that pass here, or with `per_tool` of each name.

    Others wait, first come, first served, as long as their own deadlines let them; when `max_waiting` wait already, a
    call is refused by a ToolError of code OVERLOADED, whose `details` ask to wait for 1 s. Cancelling is safe: who
    waits gives up its turn, who runs its place. A handler that makes a call through the same limit waits for a place
    while it holds one: with all places so taken, they wait until their deadlines.
    """

    def __init__(self, n: int, *, per_tool: bool = False, max_waiting: int = 1_000) -> None:
        self._n = check_count(n, "ConcurrencyLimit: n")
        if not isinstance(per_tool, bool):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"ConcurrencyLimit: per_tool is True or False, not {per_tool!r}")
        self._per_tool = per_tool
        self._most = self._n + check_count(max_waiting, "ConcurrencyLimit: max_waiting", least=0)
        self._gates: dict[str, _Gate] = {}

    def __repr__(self) -> str:
        return f"ConcurrencyLimit({self._n}, per_tool={self._per_tool})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        key = call.name if self._per_tool else ""
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = _Gate(self._n)
        if gate.users >= self._most:
            message = f"too many calls wait for tool {call.name!r} already; try again in {_RETRY_SECONDS:g} s"
            raise ToolError(message, code=OVERLOADED, details=retry_info(_RETRY_SECONDS))
        gate.users += 1
        try:
            async with gate.places:
                return await call_next(call)
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[key]
