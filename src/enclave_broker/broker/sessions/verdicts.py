"""The words for ends that a script did not choose, and the codes that it can't choose either."""

from __future__ import annotations

from enclave_broker.broker.sessions.hints import hint_of
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.messages import ScriptFailure, Verdict
from enclave_broker.types.results import ScriptError

__all__ = ["STUCK", "failure_of", "script_error", "verdict_error"]

STUCK = "the script waits for a promise that nothing can settle any more"

NOT_THE_SCRIPTS = frozenset(
    {
        "SESSION_EXPIRED",
        "SESSION_CANCELLED",
        "DEADLINE_EXCEEDED",
        "MEMORY_LIMIT",
        "CPU_LIMIT",
        "STDOUT_LIMIT",
        "LOG_LIMIT",
        "CODE_TOO_LARGE",
        "RUNTIME_LOST",
        "NONDETERMINISTIC",
        "ENGINE_CHANGED",
        "SHUTTING_DOWN",
        "INTERNAL_ERROR",
        "OVERLOADED",
    }
)
"""Verdicts of the broker. A script that throws an error with such a code has failed by itself: EXECUTION_ERROR."""


def verdict_error(verdict: Verdict, limits: SessionLimits) -> ScriptError:
    """The error of a run that was ended from outside."""
    match verdict:
        case Verdict.MEMORY_LIMIT:
            message = f"the script needed more than the {limits.max_memory_bytes} bytes of max_memory_bytes"
            return ScriptError(code="MEMORY_LIMIT", message=message)
        case Verdict.CPU_LIMIT:
            message = f"the script used more than the {limits.cpu_time:g} s of cpu_time"
            return ScriptError(code="CPU_LIMIT", message=message)
        case Verdict.STDOUT_LIMIT:
            message = f"the script printed more than the {limits.max_stdout_bytes} bytes of max_stdout_bytes"
            return ScriptError(code="STDOUT_LIMIT", message=message)
        case Verdict.HOST_MEMORY:
            return ScriptError(code="RUNTIME_LOST", message="the host had no memory for the script")
        case _:
            return ScriptError(code="RUNTIME_LOST", message="the engine stopped on a fault of its own")


def script_error(failure: ScriptFailure) -> ScriptError:
    """The error of a script that failed by itself."""
    code, message, stack = failure.code, failure.message, failure.stack
    if not code and (hint := hint_of(message)) is not None:
        taught = f"{message}; {hint}"
        message, stack = taught, stack and stack.replace(message, taught, 1)
    return ScriptError(
        code="EXECUTION_ERROR" if not code or code in NOT_THE_SCRIPTS else code,
        message=message,
        name=failure.name,
        line=failure.line,
        column=failure.column,
        stack=stack,
        details=failure.details,
    )


def failure_of(code: str, message: str) -> ScriptFailure:
    return ScriptFailure(message=message, code=code)
