"""The body of POST /sessions, from the options that `execute` and `stream` take: this side's units into the wire's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, TypedDict

from enclave_broker.client.server import encode_body
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.requests import WIRE_LIMITS

__all__ = ["RunOptions", "session_body"]

_WIRE_NAMES = {name: wire for wire, name in WIRE_LIMITS.items()}


class RunOptions(TypedDict, total=False):
    """What a session is asked for with.

    `allowed_tools`: names and globs; they only narrow what the server allows. `timeout` (active time), `deadline` (wall
    clock) and `max_tool_calls` are short for `limits`, of which every one that isn't SessionLimits' default is sent;
    the server takes the smaller of it and its own. `metadata` is labels. `session_id` is one that the client chooses.
    `detach`: the run goes on for as long as it may, also when nobody watches it.
    """

    language: str
    allowed_tools: Sequence[str] | None
    timeout: float | timedelta | None
    deadline: float | timedelta | None
    max_tool_calls: int | None
    limits: SessionLimits | None
    metadata: Mapping[str, Any] | None
    session_id: str | None
    detach: bool


def session_body(
    code: str, session_id: str, options: RunOptions, *, filter: Mapping[str, Any] | None, encryption: str
) -> bytes:
    """Raises ConfigurationError for a wrong option, before anything is sent."""
    if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(f"code must be a str, not {type(code).__name__}")
    unknown = options.keys() - RunOptions.__annotations__.keys()
    if unknown:
        raise ConfigurationError(f"unknown option {', '.join(sorted(unknown))}; known are {', '.join(_known())}")
    allowed = options.get("allowed_tools")
    if isinstance(allowed, str):
        raise ConfigurationError(f"allowed_tools is a list of names and globs: [{allowed!r}]")
    body: dict[str, Any] = {
        "code": code,
        "sessionId": session_id,
        "language": options.get("language"),
        "allowedTools": None if allowed is None else list(allowed),
        "limits": _limits(options) or None,
        "metadata": options.get("metadata") or None,
        "detach": options.get("detach") or None,
        "filter": filter,
        "encryption": None if encryption == "disabled" else {"mode": encryption},
    }
    return encode_body({name: value for name, value in body.items() if value is not None})


def _known() -> list[str]:
    return [*RunOptions.__annotations__]


def _limits(options: RunOptions) -> dict[str, Any]:
    base, standard = options.get("limits") or SessionLimits(), SessionLimits()
    if not isinstance(base, SessionLimits):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(f"limits is a SessionLimits, not {base!r}")
    short = {name: options.get(name) for name in ("timeout", "deadline", "max_tool_calls")}
    limits = base.override(**short)
    asked = {f.name: getattr(limits, f.name) for f in fields(SessionLimits)}
    return {
        _WIRE_NAMES[name]: _wire_value(_WIRE_NAMES[name], value)
        for name, value in asked.items()
        if value != getattr(standard, name) or short.get(name) is not None
    }


def _wire_value(name: str, value: Any) -> Any:
    if not name.endswith("Ms"):
        return value
    milliseconds = round(value * 1000, 3)
    return int(milliseconds) if milliseconds.is_integer() else milliseconds
