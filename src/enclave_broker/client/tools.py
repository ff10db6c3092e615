"""Tools that the client executes: which there are, how one runs, and how its outcome reaches the server.

A call comes as a `tool_call` event and is answered by POST …/tool-result; the first answer counts. streams.py calls.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

import msgspec
import pydantic_core

from enclave_broker.client.server import Server
from enclave_broker.stream.reconnect import Backoff, BackoffOptions
from enclave_broker.types.errors import (
    ClientError,
    ConfigurationError,
    ToolError,
    TransportError,
    code_of_handler,
)
from enclave_broker.types.events import ToolCallEvent

__all__ = ["ClientTools", "answer_call"]

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("enclave_broker.client")


class ClientTools:
    """Functions by tool name, as a client's `tool` has collected them."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}

    def add(self, name: str) -> Callable[[F], F]:
        """A decorator. Raises ConfigurationError for a name that is taken or none."""
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f'a tool of the client needs its name, as in @client.tool("files:read"): {name!r}')
        if name in self._functions:
            raise ConfigurationError(f"the client has a tool {name!r} already")

        def register(function: F) -> F:
            self._functions[name] = function
            return function

        return register

    def get(self, name: str) -> Callable[..., Any] | None:
        return self._functions.get(name)


async def answer_call(
    server: Server, function: Callable[..., Any], event: ToolCallEvent, backoff: BackoffOptions, random: Random
) -> None:
    """Run the tool and tell the server. What can't be told is logged: the call then ends by its own timeout there."""
    body = await _outcome(function, event)
    tries = Backoff(backoff)
    while True:
        try:
            await server.answer(event.session_id, body)
        except TransportError as error:
            delay = tries.next(random.random())
            if delay is None:
                _log.warning("the result of %s can't be sent: %s", event.tool_name, error)
                return
            await asyncio.sleep(delay)
        except ClientError as error:
            if error.status_code in {404, 409}:  # it has its outcome, or its session is over
                _log.info("nobody waits for the result of %s: %s", event.tool_name, error)
                return
            if not body["ok"]:
                _log.warning("the failure of %s was refused: %s", event.tool_name, error)
                return
            code = "TOOL_RESULT_TOO_LARGE" if error.status_code == 413 else "EXECUTION_ERROR"
            body = _failure(event, f"the result of tool {event.tool_name} was refused: {error.message}", code)
        else:
            return


async def _outcome(function: Callable[..., Any], event: ToolCallEvent) -> Mapping[str, Any]:
    try:
        value = await _call(function, event.args)
        result = msgspec.Raw(pydantic_core.to_json(value, inf_nan_mode="null"))
    except ToolError as error:
        return _failure(event, error.message, code_of_handler(error.code), error.details)
    except Exception:  # noqa: BLE001 the tool's boundary
        error_id = secrets.token_hex(6)
        _log.exception("tool %s failed (error id %s)", event.tool_name, error_id)
        return _failure(event, f"tool {event.tool_name} failed (error id {error_id})", "EXECUTION_ERROR")
    return {"callId": event.call_id, "ok": True, "result": result}


async def _call(function: Callable[..., Any], args: dict[str, Any]) -> Any:
    given: dict[str, Any] = {"args": args} if [*inspect.signature(function).parameters] == ["args"] else args
    if inspect.iscoroutinefunction(function):
        return await function(**given)
    value = await asyncio.to_thread(function, **given)
    return await value if inspect.isawaitable(value) else value


def _failure(event: ToolCallEvent, message: str, code: str, details: Any = None) -> Mapping[str, Any]:
    error = {"message": message, "code": code} | ({"details": details} if details is not None else {})
    return {"callId": event.call_id, "ok": False, "error": error}
