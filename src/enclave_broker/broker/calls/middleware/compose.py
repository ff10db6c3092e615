"""From a list of middleware to one function around the handler. Owns what a middleware is and what it may change.

Not here: what it may cost, what its arguments and results must be (the chain validates, checks and bounds them), and
whether a handler may start again (the innermost decides).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError

__all__ = ["CallNext", "Middleware", "check_middleware", "compose"]

CallNext = Callable[[ToolCall], Awaitable[Any]]
"""Takes the call on. It may be awaited never, once or more often; a second start of a `write` is refused there."""

Middleware = Callable[[ToolCall, CallNext], Awaitable[Any]]
"""What it returns is what the script gets: anything that can be JSON, `await call_next(call)` or something else."""


def check_middleware(middleware: object, owner: str = "middleware") -> tuple[Middleware, ...]:
    """The middleware of a list or tuple, outermost first.

    Each is an async function of `(call, call_next)`, or an object whose `__call__` is one. Raises ConfigurationError
    that names `owner` for everything else.
    """
    if not isinstance(middleware, list | tuple):
        raise ConfigurationError(f"{owner}: middleware is a list, even of one, not {middleware!r}")
    given = cast("Sequence[Any]", middleware)
    for each in given:
        if (fault := _fault(each)) is not None:
            raise ConfigurationError(f"{owner}: {each!r} is no middleware: {fault}")
    return tuple(given)


def compose(middleware: Sequence[Middleware], innermost: CallNext) -> CallNext:
    """One function that takes a call through all of them, outer to inner, to `innermost`.

    They were checked by `check_middleware`. Without any it is `innermost` itself. Each may hand on the call with other
    arguments; ValueError for one that differs in anything else, so that what the policy has judged is what runs, and
    what a middleware further in keeps by name or principal is that of this call.
    """
    for each in reversed(middleware):
        innermost = _around(each, innermost)
    return innermost


def _around(middleware: Middleware, following: CallNext) -> CallNext:
    def enter(call: ToolCall) -> Awaitable[Any]:
        def call_next(handed_on: ToolCall) -> Awaitable[Any]:
            if handed_on is not call:
                _check_same(call, handed_on)
            return following(handed_on)

        return middleware(call, call_next)

    return enter


def _check_same(call: ToolCall, handed_on: ToolCall) -> None:
    for name in ("name", "id", "session_id", "principal", "effect"):
        if getattr(handed_on, name) != getattr(call, name):
            raise ValueError(
                f"a middleware changed the {name} of a call to {call.name!r}: it may change arguments only"
            )


def _fault(middleware: Any) -> str | None:
    """Why it can't be called as one; None if it can."""
    if isinstance(middleware, type):
        return f"it is a class; an object of it is written {middleware.__name__}(...)"
    function: Any = cast("Any", middleware).func if isinstance(middleware, functools.partial) else middleware
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 it is asked whether it is async
    ):
        return "it is written `async def mw(call, call_next)`"
    try:
        inspect.signature(cast("Any", middleware)).bind(None, None)
    except TypeError as error:
        return f"it is called with (call, call_next), but {error}"
    return None
