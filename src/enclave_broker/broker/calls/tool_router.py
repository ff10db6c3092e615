"""A router whose host calls tools by name, without a session: the steps of the chain that need none, in its order.

    route → requires_auth → validate → charge → middleware[ arguments changed? validate → handler → result limits ]

There is no allow-list, access rule, approval, record or secret here. It stands in calls/ because it charges and wraps;
all else of a router is tools/router.py, which knows nothing of calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from pydantic import TypeAdapter

from enclave_broker.broker.calls.middleware.compose import check_middleware, compose
from enclave_broker.broker.calls.rate_limit import RateLimit, RateLimiter, charge_id_of, refusal
from enclave_broker.broker.calls.secrets import Secrets
from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.broker.tools.router import Router
from enclave_broker.broker.tools.routes import Route, unknown_tool
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.values import dump_result
from enclave_broker.types.bounded_json import WireError, WireSizeError, encode_json
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import (
    AccessDeniedError,
    ConfigurationError,
    SecretError,
    ToolError,
    ToolTimeoutError,
    ToolValidationError,
    code_of_handler,
)
from enclave_broker.types.ids import new_call_id
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.principal import ANONYMOUS, Principal

__all__ = ["ToolRouter"]

log = logging.getLogger("enclave_broker.calls")

_LIMITS = SessionLimits()  # sizes and times of a call are those of any session
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class ToolRouter(Router):
    """Routes from names and patterns to handlers: `register` for patterns, `tool` for typed functions.

    Given to a broker it is the broker's own; it may change while sessions are open. Raises ConfigurationError for a
    `prefix`, which is put before every pattern registered here, that no name begins with.
    """

    def __init__(self, *, prefix: str = "") -> None:
        super().__init__(prefix=prefix)
        self.limiter = RateLimiter()
        """Where `execute` charges the routes' limits. A broker that has the router puts one over its own counters."""
        self.secrets: Secrets | None = None
        """Those of the broker that has the router: no route may ask for others."""
        self._threads = HandlerThreads()

    def check(self, route: Route) -> None:
        limit = route.rate_limit
        if limit is not None and not isinstance(limit, RateLimit):
            raise ConfigurationError(
                f"route {route.pattern}: rate_limit is a RateLimit, such as RateLimit(100, 60.0), not {limit!r}"
            )
        check_middleware(route.middleware, f"route {route.pattern}")
        if self.secrets is not None and route.secrets:
            self.secrets.check(f"route {route.pattern}", route.secrets)

    def _is_open(self, name: str) -> bool:
        route = self.match(name)
        return route is not None and not route.requires_auth

    async def execute(self, name: str, args: dict[str, Any], *, principal: Principal | None = None) -> Any:
        """Call a tool; its result as JSON values. No session is asked: no allow-list, access rule or approval holds.

        The arguments are validated, `requires_auth` refuses without a principal that is known, the route's limit is
        charged, its middleware runs. A handler has its tool's `timeout`, else 30 s. Raises ToolError with the wire's
        code; SecretError for tools that declare secrets, which only a broker has. Cancelling is safe, as in a session.
        """
        if principal is not None and not isinstance(principal, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"principal is a Principal, not {principal!r}")
        caller = principal or ANONYMOUS
        route = self.match(name)
        if route is None:
            names = self.table.names()
            raise unknown_tool(
                name, names if not caller.is_anonymous else [each for each in names if self._is_open(each)]
            )
        if route.requires_auth and caller.is_anonymous:
            raise AccessDeniedError(f"tool {name!r} wants to know who is asking: give a principal")
        args_json = _args_json(args)
        call = ToolCall(
            id=new_call_id(os.urandom),
            name=name,
            args=msgspec.json.decode(args_json),
            principal=caller,
            effect=route.effect,
        )
        start = _Start(route, call, args_json, self._threads)
        await self._charge(call, route, start)
        return await _answer(route, call, start)

    async def _charge(self, call: ToolCall, route: Route, start: _Start) -> None:
        if route.rate_limit is not None:
            asks = self.limiter.asks(call.name, route.rate_limit)
            asked = call.replace(args=start.arguments) if asks else call
            charges = self.limiter.plan(asked, route.pattern, route.rate_limit)
            decision = await self.limiter.counters.take(charges, charge_id_of(call))
            if not decision.allowed:
                raise refusal(call.name, decision)


async def _answer(route: Route, call: ToolCall, start: _Start) -> Any:
    """What the middleware makes of the handler's result. Whatever nobody raised on purpose is only in the log."""
    try:
        value = await compose(route.middleware, start)(call)
        if not route.middleware:
            return value
        return msgspec.json.decode(dump_result(_ANYTHING, value, _LIMITS.max_tool_result_bytes, call.name))
    except ToolError:
        raise
    except Exception as error:
        error_id = secrets.token_hex(6)
        log.exception("tool %s failed (error id %s)", call.name, error_id)
        raise ToolError(f"tool {call.name!r} failed (error id {error_id})") from error


class _Start:
    """The innermost: runs the handler, a `write` once."""

    def __init__(self, route: Route, call: ToolCall, args_json: bytes, threads: HandlerThreads) -> None:
        """Raises ToolError for what can't be started here."""
        self._tool = route.tool
        self._args_json = args_json
        self._validated = route.tool.validate(args_json, name=call.name)
        self._threads = threads
        self._started = False
        if route.secrets:
            raise SecretError(f"tool {call.name!r} declares secrets: only a broker has them")
        if route.tool.is_client:
            raise ToolError(f"tool {call.name!r} is executed by the client of a session, and here is none")

    @property
    def arguments(self) -> dict[str, Any]:
        """As the tool takes them, defaults and all."""
        return self._tool.arguments(self._validated)

    async def __call__(self, call: ToolCall) -> Any:
        tool, name = self._tool, call.name
        validated, args_json = self._validated, _args_json(call.args)
        if args_json != self._args_json:
            validated = tool.validate(args_json, name=name)
        if self._started and tool.effect == "write":
            raise ToolError(f"tool {name!r} writes: it isn't started a second time by one call")
        self._started = True
        timeout = tool.timeout or _LIMITS.tool_timeout
        timer = asyncio.timeout(timeout)
        context = _context(call, timeout) if tool.takes_context else None
        try:
            async with timer:
                result = await tool.invoke(name, validated, context, self._threads)
        except ToolError as error:  # a handler speaks for itself, never with a code of the broker's
            raise ToolError(error.message, code=code_of_handler(error.code), details=error.details) from error
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise ToolTimeoutError(f"tool {name!r} did not finish within {timeout:g} s") from error
        return msgspec.json.decode(tool.dump(result, _LIMITS.max_tool_result_bytes, name=name))


def _args_json(args: dict[str, Any]) -> bytes:
    if not isinstance(args, dict):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ToolValidationError(f"invalid arguments: they are an object, not {type(args).__name__}")
    try:
        return encode_json(args, _LIMITS.max_tool_args_bytes)
    except WireSizeError as error:
        raise ToolError(f"the arguments: {error}", code="ARGUMENTS_TOO_LARGE") from error
    except WireError as error:
        raise ToolValidationError(f"invalid arguments: {error}") from error


def _context(call: ToolCall, timeout: float) -> ToolContext:
    return ToolContext(
        session_id="",
        call_id=call.id,
        idempotency_key=call.id,
        tool_name=call.name,
        principal=call.principal,
        deadline=datetime.now(UTC) + timedelta(seconds=timeout),
    )
