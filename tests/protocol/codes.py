"""The protocol's error codes, and which of them nothing can make yet."""

from __future__ import annotations

CODES = {
    *("UNKNOWN_TOOL", "TOOL_NOT_ALLOWED", "ACCESS_DENIED", "RATE_LIMITED", "VALIDATION_ERROR", "SECRET_ERROR"),
    *("TOOL_TIMEOUT", "TOOL_RESULT_TOO_LARGE", "MAX_TOOL_CALLS", "OUTCOME_UNKNOWN", "NOT_EXECUTED"),
    *("APPROVAL_DENIED", "APPROVAL_EXPIRED", "EXECUTION_ERROR", "SYNTAX_ERROR", "DEADLINE_EXCEEDED"),
    *("SESSION_EXPIRED", "SESSION_CANCELLED", "MEMORY_LIMIT", "CPU_LIMIT", "STDOUT_LIMIT", "LOG_LIMIT"),
    *("TIMER_LIMIT", "ARGUMENTS_TOO_LARGE", "CODE_TOO_LARGE", "RUNTIME_LOST", "NONDETERMINISTIC", "ENGINE_CHANGED"),
    *("SHUTTING_DOWN", "INTERNAL_ERROR"),
}
"""Of `final`, and of what a script catches."""

LATER = {
    "ENGINE_CHANGED": "recovery",
    "INTERNAL_ERROR": "a failure that nobody foresaw: nothing known ends a run so",
    "NONDETERMINISTIC": "recovery",
    "NOT_EXECUTED": "recovery",
    "OUTCOME_UNKNOWN": "recovery",
}
"""Codes that no run has today, and what will bring them."""

HTTP_CODES = {
    *("INVALID_REQUEST", "INVALID_FILTER", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "SESSION_EXISTS"),
    *("PAYLOAD_TOO_LARGE", "APPROVAL_DECIDED", "SESSION_CLOSED", "UNKNOWN_CALL", "RATE_LIMITED", "OVERLOADED"),
    *("SHUTTING_DOWN", "NOT_RUNNING", "INTERNAL_ERROR"),
}
"""Of answers that are errors; the protocol names none for 405 and 415."""

HTTP_LATER = {
    "SESSION_CLOSED": "POST /sessions/{id}/execute",
}
