"""Bodies of requests, parsed strictly: what a client asks for, checked and in this side's units.

Owns the shape of POST /sessions, tool-result, cancel and approvals, and how a client's limits meet the operator's.
How one object is read is request_fields.py's; whether a client may do what it asks is the broker's; `filter` is parsed
by stream/filters.py. Called by the HTTP edge.

A limit that isn't known is refused by name. Other fields that aren't known are left alone, since clients may send more
than this version knows; but not one that is a known field but for its spelling (`allowed_tools`), which would silently
allow more than was meant. `null` is as good as absent, but not for a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from enclave_broker.types.bounded_json import WireError, encode_json
from enclave_broker.types.ids import check_session_id
from enclave_broker.types.limits import MAX_SECONDS, MIN_MEMORY_BYTES, SessionLimits
from enclave_broker.types.request_fields import (
    InvalidRequestError,
    flag_field,
    kind_of,
    object_field,
    optional,
    read_object,
    shown,
    spellings_of,
    text_field,
)
from enclave_broker.types.wire import ACCEPTED_VERSIONS

__all__ = [
    "WIRE_LIMITS",
    "CancelRequest",
    "DecisionRequest",
    "InvalidRequestError",
    "RequestedLimits",
    "SessionRequest",
    "ToolResultFailure",
    "ToolResultRequest",
    "clamp",
    "parse_cancel",
    "parse_decision",
    "parse_session_request",
    "parse_tool_result",
]

MIN_HEARTBEAT, MAX_HEARTBEAT = 0.05, 20.0  # seconds; the existing client gives a stream up after 30 without one
MAX_METADATA_BYTES = 16_384
MAX_ALLOWED_TOOLS = 1_000
MAX_REASON_CHARACTERS = 1_000


class RequestedLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client asks for, under the names and in the units of SessionLimits; None where it doesn't ask.

    `deadline` of None and of no deadline at all are the same: the operator's holds.
    """

    timeout: float | None = None
    deadline: float | None = None
    tool_timeout: float | None = None
    per_tool_deadline: float | None = None
    cpu_time: float | None = None
    heartbeat_interval: float | None = None
    max_tool_calls: int | None = None
    max_concurrent_calls: int | None = None
    max_timers: int | None = None
    cancel_on_first_error: bool | None = None
    max_memory_bytes: int | None = None
    max_stdout_bytes: int | None = None
    max_tool_args_bytes: int | None = None
    max_tool_result_bytes: int | None = None
    max_code_bytes: int | None = None
    max_log_bytes: int | None = None


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /sessions. `allowed_tools` are patterns, not compiled yet; `filter` is the object as it came."""

    code: str
    session_id: str | None = None
    limits: RequestedLimits = RequestedLimits()
    filter: dict[str, Any] | None = None
    language: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    metadata: dict[str, Any] = {}  # msgspec copies an empty default
    detach: bool = False
    stream: bool | None = None
    """None when the request doesn't say: its Accept header decides."""
    protocol_version: int = ACCEPTED_VERSIONS[-1]


class ToolResultFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a tool that the client executes failed."""

    message: str
    code: str | None = None
    details: Any = None


class ToolResultRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST …/tool-result. `error` is None exactly if `ok`; `result` is UNSET for undefined."""

    call_id: str
    ok: bool
    result: Any = msgspec.UNSET
    error: ToolResultFailure | None = None


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST …/cancel."""

    reason: str | None = None


class DecisionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /approvals/{id}."""

    approve: bool
    reason: str = ""


# --- Bodies ----------------------------------------------------------------------------------------------------------


def parse_session_request(body: bytes) -> SessionRequest:
    """The body of POST /sessions.

    Raises InvalidRequestError.
    """
    fields = read_object(body, _SESSION_BODY)
    asked: dict[str, Any] = {}
    for name, value in fields.items():
        known = _SESSION_FIELDS.get(name)
        if known is not None and value is not None:
            field, check = known
            asked[field] = check(value, name)
    optional(fields, "encryption", _check_encryption)
    if "code" not in asked:
        raise InvalidRequestError("code", "is missing: it is the script, as text")
    if "config" in fields or "limits" in fields:
        asked["limits"] = _limits(fields)
    return SessionRequest(**asked)


def parse_tool_result(body: bytes) -> ToolResultRequest:
    """The body of POST …/tool-result: `{callId, ok, result?, error?}`.

    Raises InvalidRequestError.
    """
    fields = read_object(body, _RESULT_BODY)
    call_id = optional(fields, "callId", text_field)
    if call_id is None or not call_id.startswith("c_") or len(call_id) < 3:
        raise InvalidRequestError("callId", "must be the id of a call, such as 'c_…'")
    ok = optional(fields, "ok", flag_field)
    if ok is None:
        raise InvalidRequestError("ok", "is missing: true with a result, or false with an error")
    error = optional(fields, "error", object_field)
    if ok:
        if error is not None:
            raise InvalidRequestError("error", "can't be there when ok is true")
        return ToolResultRequest(call_id=call_id, ok=True, result=fields.get("result", msgspec.UNSET))
    if fields.get("result") is not None:
        raise InvalidRequestError("result", "can't be there when ok is false")
    if error is None:
        raise InvalidRequestError("error", "is missing: an object with a message, since ok is false")
    message = optional(error, "message", text_field, "error.")
    if message is None:
        raise InvalidRequestError("error.message", "is missing: it is what the script sees")
    code = optional(error, "code", text_field, "error.")
    failure = ToolResultFailure(message=message, code=code, details=error.get("details"))
    return ToolResultRequest(call_id=call_id, ok=False, error=failure)


def parse_cancel(body: bytes) -> CancelRequest:
    """The body of POST …/cancel: `{reason?}`, or nothing.

    Raises InvalidRequestError.
    """
    if not body.strip():
        return CancelRequest()
    return CancelRequest(reason=_reason(read_object(body, _CANCEL_BODY)))


def parse_decision(body: bytes) -> DecisionRequest:
    """The body of POST /approvals/{id}: `{decision, reason?}`.

    Raises InvalidRequestError.
    """
    fields = read_object(body, _DECISION_BODY)
    decision = fields.get("decision")
    if decision not in ("approve", "deny"):
        raise InvalidRequestError("decision", "must be approve or deny")
    return DecisionRequest(approve=decision == "approve", reason=_reason(fields) or "")


def _reason(fields: Mapping[str, Any]) -> str | None:
    reason = optional(fields, "reason", text_field)
    if reason is not None and len(reason) > MAX_REASON_CHARACTERS:
        raise InvalidRequestError("reason", f"has {len(reason)} characters; {MAX_REASON_CHARACTERS} are the most")
    return reason


# --- Fields ----------------------------------------------------------------------------------------------------------


def _session_id(value: Any, name: str) -> str:
    try:
        return check_session_id(text_field(value, name))
    except ValueError as error:
        raise InvalidRequestError(name, f"is wrong: {error}") from None


def _version(version: Any, name: str) -> int:
    if type(version) is not int or version not in ACCEPTED_VERSIONS:
        raise InvalidRequestError(name, "must be 2, or 1 of an older client")
    return version


def _check_encryption(encryption: Any, name: str) -> None:
    mode = cast("dict[str, Any]", encryption).get("mode") if isinstance(encryption, dict) else None
    if mode == "required":
        raise InvalidRequestError(f"{name}.mode", "can't be required: this server doesn't encrypt events")
    if mode not in {"disabled", "optional"}:
        raise InvalidRequestError(f"{name}.mode", "must be disabled, optional or required")


def _allowed_tools(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidRequestError(name, f"must be a list of patterns over tool names, not {kind_of(value)}")
    patterns = cast("list[Any]", value)
    if len(patterns) > MAX_ALLOWED_TOOLS:
        raise InvalidRequestError(name, f"has {len(patterns)} patterns; {MAX_ALLOWED_TOOLS} are the most")
    return tuple(text_field(pattern, f"{name}[{at}]") for at, pattern in enumerate(patterns))


def _metadata(value: Any, name: str) -> dict[str, Any]:
    metadata = object_field(value, name)
    try:
        encode_json(metadata, MAX_METADATA_BYTES)
    except WireError:
        raise InvalidRequestError(name, f"must have at most {MAX_METADATA_BYTES:,} bytes as JSON") from None
    return metadata


_SESSION_FIELDS: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "code": ("code", text_field),
    "sessionId": ("session_id", _session_id),
    "filter": ("filter", object_field),
    "language": ("language", text_field),
    "allowedTools": ("allowed_tools", _allowed_tools),
    "metadata": ("metadata", _metadata),
    "detach": ("detach", flag_field),
    "stream": ("stream", flag_field),
    "protocolVersion": ("protocol_version", _version),
}
"""A field on the wire → in SessionRequest. `config` and `limits` are one together; `encryption` is only checked."""
_SESSION_BODY = spellings_of([*_SESSION_FIELDS, "encryption", "config", "limits"])
_RESULT_BODY = spellings_of(["callId", "ok", "result", "error"])
_CANCEL_BODY = spellings_of(["reason"])
_DECISION_BODY = spellings_of(["decision", "reason"])

# --- Limits ----------------------------------------------------------------------------------------------------------

WIRE_LIMITS: Mapping[str, str] = {
    "sessionTtlMs": "timeout",
    "deadlineMs": "deadline",
    "toolTimeoutMs": "tool_timeout",
    "perToolDeadlineMs": "per_tool_deadline",
    "maxCpuMs": "cpu_time",
    "heartbeatIntervalMs": "heartbeat_interval",
    "maxToolCalls": "max_tool_calls",
    "maxConcurrentCalls": "max_concurrent_calls",
    "maxTimers": "max_timers",
    "cancelOnFirstError": "cancel_on_first_error",
    "maxMemoryBytes": "max_memory_bytes",
    "maxStdoutBytes": "max_stdout_bytes",
    "maxToolArgsBytes": "max_tool_args_bytes",
    "maxToolResultBytes": "max_tool_result_bytes",
    "maxCodeBytes": "max_code_bytes",
    "maxLogBytes": "max_log_bytes",
}
"""A limit's name on the wire → in SessionLimits. Names in `Ms` are milliseconds, all others are the same numbers."""
_CONFIG = {
    "maxExecutionMs": "timeout",
    "maxToolCalls": "max_tool_calls",
    "heartbeatIntervalMs": "heartbeat_interval",
}
_MAX_MILLISECONDS = MAX_SECONDS * 1000
_LEAST = {
    "max_tool_calls": 0,
    "max_timers": 0,
    "max_stdout_bytes": 0,
    "max_memory_bytes": MIN_MEMORY_BYTES,
}


def _limits(fields: Mapping[str, Any]) -> RequestedLimits:
    """Of `config` and `limits` together; where both ask for the same, for the smaller."""
    asked: dict[str, Any] = {}
    for where, known in (("config", _CONFIG), ("limits", WIRE_LIMITS)):
        for name, value in (optional(fields, where, object_field) or {}).items():
            limit = known.get(name)
            if limit is None:
                raise InvalidRequestError(
                    f"{where}.{shown(name)}", f"is no limit; known in {where} are {', '.join(known)}"
                )
            number = _limit(value, where, name, limit)
            asked[limit] = min(asked[limit], number) if limit in asked else number
    if asked.get("deadline") == 0:
        del asked["deadline"]  # the wire's word for none
    return RequestedLimits(**asked)


def _limit(value: Any, where: str, name: str, limit: str) -> Any:
    if limit == "cancel_on_first_error":
        return flag_field(value, f"{where}.{name}")
    milliseconds = name.endswith("Ms")
    if type(value) is not int and not (milliseconds and type(value) is float):  # a bool is no int
        what = "a number of milliseconds" if milliseconds else "a whole number"
        found = value if type(value) is float else kind_of(value)
        raise InvalidRequestError(f"{where}.{name}", f"must be {what}, not {found}")
    least = _LEAST.get(limit, 1)
    if value < least and not (limit == "deadline" and value == 0):
        raise InvalidRequestError(f"{where}.{name}", f"must be at least {least}, not {shown(str(value))}")
    return min(value, _MAX_MILLISECONDS) / 1000 if milliseconds else value


_NOTHING = RequestedLimits()


def clamp(requested: RequestedLimits, operator: SessionLimits) -> SessionLimits:
    """What a session may use: the smaller of what the client asks and what the operator allows, limit by limit.

    The heartbeat alone may go either way, from 50 ms to 20 s. `cancel_on_first_error` can be switched on, not off.
    """
    if requested == _NOTHING:
        return operator
    changes: dict[str, Any] = {}
    for name in RequestedLimits.__struct_fields__:
        asked = getattr(requested, name)
        allowed = getattr(operator, name)
        if asked is None:
            continue
        if name == "heartbeat_interval":
            changes[name] = min(max(asked, MIN_HEARTBEAT), MAX_HEARTBEAT)
        elif name == "cancel_on_first_error":
            changes[name] = asked or allowed
        else:
            changes[name] = asked if allowed is None else min(asked, allowed)
    return operator.override(**changes)
