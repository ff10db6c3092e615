"""The events of a session's stream, one frozen Struct each, and how each crosses the wire.

Fields are flat (`event.tool_name`); on the wire they stand in `payload` in camelCase. Made by sessions, decoded by
clients. `catalog_changed` and `partial_result` are defined here and made by later parts.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

__all__ = [
    "PROTOCOL_VERSION",
    "CatalogChangedEvent",
    "DeadlineExceededEvent",
    "ErrorEvent",
    "Event",
    "FinalEvent",
    "HeartbeatEvent",
    "LogEvent",
    "PartialResultEvent",
    "SessionInitEvent",
    "StdoutEvent",
    "ToolCallEvent",
    "ToolProgressEvent",
    "ToolResultAppliedEvent",
    "WireField",
    "wire_fields",
]

PROTOCOL_VERSION = 2
LogLevel = Literal["debug", "info", "warn", "error"]


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """What every event has. `seq` counts from 1 within a session, without gaps."""

    type: ClassVar[str]
    session_id: str
    seq: int

    def payload(self) -> dict[str, Any]:
        """The event's own fields under their wire names; optional ones are absent when unset."""
        values = [(field, getattr(self, field.name)) for field in wire_fields(type(self))]
        return {field.wire_name: value for field, value in values if value is not field.absent}

    def to_wire(self) -> dict[str, Any]:
        """The event as the wire's JSON object."""
        return {
            "protocolVersion": PROTOCOL_VERSION,
            "sessionId": self.session_id,
            "seq": self.seq,
            "type": self.type,
            "payload": self.payload(),
        }


class WireField(NamedTuple):
    """A field of an event's payload. It isn't written when its value is `absent`."""

    name: str
    wire_name: str
    absent: Any


@cache
def wire_fields(kind: type[Event]) -> tuple[WireField, ...]:
    """What the payload of this kind of event has, in the order of the wire."""
    own = msgspec.structs.fields(kind)[len(Event.__struct_fields__) :]
    return tuple(
        WireField(field.name, field.encode_name, _ALWAYS if field.required else field.default) for field in own
    )


_ALWAYS: Any = object()  # no value is this one: the field is written whatever it holds


class SessionInitEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "session_init"
    cancel_url: str
    expires_at: str
    encryption: dict[str, Any] = msgspec.field(default_factory=lambda: {"enabled": False})
    replay_url: str | None = None


class StdoutEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A line of console.log or console.info, with its newline."""

    type: ClassVar[str] = "stdout"
    chunk: str


class LogEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "log"
    level: LogLevel
    message: str
    data: dict[str, Any] | None = None


class ToolCallEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "tool_call"
    call_id: str
    tool_name: str
    args: dict[str, Any]


class ToolProgressEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "tool_progress"
    call_id: str
    phase: Literal["connecting", "sending", "receiving", "processing"]
    elapsed_ms: float
    bytes_received: int | None = None
    total_bytes: int | None = None


class ToolResultAppliedEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "tool_result_applied"
    call_id: str


class PartialResultEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "partial_result"
    path: list[str]
    has_next: bool
    data: Any = msgspec.UNSET
    error: dict[str, Any] | None = None


class ErrorEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "error"
    message: str
    code: str | None = None
    recoverable: bool | None = None


class HeartbeatEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "heartbeat"
    ts: str


class DeadlineExceededEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "deadline_exceeded"
    elapsed_ms: float
    budget_ms: float


class CatalogChangedEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    type: ClassVar[str] = "catalog_changed"
    version: str
    added_actions: list[str]
    removed_actions: list[str]


class FinalEvent(Event, frozen=True, gc=False, kw_only=True, rename="camel"):
    """The last event of an execution. `result` is UNSET when the script returned undefined or failed."""

    type: ClassVar[str] = "final"
    ok: bool
    result: Any = msgspec.UNSET
    error: dict[str, Any] | None = None
    errors: list[dict[str, Any]] | None = None
    stats: dict[str, Any] | None = None
