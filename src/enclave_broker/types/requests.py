"""Bodies of requests, parsed strictly: what a client asks for, checked and in this side's units.

Owns the shape of POST /sessions, tool-result and cancel, and how a client's limits meet the operator's. Whether it
may do what it asks is the broker's; `filter` is parsed by stream/filters.py. Called by the HTTP edge.

A limit that isn't known is refused by name. Other fields that aren't known are left alone, since clients may send more
than this version knows; but not one that is a known field but for its spelling (`allowed_tools`), which would silently
allow more than was meant. `null` is as good as absent, but not for a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from enclave_broker.types.bounded_json import WireError, decode_json, encode_json
from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.ids import check_session_id
from enclave_broker.types.limits import MAX_SECONDS, MIN_MEMORY_BYTES, SessionLimits
from enclave_broker.types.wire import ACCEPTED_VERSIONS

__all__ = [
    "CancelRequest",
    "InvalidRequestError",
    "RequestedLimits",
    "SessionRequest",
    "ToolResultFailure",
    "ToolResultRequest",
    "clamp",
    "parse_cancel",
    "parse_session_request",
    "parse_tool_result",
]

MIN_HEARTBEAT, MAX_HEARTBEAT = 0.05, 20.0  # seconds; the existing client gives a stream up after 30 without one
MAX_METADATA_BYTES = 16_384
MAX_ALLOWED_TOOLS = 1_000
MAX_REASON_CHARACTERS = 1_000
_MAX_SHOWN = 80


class InvalidRequestError(EnclaveError):
    """A request is malformed. `field` is a path such as `limits.maxToolCalls`, empty for the whole body."""

    default_code = "INVALID_REQUEST"

    def __init__(self, field: str, reason: str) -> None:
        details = [{"type": "validation_info", "field": field, "reason": reason}]
        super().__init__(f"{field or 'the body'} {reason}", details=details)
        self.args = (field, reason)
        self.field = field
        self.reason = reason


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


# --- Bodies ----------------------------------------------------------------------------------------------------------

_SESSION_FIELDS = (
    "code",
    "sessionId",
    "config",
    "limits",
    "filter",
    "encryption",
    "protocolVersion",
    "language",
    "allowedTools",
    "metadata",
    "detach",
    "stream",
)


def parse_session_request(body: bytes) -> SessionRequest:
    """The body of POST /sessions.

    Raises InvalidRequestError.
    """
    fields = _body(body, _SESSION_FIELDS)
    _check_version(fields.get("protocolVersion"))
    _check_encryption(fields.get("encryption"))
    session_id = _text(fields, "sessionId")
    if session_id is not None:
        try:
            check_session_id(session_id)
        except ValueError as error:
            raise InvalidRequestError("sessionId", f"is wrong: {error}") from None
    code = _text(fields, "code")
    if code is None:
        raise InvalidRequestError("code", "is missing: it is the script, as text")
    return SessionRequest(
        code=code,
        session_id=session_id,
        limits=_limits(fields),
        filter=_object(fields, "filter"),
        language=_text(fields, "language"),
        allowed_tools=_allowed_tools(fields.get("allowedTools")),
        metadata=_metadata(fields),
        detach=_flag(fields, "detach") or False,
        stream=_flag(fields, "stream"),
        protocol_version=fields.get("protocolVersion") or ACCEPTED_VERSIONS[-1],
    )


def parse_tool_result(body: bytes) -> ToolResultRequest:
    """The body of POST …/tool-result: `{callId, ok, result?, error?}`.

    Raises InvalidRequestError.
    """
    fields = _body(body, ("callId", "ok", "result", "error"))
    call_id = _text(fields, "callId")
    if call_id is None or not call_id.startswith("c_") or len(call_id) < 3:
        raise InvalidRequestError("callId", "must be the id of a call, such as 'c_…'")
    ok = _flag(fields, "ok")
    if ok is None:
        raise InvalidRequestError("ok", "is missing: true with a result, or false with an error")
    error = _object(fields, "error")
    if ok:
        if error is not None:
            raise InvalidRequestError("error", "can't be there when ok is true")
        return ToolResultRequest(call_id=call_id, ok=True, result=fields.get("result", msgspec.UNSET))
    if fields.get("result") is not None:
        raise InvalidRequestError("result", "can't be there when ok is false")
    if error is None:
        raise InvalidRequestError("error", "is missing: an object with a message, since ok is false")
    message = _text(error, "message", "error.")
    if message is None:
        raise InvalidRequestError("error.message", "is missing: it is what the script sees")
    failure = ToolResultFailure(message=message, code=_text(error, "code", "error."), details=error.get("details"))
    return ToolResultRequest(call_id=call_id, ok=False, error=failure)


def parse_cancel(body: bytes) -> CancelRequest:
    """The body of POST …/cancel: `{reason?}`, or nothing.

    Raises InvalidRequestError.
    """
    if not body.strip():
        return CancelRequest()
    reason = _text(_body(body, ("reason",)), "reason")
    if reason is not None and len(reason) > MAX_REASON_CHARACTERS:
        raise InvalidRequestError("reason", f"has {len(reason)} characters; {MAX_REASON_CHARACTERS} are the most")
    return CancelRequest(reason=reason)


# --- Fields ----------------------------------------------------------------------------------------------------------


def _body(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = decode_json(body)
    except WireError as error:
        raise InvalidRequestError("", f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("", f"must be a JSON object, not {_kind(value)}")
    fields = cast("dict[str, Any]", value)
    spelling = {_spelled(name): name for name in known}
    for name in fields:
        right = spelling.get(_spelled(name))
        if right is not None and name != right:
            raise InvalidRequestError(_shown(name), f"isn't known: did you mean {right}?")
    return fields


def _spelled(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def _shown(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN and value.isascii() and value.isprintable() else ascii(value[:_MAX_SHOWN])


def _text(fields: Mapping[str, Any], name: str, where: str = "") -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(where + name, f"must be a text, not {_kind(value)}")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError(name, f"must be true or false, not {_kind(value)}")
    return value


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequestError(name, f"must be an object, not {_kind(value)}")
    return cast("dict[str, Any] | None", value)


def _check_version(version: Any) -> None:
    if version is not None and (type(version) is not int or version not in ACCEPTED_VERSIONS):
        raise InvalidRequestError("protocolVersion", "must be 2, or 1 of an older client")


def _check_encryption(encryption: Any) -> None:
    if encryption is None:
        return
    mode = cast("dict[str, Any]", encryption).get("mode") if isinstance(encryption, dict) else None
    if mode == "required":
        raise InvalidRequestError("encryption.mode", "can't be required: this server doesn't encrypt events")
    if mode not in {"disabled", "optional"}:
        raise InvalidRequestError("encryption.mode", "must be disabled, optional or required")


def _allowed_tools(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidRequestError("allowedTools", f"must be a list of patterns over tool names, not {_kind(value)}")
    patterns = cast("list[Any]", value)
    if len(patterns) > MAX_ALLOWED_TOOLS:
        raise InvalidRequestError("allowedTools", f"has {len(patterns)} patterns; {MAX_ALLOWED_TOOLS} are the most")
    for at, pattern in enumerate(patterns):
        if not isinstance(pattern, str):
            raise InvalidRequestError(f"allowedTools[{at}]", f"must be a text, not {_kind(pattern)}")
    return tuple(patterns)


def _metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _object(fields, "metadata")
    if metadata is None:
        return {}
    try:
        encode_json(metadata, MAX_METADATA_BYTES)
    except WireError:
        raise InvalidRequestError("metadata", f"must have at most {MAX_METADATA_BYTES:,} bytes as JSON") from None
    return metadata


# --- Limits ----------------------------------------------------------------------------------------------------------

# On the wire → in SessionLimits. Names in `Ms` are milliseconds, all others are the same numbers.
_LIMITS = {
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
_CONFIG = {
    "maxExecutionMs": "timeout",
    "maxToolCalls": "max_tool_calls",
    "heartbeatIntervalMs": "heartbeat_interval",
}
_LEAST = {
    "max_tool_calls": 0,
    "max_timers": 0,
    "max_stdout_bytes": 0,
    "max_memory_bytes": MIN_MEMORY_BYTES,
}


def _limits(fields: Mapping[str, Any]) -> RequestedLimits:
    """Of `config` and `limits` together; where both ask for the same, for the smaller."""
    asked: dict[str, Any] = {}
    for where, known in (("config", _CONFIG), ("limits", _LIMITS)):
        for name, value in (_object(fields, where) or {}).items():
            limit = known.get(name)
            if limit is None:
                raise InvalidRequestError(
                    f"{where}.{_shown(name)}", f"is no limit; known in {where} are {', '.join(known)}"
                )
            number = _limit(value, f"{where}.{name}", limit, milliseconds=name.endswith("Ms"))
            asked[limit] = min(asked[limit], number) if limit in asked else number
    if asked.get("deadline") == 0:
        del asked["deadline"]  # the wire's word for none
    return RequestedLimits(**asked)


def _limit(value: Any, field: str, limit: str, *, milliseconds: bool) -> Any:
    if limit == "cancel_on_first_error":
        if not isinstance(value, bool):
            raise InvalidRequestError(field, f"must be true or false, not {_kind(value)}")
        return value
    kinds = (int, float) if milliseconds else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        what = "a number of milliseconds" if milliseconds else "a whole number"
        raise InvalidRequestError(field, f"must be {what}, not {value if type(value) is float else _kind(value)}")
    least = _LEAST.get(limit, 1)
    if value < least and not (limit == "deadline" and value == 0):
        raise InvalidRequestError(field, f"must be at least {least}, not {_shown(str(value))}")
    return min(value, MAX_SECONDS * 1000) / 1000 if milliseconds else value


def clamp(requested: RequestedLimits, operator: SessionLimits) -> SessionLimits:
    """What a session may use: the smaller of what the client asks and what the operator allows, limit by limit.

    The heartbeat alone may go either way, from 50 ms to 20 s. `cancel_on_first_error` can be switched on, not off.
    """
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
