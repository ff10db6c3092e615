"""The public surface is a decision: a name comes or goes by an edit here, too."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import enclave_broker
from enclave_broker.types import errors, events

PUBLIC = {
    "AccessController",
    "AccessDeniedError",
    "ApiKeys",
    "Approval",
    "ApprovalDeniedError",
    "ApprovalExpiredError",
    "AsyncClient",
    "AuthenticationError",
    "Broker",
    "Cache",
    "CallNext",
    "CallRecord",
    "CatalogChangedEvent",
    "CircuitBreaker",
    "Client",
    "ClientError",
    "ClosedError",
    "ConcurrencyLimit",
    "ConfigurationError",
    "DeadlineExceededEvent",
    "Decision",
    "EnclaveError",
    "Env",
    "ErrorEvent",
    "ExecutionError",
    "ExecutionResult",
    "File",
    "FinalEvent",
    "HeartbeatEvent",
    "Jwt",
    "LimitDecision",
    "LogCalls",
    "LogEvent",
    "MaxToolCallsError",
    "MemoryStore",
    "OutcomeUnknownError",
    "OverloadedError",
    "PartialResultEvent",
    "PermissionDeniedError",
    "Principal",
    "PrincipalLimits",
    "QuotaInfo",
    "RateLimit",
    "RateLimitError",
    "RateLimiter",
    "Redact",
    "Retry",
    "Rule",
    "RuntimeLostError",
    "ScriptError",
    "SecretError",
    "Session",
    "SessionClosedError",
    "SessionError",
    "SessionExistsError",
    "SessionInitEvent",
    "SessionLimits",
    "SessionManager",
    "SessionNotFoundError",
    "SessionState",
    "Stage",
    "StdoutEvent",
    "StoreError",
    "Timeout",
    "Tool",
    "ToolCall",
    "ToolCallEvent",
    "ToolContext",
    "ToolError",
    "ToolNotAllowedError",
    "ToolProgressEvent",
    "ToolResultAppliedEvent",
    "ToolResultTooLargeError",
    "ToolRouter",
    "ToolTimeoutError",
    "ToolValidationError",
    "TransportError",
    "UnknownToolError",
    "create_session",
}

HOMES: dict[str, str] = {name: f"enclave_broker.{home}" for name, home in vars(enclave_broker)["_HOMES"].items()}


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(enclave_broker.__all__) == PUBLIC
    assert len(enclave_broker.__all__) == len(PUBLIC)


def test_every_public_name_has_a_home() -> None:
    assert set(HOMES) == PUBLIC


@pytest.mark.parametrize(("name", "home"), HOMES.items())
def test_a_public_name_is_what_its_home_exports(name: str, home: str) -> None:
    module = import_module(home)
    assert getattr(enclave_broker, name) is getattr(module, name)
    assert name in module.__all__


def test_a_type_checker_is_told_the_same_homes() -> None:
    tree = ast.parse(Path(enclave_broker.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == HOMES


def test_all_errors_and_events_are_public() -> None:
    for module, root in ((errors, errors.EnclaveError), (events, events.Event)):
        defined = {
            name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, root)
        } - {"Event"}
        assert defined <= PUBLIC


def test_the_public_names_are_listed_by_dir() -> None:
    assert set(dir(enclave_broker)) >= PUBLIC


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'enclave_broker' has no attribute 'Brokr'"):
        getattr(enclave_broker, "Brokr")  # noqa: B009 a plain access is refused by the type checker
