"""What an execution came to, put together from the events of its stream. Sans-I/O; called by async_client.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from enclave_broker.types.events import (
    Event,
    FinalEvent,
    StdoutEvent,
    ToolCallEvent,
    ToolProgressEvent,
    ToolResultAppliedEvent,
)
from enclave_broker.types.results import CallRecord, ExecutionResult, ExecutionStats, ScriptError
from enclave_broker.types.wire import UnknownEvent

__all__ = ["ResultBuilder"]

_PLACE = re.compile(r"^    at (?:.* \()?[^()\n]*:(\d{1,9}):(\d{1,9})\)?$", re.MULTILINE)


class ResultBuilder:
    """Takes every event of one execution, in order.

    The stream says which calls there were, not how they ended (`tool_result_applied` comes for a failure, too): without
    the server's records a call that was answered is `unknown`, one that wasn't `waiting`, and after the final `not_run`
    or, if its handler had begun, `unknown`.
    """

    def __init__(self) -> None:
        self.final: FinalEvent | None = None
        self._stdout: list[str] = []
        self._calls: dict[str, ToolCallEvent] = {}
        self._begun: set[str] = set()
        self._answered: set[str] = set()

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def add(self, event: Event | UnknownEvent) -> None:
        match event:
            case StdoutEvent():
                self._stdout.append(event.chunk)
            case ToolCallEvent():
                self._calls[event.call_id] = event
            case ToolProgressEvent(phase="processing" | "receiving"):
                self._begun.add(event.call_id)
            case ToolResultAppliedEvent():
                self._answered.add(event.call_id)
            case FinalEvent():
                self.final = event
            case _:
                pass

    def result(self, session_id: str, records: Sequence[CallRecord] = ()) -> ExecutionResult[Any]:
        """The result, with the server's `records` of those of its calls that it knows. Needs the final."""
        final = self.final
        assert final is not None
        known = {record.id: record for record in records}
        return ExecutionResult(
            ok=final.ok,
            status=_status(final),
            value=None if final.result is msgspec.UNSET else final.result,
            error=None if final.ok else _error(final.error or {}),
            stdout="".join(self._stdout),
            calls=[known.get(id) or self._record(event) for id, event in self._calls.items()],
            stats=_stats(final.stats or {}),
            session_id=session_id,
        )

    def _record(self, event: ToolCallEvent) -> CallRecord:
        doubtful = event.call_id in self._answered or event.call_id in self._begun
        outcome: Any = "unknown" if doubtful else "not_run"
        size = len(msgspec.json.encode(event.args))
        return CallRecord(id=event.call_id, name=event.tool_name, args=event.args, outcome=outcome, args_bytes=size)


def _status(final: FinalEvent) -> Literal["completed", "failed", "cancelled"]:
    if final.ok:
        return "completed"
    return "cancelled" if (final.error or {}).get("code") == "SESSION_CANCELLED" else "failed"


def _error(error: dict[str, Any]) -> ScriptError:
    """The wire has message, code and stack: `NAME: MESSAGE`, then frames, of which the first is the place."""
    message: str = error.get("message") or "the script failed"
    stack = cast("str | None", error.get("stack"))
    name, _, rest = (stack or "").partition(": ")
    named = name.isidentifier() and rest.startswith(message)
    place = _PLACE.search(rest.removeprefix(message) if named else stack or "")
    return ScriptError(
        code=error.get("code") or "EXECUTION_ERROR",
        message=message,
        name=name if named else "Error",
        line=int(place[1]) if place else None,
        column=int(place[2]) if place else None,
        stack=stack,
    )


def _stats(stats: dict[str, Any]) -> ExecutionStats:
    return ExecutionStats(
        duration=stats.get("durationMs", 0) / 1000,
        tool_call_count=stats.get("toolCallCount", 0),
        stdout_bytes=stats.get("stdoutBytes", 0),
    )
