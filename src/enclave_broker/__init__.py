"""Runs the code that a language model writes, and routes every tool call it makes through your policy.

This module owns the public names and nothing else. It is lazy (PEP 562): a worker process imports the package too, and
must not hold a broker. `_HOMES` says where a name lives, the imports below say the same to a type checker, and a test
holds the two together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
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
]

if TYPE_CHECKING:
    from enclave_broker.broker.broker import Broker, create_session
    from enclave_broker.broker.calls.access import AccessController, Decision, Rule
    from enclave_broker.broker.calls.middleware.cache import Cache
    from enclave_broker.broker.calls.middleware.circuit_breaker import CircuitBreaker
    from enclave_broker.broker.calls.middleware.compose import CallNext
    from enclave_broker.broker.calls.middleware.concurrency_limit import ConcurrencyLimit
    from enclave_broker.broker.calls.middleware.log_calls import LogCalls
    from enclave_broker.broker.calls.middleware.redact import Redact
    from enclave_broker.broker.calls.middleware.retry import Retry
    from enclave_broker.broker.calls.middleware.timeout import Timeout
    from enclave_broker.broker.calls.rate_limit import RateLimit, RateLimiter
    from enclave_broker.broker.calls.secrets import Env, File
    from enclave_broker.broker.calls.tool_router import ToolRouter
    from enclave_broker.broker.http.api_keys import ApiKeys
    from enclave_broker.broker.http.jwt_auth import Jwt
    from enclave_broker.broker.sessions.manager import SessionManager
    from enclave_broker.broker.sessions.session import Session
    from enclave_broker.broker.store.counters import LimitDecision, QuotaInfo
    from enclave_broker.broker.store.memory import MemoryStore
    from enclave_broker.broker.tools.context import ToolContext
    from enclave_broker.broker.tools.tool import Tool
    from enclave_broker.client.async_client import AsyncClient
    from enclave_broker.client.client import Client
    from enclave_broker.types.approval import Approval
    from enclave_broker.types.calls import ToolCall
    from enclave_broker.types.errors import (
        AccessDeniedError,
        ApprovalDeniedError,
        ApprovalExpiredError,
        AuthenticationError,
        ClientError,
        ClosedError,
        ConfigurationError,
        EnclaveError,
        ExecutionError,
        MaxToolCallsError,
        OutcomeUnknownError,
        OverloadedError,
        PermissionDeniedError,
        RateLimitError,
        RuntimeLostError,
        SecretError,
        SessionClosedError,
        SessionError,
        SessionExistsError,
        SessionNotFoundError,
        StoreError,
        ToolError,
        ToolNotAllowedError,
        ToolResultTooLargeError,
        ToolTimeoutError,
        ToolValidationError,
        TransportError,
        UnknownToolError,
    )
    from enclave_broker.types.events import (
        CatalogChangedEvent,
        DeadlineExceededEvent,
        ErrorEvent,
        FinalEvent,
        HeartbeatEvent,
        LogEvent,
        PartialResultEvent,
        SessionInitEvent,
        StdoutEvent,
        ToolCallEvent,
        ToolProgressEvent,
        ToolResultAppliedEvent,
    )
    from enclave_broker.types.limits import SessionLimits
    from enclave_broker.types.principal import Principal
    from enclave_broker.types.principal_limits import PrincipalLimits
    from enclave_broker.types.results import CallRecord, ExecutionResult, ScriptError, SessionState, Stage
else:  # out of a type checker's sight, or every misspelt name would pass as an object
    _HOMES = {
        "AccessController": "broker.calls.access",
        "Rule": "broker.calls.access",
        "Decision": "broker.calls.access",
        "RateLimit": "broker.calls.rate_limit",
        "RateLimiter": "broker.calls.rate_limit",
        "LimitDecision": "broker.store.counters",
        "QuotaInfo": "broker.store.counters",
        "Env": "broker.calls.secrets",
        "File": "broker.calls.secrets",
        "ToolRouter": "broker.calls.tool_router",
        "Timeout": "broker.calls.middleware.timeout",
        "Retry": "broker.calls.middleware.retry",
        "CircuitBreaker": "broker.calls.middleware.circuit_breaker",
        "ConcurrencyLimit": "broker.calls.middleware.concurrency_limit",
        "Cache": "broker.calls.middleware.cache",
        "Redact": "broker.calls.middleware.redact",
        "LogCalls": "broker.calls.middleware.log_calls",
        "CallNext": "broker.calls.middleware.compose",
        "AccessDeniedError": "types.errors",
        "ApiKeys": "broker.http.api_keys",
        "Jwt": "broker.http.jwt_auth",
        "Approval": "types.approval",
        "ApprovalDeniedError": "types.errors",
        "ApprovalExpiredError": "types.errors",
        "AuthenticationError": "types.errors",
        "Broker": "broker.broker",
        "CallRecord": "types.results",
        "CatalogChangedEvent": "types.events",
        "ClientError": "types.errors",
        "ClosedError": "types.errors",
        "ConfigurationError": "types.errors",
        "DeadlineExceededEvent": "types.events",
        "EnclaveError": "types.errors",
        "ErrorEvent": "types.events",
        "ExecutionError": "types.errors",
        "ExecutionResult": "types.results",
        "FinalEvent": "types.events",
        "HeartbeatEvent": "types.events",
        "LogEvent": "types.events",
        "MaxToolCallsError": "types.errors",
        "OutcomeUnknownError": "types.errors",
        "OverloadedError": "types.errors",
        "PartialResultEvent": "types.events",
        "PermissionDeniedError": "types.errors",
        "Principal": "types.principal",
        "PrincipalLimits": "types.principal_limits",
        "RateLimitError": "types.errors",
        "RuntimeLostError": "types.errors",
        "ScriptError": "types.results",
        "SecretError": "types.errors",
        "Session": "broker.sessions.session",
        "SessionManager": "broker.sessions.manager",
        "MemoryStore": "broker.store.memory",
        "AsyncClient": "client.async_client",
        "Client": "client.client",
        "SessionClosedError": "types.errors",
        "SessionError": "types.errors",
        "SessionExistsError": "types.errors",
        "SessionInitEvent": "types.events",
        "SessionLimits": "types.limits",
        "SessionNotFoundError": "types.errors",
        "SessionState": "types.results",
        "Stage": "types.results",
        "StdoutEvent": "types.events",
        "StoreError": "types.errors",
        "Tool": "broker.tools.tool",
        "ToolCall": "types.calls",
        "ToolCallEvent": "types.events",
        "ToolContext": "broker.tools.context",
        "ToolError": "types.errors",
        "ToolNotAllowedError": "types.errors",
        "ToolProgressEvent": "types.events",
        "ToolResultAppliedEvent": "types.events",
        "ToolResultTooLargeError": "types.errors",
        "ToolTimeoutError": "types.errors",
        "ToolValidationError": "types.errors",
        "TransportError": "types.errors",
        "UnknownToolError": "types.errors",
        "create_session": "broker.broker",
    }

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
