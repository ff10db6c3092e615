"""Every error that this package raises on purpose: one tree, stable codes, messages that are safe to show.

EnclaveError
├ ConfigurationError (a ValueError, too)    ├ ClosedError
├ ToolError ── UnknownToolError · ToolNotAllowedError · AccessDeniedError · RateLimitError · ToolValidationError ·
│              ToolTimeoutError · ToolResultTooLargeError · MaxToolCallsError · SecretError · OutcomeUnknownError ·
│              ApprovalDeniedError · ApprovalExpiredError
├ ExecutionError                            ├ StoreError   ├ RuntimeLostError
├ SessionError ── SessionNotFoundError · SessionExistsError · SessionClosedError · OverloadedError
└ ClientError ── AuthenticationError · PermissionDeniedError · TransportError
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, isfinite
from typing import Any, ClassVar, cast

import msgspec

__all__ = [
    "RESERVED_CODES",
    "AccessDeniedError",
    "ApprovalDeniedError",
    "ApprovalExpiredError",
    "AuthenticationError",
    "ClientError",
    "ClosedError",
    "ConfigurationError",
    "EnclaveError",
    "ExecutionError",
    "FieldError",
    "MaxToolCallsError",
    "OutcomeUnknownError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitError",
    "RuntimeLostError",
    "SecretError",
    "SessionClosedError",
    "SessionError",
    "SessionExistsError",
    "SessionNotFoundError",
    "StoreError",
    "ToolError",
    "ToolNotAllowedError",
    "ToolResultTooLargeError",
    "ToolTimeoutError",
    "ToolValidationError",
    "TransportError",
    "UnknownToolError",
    "code_of_handler",
    "retry_after_of",
    "retry_info",
    "tool_error",
]

RESERVED_CODES = frozenset(
    {
        "UNKNOWN_TOOL",
        "TOOL_NOT_ALLOWED",
        "ACCESS_DENIED",
        "RATE_LIMITED",
        "VALIDATION_ERROR",
        "SECRET_ERROR",
        "TOOL_TIMEOUT",
        "TOOL_RESULT_TOO_LARGE",
        "MAX_TOOL_CALLS",
        "OUTCOME_UNKNOWN",
        "NOT_EXECUTED",
        "APPROVAL_DENIED",
        "APPROVAL_EXPIRED",
        "EXECUTION_ERROR",
        "SYNTAX_ERROR",
        "DEADLINE_EXCEEDED",
        "SESSION_EXPIRED",
        "SESSION_CANCELLED",
        "MEMORY_LIMIT",
        "CPU_LIMIT",
        "STDOUT_LIMIT",
        "LOG_LIMIT",
        "TIMER_LIMIT",
        "ARGUMENTS_TOO_LARGE",
        "CODE_TOO_LARGE",
        "RUNTIME_LOST",
        "NONDETERMINISTIC",
        "ENGINE_CHANGED",
        "SHUTTING_DOWN",
        "INTERNAL_ERROR",
    }
)
"""The codes by which the broker itself speaks to a script and in `final`: a handler can't take one."""

_MAX_CODE_CHARACTERS = 128  # a code is a word for programs, not a place for text


def code_of_handler(code: str) -> str:
    """The code that reaches the script when a handler raises ToolError with `code`.

    Codes of the wire, and what is no printable ASCII word of at most 128 characters, become EXECUTION_ERROR.
    Middleware is the host's: its codes pass as they are.
    """
    plain = 0 < len(code) <= _MAX_CODE_CHARACTERS and code.isascii() and code.isprintable() and " " not in code
    return code if plain and code not in RESERVED_CODES else "EXECUTION_ERROR"


class EnclaveError(Exception):
    """`message` is safe to show to whoever caused it; whatever else is known stands in the log.

    `details` is JSON-able or None. Errors survive pickling: a handler may raise them in a process of its own.
    """

    default_code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str = "", *, code: str | None = None, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.code: str = self.default_code if code is None else code
        self.details = details

    def __str__(self) -> str:
        return self.message


class ConfigurationError(EnclaveError, ValueError):
    """A rule, pattern, tool or option is wrong. Raised where it is loaded, never while a script runs."""

    default_code = "CONFIGURATION_ERROR"


class ClosedError(EnclaveError):
    """Something was used after its `aclose()`."""

    default_code = "SHUTTING_DOWN"


class ToolError(EnclaveError):
    """What a handler or a middleware raises on purpose: message, code and details reach the script, which may catch it.

    A handler can't take one of RESERVED_CODES: such a code becomes EXECUTION_ERROR.
    """

    default_code = "EXECUTION_ERROR"


class UnknownToolError(ToolError):
    default_code = "UNKNOWN_TOOL"


class ToolNotAllowedError(ToolError):
    """The tool is not on the session's allow-list."""

    default_code = "TOOL_NOT_ALLOWED"


class AccessDeniedError(ToolError):
    """The policy denies the call, or the route wants somebody who is known."""

    default_code = "ACCESS_DENIED"


class RateLimitError(ToolError):
    """`retry_after`: seconds until the same call would have room."""

    default_code = "RATE_LIMITED"

    def __init__(
        self, message: str = "", *, retry_after: float = 0.0, code: str | None = None, details: Any = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after = retry_after


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with a call's arguments. `field` is a path such as `items[0].price`, empty for the whole."""

    field: str
    reason: str


class ToolValidationError(ToolError):
    """Arguments don't fit the tool's schema. `errors` may be shorter than what was wrong."""

    default_code = "VALIDATION_ERROR"

    def __init__(
        self, message: str = "", *, errors: Sequence[FieldError] = (), code: str | None = None, details: Any = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.errors = tuple(errors)


class ToolTimeoutError(ToolError):
    default_code = "TOOL_TIMEOUT"


class ToolResultTooLargeError(ToolError):
    default_code = "TOOL_RESULT_TOO_LARGE"


class MaxToolCallsError(ToolError):
    default_code = "MAX_TOOL_CALLS"


class SecretError(ToolError):
    """A secret that a tool declares can't be had. The message names the secret, never its value or source."""

    default_code = "SECRET_ERROR"


class OutcomeUnknownError(ToolError):
    """A `write` was started and nobody knows how it ended. It is not started again under this call id."""

    default_code = "OUTCOME_UNKNOWN"


class ApprovalDeniedError(ToolError):
    """`reason`: what the person who denied it wrote, maybe empty."""

    default_code = "APPROVAL_DENIED"

    def __init__(self, message: str = "", *, reason: str = "", code: str | None = None, details: Any = None) -> None:
        super().__init__(message, code=code, details=details)
        self.reason = reason


class ApprovalExpiredError(ToolError):
    default_code = "APPROVAL_EXPIRED"


_BY_CODE: dict[str, type[ToolError]] = {kind.default_code: kind for kind in ToolError.__subclasses__()}


def tool_error(code: str, message: str, details: Any = None) -> ToolError:
    """The error of a call that has failed with this code, as the class that the code has, from what the wire keeps."""
    kind = _BY_CODE.get(code, ToolError)
    if kind is RateLimitError:
        return RateLimitError(message, retry_after=retry_after_of(details), details=details)
    if kind is ApprovalDeniedError:
        reason = next((str(each["reason"]) for each in _infos(details, "approval_info") if "reason" in each), "")
        return ApprovalDeniedError(message, reason=reason, details=details)
    if kind is ToolValidationError:
        found = _infos(details, "validation_info")
        errors = [FieldError(str(each.get("field", "")), str(each.get("reason", ""))) for each in found]
        return ToolValidationError(message, errors=errors, details=details)
    return kind(message, code=code, details=details)


def retry_info(seconds: float) -> list[dict[str, Any]] | None:
    """When to try again as the wire's details; None if that would never help."""
    return [{"type": "retry_info", "retryDelayMs": ceil(seconds * 1000)}] if isfinite(seconds) else None


def retry_after_of(details: Any) -> float:
    """Seconds that an error's details ask to wait; infinite where they don't say, since it will never have room."""
    found = [each.get("retryDelayMs") for each in _infos(details, "retry_info")]
    return next((delay / 1000 for delay in found if isinstance(delay, int | float)), inf)


def _infos(details: Any, kind: str) -> list[dict[str, Any]]:
    """The parts of an error's details that are of one type of the wire's."""
    parts = cast("list[Any]", details) if isinstance(details, list) else []
    objects = [cast("dict[str, Any]", part) for part in parts if isinstance(part, dict)]
    return [each for each in objects if each.get("type") == kind]


class ExecutionError(EnclaveError):
    """The script failed. `result` is the whole ExecutionResult: output and calls are not lost."""

    default_code = "EXECUTION_ERROR"

    def __init__(self, result: Any) -> None:
        error = getattr(result, "error", None)
        status = getattr(result, "status", "failed")
        super().__init__(
            getattr(error, "message", None) or f"the script is {status}",
            code=getattr(error, "code", None),
            details=getattr(error, "details", None),
        )
        self.args = (result,)
        self.result = result


class SessionError(EnclaveError):
    default_code = "SESSION_CLOSED"


class SessionNotFoundError(SessionError):
    """No session of that id that this principal may see."""

    default_code = "NOT_FOUND"


class SessionExistsError(SessionError):
    default_code = "SESSION_EXISTS"


class SessionClosedError(SessionError):
    default_code = "SESSION_CLOSED"


class OverloadedError(SessionError):
    """There is no room now. `retry_after`: seconds after which asking again makes sense."""

    default_code = "OVERLOADED"

    def __init__(
        self, message: str = "", *, retry_after: float = 1.0, code: str | None = None, details: Any = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after = retry_after


class StoreError(EnclaveError):
    """The store can't answer, or holds what it shouldn't."""


class RuntimeLostError(EnclaveError):
    """The process that ran the script is gone and the session could not go on in another."""

    default_code = "RUNTIME_LOST"


class ClientError(EnclaveError):
    """What the client makes of an answer that is no success. `status_code` is None when there was no answer."""

    default_code = "CLIENT_ERROR"

    def __init__(
        self, message: str = "", *, status_code: int | None = None, code: str | None = None, details: Any = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.status_code = status_code


class AuthenticationError(ClientError):
    default_code = "UNAUTHENTICATED"


class PermissionDeniedError(ClientError):
    default_code = "FORBIDDEN"


class TransportError(ClientError):
    """The server could not be reached, or the connection broke and could not be taken up again."""

    default_code = "TRANSPORT_ERROR"
