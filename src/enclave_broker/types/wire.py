"""Events as lines of the wire: one JSON object each, typed on this side.

Owns how an Event becomes its NDJSON line, and how a line becomes an Event again. The log encodes each event once,
clients decode. Cutting a stream into lines is stream/ndjson's. What comes in is untrusted: what is wrong, a WireError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from enclave_broker.types import events
from enclave_broker.types.bounded_json import WireError, WireSizeError, decode_json, encode_json
from enclave_broker.types.events import PROTOCOL_VERSION, Event

__all__ = [
    "ACCEPTED_VERSIONS",
    "EVENT_TYPES",
    "MAX_LINE_BYTES",
    "UnknownEvent",
    "decode_event",
    "encode_event",
    "payload_of_line",
]

MAX_LINE_BYTES = 64 << 20
"""No line is longer: as much as a whole log may hold by default."""
ACCEPTED_VERSIONS = (1, PROTOCOL_VERSION)

EVENT_TYPES: Mapping[str, type[Event]] = {
    kind.type: kind
    for kind in (
        events.SessionInitEvent,
        events.StdoutEvent,
        events.LogEvent,
        events.ToolCallEvent,
        events.ToolProgressEvent,
        events.ToolResultAppliedEvent,
        events.PartialResultEvent,
        events.ErrorEvent,
        events.HeartbeatEvent,
        events.DeadlineExceededEvent,
        events.CatalogChangedEvent,
        events.FinalEvent,
    )
}
"""Every type of event that this version makes and decodes."""


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this version doesn't know, the encrypted envelope `enc` among them."""

    type: str
    session_id: str
    seq: int
    fields: dict[str, Any]

    def payload(self) -> dict[str, Any]:
        """The payload as it came."""
        return self.fields

    def to_wire(self) -> dict[str, Any]:
        """The event as the wire's JSON object."""
        return _to_wire(self.session_id, self.seq, self.type, self.fields)


def _to_wire(session_id: str, seq: int, type: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "sessionId": session_id,
        "seq": seq,
        "type": type,
        "payload": payload,
    }


# --- Out -------------------------------------------------------------------------------------------------------------

_SEQ, _PAYLOAD, _COMMA = b'","seq":', b'","payload":', ord(",")
# A text holds no quotes but escaped ones, so that both are found first where they stand.
_START = b'{"protocolVersion":%d,' % PROTOCOL_VERSION


def _middle(type: str) -> tuple[bytes, int]:
    """What stands between an event's number and its first own field; how much longer a line is than the Struct's."""
    middle = b',"type":"%b","payload":{' % type.encode()
    return middle, len(_START) + len(middle) - 1  # two braces, where there were a brace and a comma


_MIDDLES: Mapping[type[Any], tuple[bytes, int]] = {kind: _middle(type) for type, kind in EVENT_TYPES.items()}


def encode_event(event: Event | UnknownEvent, max_bytes: int = MAX_LINE_BYTES) -> bytes:
    """The event's line, its `\\n` included.

    `args`, `data` and `result` may be msgspec.Raw: JSON text that is taken as it is.
    Raises WireSizeError for a line beyond `max_bytes` (without its end), of which no more is built, WireError for what
    JSON can't hold.
    """
    known = _MIDDLES.get(type(event))
    if known is None:
        return encode_json(event.to_wire(), max_bytes) + b"\n"
    # {"sessionId":…,"seq":…,FIELDS}: as the Struct is written, which is much faster than a dict of its fields.
    flat = encode_json(event, max_bytes)
    middle, longer = known
    if len(flat) + longer > max_bytes:
        raise WireSizeError(f"this has more than {max_bytes:,} bytes as JSON")
    end = flat.index(_COMMA, flat.index(_SEQ) + len(_SEQ))
    return b"".join((_START, flat[1:end], middle, flat[end + 1 :], b"}\n"))


def payload_of_line(line: bytes) -> bytes:
    """The payload's JSON text in a line that `encode_event` has made."""
    return line[line.index(_PAYLOAD) + len(_PAYLOAD) : -2]


# --- In --------------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, gc=False, rename="camel"):
    protocol_version: int
    session_id: str
    seq: int
    type: str
    payload: dict[str, Any]


_line = msgspec.json.Decoder(_Line)


def decode_event(line: bytes | bytearray | memoryview) -> Event | UnknownEvent:
    """The event of a line.

    Fields that its type doesn't have are dropped; a type that isn't known comes as UnknownEvent.
    Raises WireError that names the field that is missing or wrong.
    """
    try:
        got = _line.decode(line)
    except (ValueError, RecursionError):
        got = _decode_slowly(line)
    _check_line(got)
    kind = EVENT_TYPES.get(got.type)
    if kind is None:
        return UnknownEvent(type=got.type, session_id=got.session_id, seq=got.seq, fields=got.payload)
    got.payload["sessionId"] = got.session_id
    got.payload["seq"] = got.seq
    try:
        event = msgspec.convert(got.payload, kind)
    except msgspec.ValidationError as error:
        raise WireError(f"{got.type}: {error}") from None
    check = _CHECKS.get(kind)
    if check is not None:
        try:
            check(event)
        except ValueError as error:
            raise WireError(f"{got.type}: {error}") from None
    return event


def _decode_slowly(line: bytes | bytearray | memoryview) -> _Line:
    """A line with halves of surrogate pairs, or what is wrong with it."""
    value = decode_json(line)
    try:
        return msgspec.convert(value, _Line)
    except msgspec.ValidationError as error:
        raise WireError(str(error)) from None


def _check_line(line: _Line) -> None:
    if line.protocol_version not in ACCEPTED_VERSIONS:
        raise WireError(f"protocolVersion {line.protocol_version} isn't known here: 1 and 2 are")
    if len(line.session_id) < 3 or not line.session_id.startswith("s_"):
        raise WireError("sessionId is 's_' and at least one character")
    if line.seq < 1:
        raise WireError("seq counts from 1")


class _Encryption(msgspec.Struct, rename="camel"):
    enabled: bool
    key_id: str | None = None


class _ErrorInfo(msgspec.Struct):
    message: str
    code: str | None = None
    stack: str | None = None


class _ErrorPayload(msgspec.Struct):
    code: str
    message: str
    path: list[str] | None = None


class _Stats(msgspec.Struct, rename="camel"):
    duration_ms: float
    tool_call_count: int
    stdout_bytes: int


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z", re.ASCII)


def _check_shape(value: Any, kind: Any, name: str) -> None:
    if value is None:
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_time(value: str, name: str) -> None:
    if not _TIME.fullmatch(value):
        raise ValueError(f"{name} is a time such as 2025-01-31T12:00:00.000Z")


def _check_call_id(event: Any) -> None:
    if len(event.call_id) < 3 or not event.call_id.startswith("c_"):
        raise ValueError("callId is 'c_' and at least one character")


def _check_init(event: events.SessionInitEvent) -> None:
    _check_time(event.expires_at, "expiresAt")
    _check_shape(event.encryption, _Encryption, "encryption")


def _check_call(event: events.ToolCallEvent) -> None:
    _check_call_id(event)
    if not event.tool_name:
        raise ValueError("toolName is empty")


def _check_progress(event: events.ToolProgressEvent) -> None:
    _check_call_id(event)
    if min(event.elapsed_ms, event.bytes_received or 0, event.total_bytes or 0) < 0:
        raise ValueError("elapsedMs, bytesReceived and totalBytes are not negative")


def _check_deadline(event: events.DeadlineExceededEvent) -> None:
    if event.elapsed_ms < 0 or event.budget_ms <= 0:
        raise ValueError("elapsedMs is not negative, budgetMs is more than 0")


def _check_final(event: events.FinalEvent) -> None:
    _check_shape(event.error, _ErrorInfo, "error")
    _check_shape(event.errors, list[_ErrorPayload], "errors")
    _check_shape(event.stats, _Stats, "stats")


def _check_heartbeat(event: events.HeartbeatEvent) -> None:
    _check_time(event.ts, "ts")


def _check_partial(event: events.PartialResultEvent) -> None:
    _check_shape(event.error, _ErrorPayload, "error")


_CHECKS: Mapping[type[Event], Callable[[Any], None]] = {
    events.SessionInitEvent: _check_init,
    events.HeartbeatEvent: _check_heartbeat,
    events.ToolCallEvent: _check_call,
    events.ToolProgressEvent: _check_progress,
    events.ToolResultAppliedEvent: _check_call_id,
    events.DeadlineExceededEvent: _check_deadline,
    events.PartialResultEvent: _check_partial,
    events.FinalEvent: _check_final,
}
