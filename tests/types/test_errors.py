from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from enclave_broker.types import errors
from enclave_broker.types.errors import (
    RESERVED_CODES,
    ApprovalDeniedError,
    ClientError,
    ConfigurationError,
    EnclaveError,
    ExecutionError,
    FieldError,
    OverloadedError,
    RateLimitError,
    SessionError,
    ToolError,
    ToolValidationError,
    TransportError,
    code_of_handler,
)

ALL = [
    kind
    for _, kind in sorted(vars(errors).items())
    if inspect.isclass(kind) and issubclass(kind, EnclaveError) and kind is not ExecutionError
]


def test_every_error_is_one_of_the_tree_and_public() -> None:
    assert {kind.__name__ for kind in ALL} | {"ExecutionError"} <= set(errors.__all__)
    drawn = inspect.getdoc(errors) or ""
    assert [kind.__name__ for kind in ALL if kind.__name__ not in drawn] == []


def test_the_codes_are_those_of_the_wire() -> None:
    codes = {kind.__name__: kind("x").code for kind in ALL}
    assert codes == {
        "AccessDeniedError": "ACCESS_DENIED",
        "ApprovalDeniedError": "APPROVAL_DENIED",
        "ApprovalExpiredError": "APPROVAL_EXPIRED",
        "AuthenticationError": "UNAUTHENTICATED",
        "ClientError": "CLIENT_ERROR",
        "ClosedError": "SHUTTING_DOWN",
        "ConfigurationError": "CONFIGURATION_ERROR",
        "EnclaveError": "INTERNAL_ERROR",
        "MaxToolCallsError": "MAX_TOOL_CALLS",
        "OutcomeUnknownError": "OUTCOME_UNKNOWN",
        "OverloadedError": "OVERLOADED",
        "PermissionDeniedError": "FORBIDDEN",
        "RateLimitError": "RATE_LIMITED",
        "RuntimeLostError": "RUNTIME_LOST",
        "SecretError": "SECRET_ERROR",
        "SessionClosedError": "SESSION_CLOSED",
        "SessionError": "SESSION_CLOSED",
        "SessionExistsError": "SESSION_EXISTS",
        "SessionNotFoundError": "NOT_FOUND",
        "StoreError": "INTERNAL_ERROR",
        "ToolError": "EXECUTION_ERROR",
        "ToolNotAllowedError": "TOOL_NOT_ALLOWED",
        "ToolResultTooLargeError": "TOOL_RESULT_TOO_LARGE",
        "ToolTimeoutError": "TOOL_TIMEOUT",
        "ToolValidationError": "VALIDATION_ERROR",
        "TransportError": "TRANSPORT_ERROR",
        "UnknownToolError": "UNKNOWN_TOOL",
    }
    assert {kind("x").code for kind in ALL if issubclass(kind, ToolError)} <= RESERVED_CODES


@pytest.mark.parametrize("kind", ALL)
def test_an_error_shows_its_message_and_survives_pickling(kind: type[EnclaveError]) -> None:
    error = kind("what happened", code="MINE", details={"a": 1})
    again = pickle.loads(pickle.dumps(error))
    for each in (error, again):
        assert type(each) is kind
        assert (str(each), each.message, each.code, each.details) == (
            "what happened",
            "what happened",
            "MINE",
            {"a": 1},
        )


def test_an_error_keeps_what_is_its_own() -> None:
    for error in (
        RateLimitError("x", retry_after=2.5),
        OverloadedError("x", retry_after=2.5),
    ):
        assert pickle.loads(pickle.dumps(error)).retry_after == 2.5
    assert ApprovalDeniedError("x", reason="too much").reason == "too much"
    assert ToolValidationError("x", errors=[FieldError("a", "is missing")]).errors == (FieldError("a", "is missing"),)
    assert ClientError("x", status_code=503).status_code == 503
    assert TransportError("x").status_code is None


def test_families_can_be_caught_together() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(RateLimitError, ToolError)
    assert issubclass(OverloadedError, SessionError)
    assert issubclass(TransportError, ClientError)
    assert not issubclass(ClientError, ToolError)


def test_an_execution_error_carries_the_result_and_speaks_for_its_error() -> None:
    result = SimpleNamespace(status="failed", error=SimpleNamespace(code="CPU_LIMIT", message="too long", details=None))
    error = ExecutionError(result)
    assert (str(error), error.code, error.result) == ("too long", "CPU_LIMIT", result)
    assert pickle.loads(pickle.dumps(error)).result == result
    cancelled = ExecutionError(SimpleNamespace(status="cancelled", error=None))
    assert (str(cancelled), cancelled.code) == ("the script is cancelled", "EXECUTION_ERROR")


@pytest.mark.parametrize("code", [*sorted(RESERVED_CODES), "", "A B", "A\n", "Ä", "X" * 129])
def test_a_handler_can_not_take_a_code_of_the_wire_nor_an_odd_one(code: str) -> None:
    assert code_of_handler(code) == "EXECUTION_ERROR"


@pytest.mark.parametrize("code", ["REFUND_REFUSED", "NOT_FOUND", "rate_limited", "a.b-c", "X" * 128])
def test_a_handlers_own_code_passes_as_it_is(code: str) -> None:
    assert code_of_handler(code) == code


def test_errors_load_no_pydantic() -> None:
    program = (
        "import sys, enclave_broker.types.errors; assert not {'pydantic', 'pydantic_core', 'asyncio'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
