"""What an execution came to: the value or the error, what it printed, which calls took effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec

from enclave_broker.types.errors import ExecutionError

__all__ = ["CallRecord", "ExecutionResult", "ExecutionStats", "ScriptError"]

T = TypeVar("T")
Outcome = Literal["done", "failed", "denied", "waiting", "unknown", "not_run"]


class ScriptError(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Why a script failed. `line` and `column` count from 1 in the script as sent; `stack` holds only its own lines."""

    code: str
    message: str
    name: str = "Error"
    line: int | None = None
    column: int | None = None
    stack: str | None = None
    details: Any = None

    def __str__(self) -> str:
        where = f" (line {self.line}, column {self.column})" if self.line is not None else ""
        return f"{self.code}: {self.message}{where}"


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tool call of an execution. `started` is seconds since the epoch, None if the handler never started;
    `duration` seconds from the request to the outcome; sizes are of the JSON text, in bytes."""

    id: str
    name: str
    args: dict[str, Any]
    outcome: Outcome
    error: ScriptError | None = None
    rule: str | None = None
    started: float | None = None
    duration: float | None = None
    args_bytes: int = 0
    result_bytes: int = 0
    by_host: bool = False


class ExecutionStats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`duration` in seconds from the start to the final; `cpu_time` the script's own CPU seconds."""

    duration: float = 0.0
    tool_call_count: int = 0
    stdout_bytes: int = 0
    cpu_time: float = 0.0

    def to_wire(self) -> dict[str, Any]:
        return {
            "durationMs": round(self.duration * 1000, 3),
            "toolCallCount": self.tool_call_count,
            "stdoutBytes": self.stdout_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult(Generic[T]):
    """The end of one execution. A script that fails is a result too: nothing it printed or called is lost.

    `value` is the script's value, None for undefined and for a failure. `stdout` is what console.log and console.info
    printed.
    """

    ok: bool
    status: Literal["completed", "failed", "cancelled", "waiting"]
    value: T
    error: ScriptError | None
    stdout: str
    calls: list[CallRecord]
    stats: ExecutionStats
    session_id: str
    pending: list[Any] = field(default_factory=list[Any])

    def raise_for_error(self) -> Self:
        """The same result.

        Raises ExecutionError, which carries this result, if the script failed.
        """
        if not self.ok:
            raise ExecutionError(self)
        return self
