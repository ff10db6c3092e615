"""What a handler may know about its call, and what it may say while it runs.

Made by the chain for each start of a handler, which gives it the sink for progress and log lines. Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from enclave_broker.types.principal import Principal

__all__ = ["LogLevel", "LogLine", "Progress", "Sink", "ToolContext"]

LogLevel = Literal["debug", "info", "warn", "error"]
_LEVELS: frozenset[str] = frozenset(get_args(LogLevel))


class Progress(NamedTuple):
    """How far a handler is. `total` is in the unit of `done`, None if the handler doesn't know it."""

    done: float
    total: float | None


class LogLine(NamedTuple):
    """What a handler wants the session's readers to see."""

    level: LogLevel
    message: str
    data: dict[str, Any]


Sink = Callable[[Progress | LogLine], Awaitable[None]]


async def _nowhere(_: Progress | LogLine) -> None:
    """For contexts that nobody listens to."""


@dataclass(frozen=True, slots=True, eq=False)
class ToolContext:
    """One start of a handler. It holds the secrets that the tool declares, and no others; they are in no repr.

    `idempotency_key` is the same for every start of one call: give it to what the handler calls, so that a repeated
    start has one effect. After `deadline` (aware, UTC) the result is thrown away.
    """

    _: KW_ONLY
    session_id: str
    call_id: str
    idempotency_key: str
    tool_name: str
    principal: Principal
    deadline: datetime
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    sink: Sink = field(default=_nowhere, repr=False)

    async def progress(self, done: float, total: float | None = None) -> None:
        """Tell the session's readers how far the handler is; they get at most ten a second.

        Raises ValueError for what is negative or not finite. Cancelling is safe.
        """
        for value in (done, 0.0 if total is None else total):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"progress is a finite number from 0, not {value!r}")
        await self.sink(Progress(done, total))

    async def log(self, message: str, level: LogLevel = "info", **data: Any) -> None:
        """Write a line that the session's readers see; secrets in it are scrubbed on the way.

        Raises ValueError for an unknown level.
        """
        if level not in _LEVELS:
            raise ValueError(f"a log level is one of debug, info, warn, error, not {level!r}")
        await self.sink(LogLine(level, str(message), data))
