"""What the options of a middleware may be, and which errors say that a tool failed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from enclave_broker.types.errors import RESERVED_CODES, ConfigurationError, EnclaveError, ToolError

__all__ = ["check_count", "failure_codes", "is_failure"]

_MAX_COUNT = 2**31 - 1


def check_count(value: Any, name: str, least: int = 1) -> int:
    """A whole number from `least`. Raises ConfigurationError that names the option."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_COUNT:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {_MAX_COUNT}, not {value!r}")
    return value


def failure_codes(codes: Collection[str], owner: str) -> frozenset[str]:
    """The codes of ToolError that mean that a tool failed: those given, and TOOL_TIMEOUT.

    They are a handler's own, or EXECUTION_ERROR for errors raised without one. Raises ConfigurationError for those by
    which the broker refuses a call.
    """
    if isinstance(codes, str) or not all(isinstance(code, str) for code in cast("Collection[Any]", codes)):
        raise ConfigurationError(f"{owner}: codes are a collection of error codes, not {codes!r}")
    wrong = sorted((RESERVED_CODES - {"EXECUTION_ERROR", "TOOL_TIMEOUT"}).intersection(codes))
    if wrong:
        raise ConfigurationError(f"{owner}: {wrong[0]} is an answer of the broker's, no failure of a tool")
    return frozenset(codes) | {"TOOL_TIMEOUT"}


def is_failure(error: Exception, codes: frozenset[str]) -> bool:
    """Whether a tool failed, so that it may succeed another time.

    That is what nobody raised on purpose, and a ToolError of these codes. Any other ToolError is an answer.
    """
    if isinstance(error, ToolError):
        return error.code in codes
    return not isinstance(error, EnclaveError)
