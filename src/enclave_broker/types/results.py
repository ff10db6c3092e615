"""What an execution came to: the value or the error, what it printed, which calls took effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

import msgspec

from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ExecutionError

__all__ = ["CallRecord", "ExecutionResult", "ExecutionStats", "ScriptError", "SessionState", "Stage"]

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


class Stage(NamedTuple):
    """A call has got so far: `requested`, `placed` (it has one of the places for calls at once), `asked` (a person),
    `decided` (by one, or too late), `started` (its handler, once for each attempt), `settled`. `at` is in seconds since
    the epoch."""

    name: str
    at: float


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tool call of an execution, as the log has it.

    `principal` is the subject of who asked, `route` the name or pattern that took the call, `rule` what let it through
    or refused it. `args` are redacted (`SENSITIVE_NAMES` and the broker's Redact). `started` is seconds since the
    epoch, None if the handler never started; `duration` seconds from the request to the outcome; `stages` has the time
    of each step, `decided_by` the subject of the person who was asked and answered. Sizes are of the JSON text, in
    bytes.
    """

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
    principal: str = ""
    route: str | None = None
    stages: tuple[Stage, ...] = ()
    decided_by: str | None = None


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
    printed. A `status` of "waiting" is no end: all that is under way are calls that wait for a person, `pending`.
    """

    ok: bool
    status: Literal["completed", "failed", "cancelled", "waiting"]
    value: T
    error: ScriptError | None
    stdout: str
    calls: list[CallRecord]
    stats: ExecutionStats
    session_id: str
    pending: list[Approval] = field(default_factory=list[Approval])

    def raise_for_error(self) -> Self:
        """The same result.

        Raises ExecutionError, which carries this result, if the script failed.
        """
        if not self.ok:
            raise ExecutionError(self)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """What a session was right after the event `seq`, read from its log.

    `state` is one of the wire's six words or `waiting_for_approval`, `stdout` what the execution of that moment had
    printed, `calls` every call of the session so far, `result` what the execution came to, None while it ran or before
    there was one.
    """

    seq: int
    at: datetime
    state: str
    stdout: str
    calls: list[CallRecord]
    result: ExecutionResult[Any] | None
