"""Calls to send through a middleware, and handlers to put behind it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec

from enclave_broker import Principal, ToolCall
from enclave_broker.broker.calls.middleware.compose import CallNext, Middleware, check_middleware, compose
from tests.broker.sessions.support import turns

ALICE = Principal("alice", tenant="acme")
BOB = Principal("bob", tenant="acme")


def a_call(**fields: Any) -> ToolCall:
    """A call of a `read` tool by Alice; fields may differ."""
    base = ToolCall(id="c_1", name="users:get", args={"id": 7}, session_id="s_1", principal=ALICE, effect="read")
    return msgspec.structs.replace(base, **fields)


def around(innermost: CallNext, *middleware: Middleware) -> CallNext:
    """As a chain does it: checked when loaded, then composed."""
    return compose(check_middleware(list(middleware)), innermost)


class Handler:
    """An innermost that does in order what it is told: values are returned, exceptions raised, functions awaited."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[ToolCall] = []
        self.times: list[float] = []

    async def __call__(self, call: ToolCall) -> Any:
        self.calls.append(call)
        self.times.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        made: Any = outcome() if callable(outcome) else outcome
        return await made if inspect.isawaitable(made) else made


class Door:
    """A handler that stands still until the test opens it, and tells who is inside."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self._open: dict[str, asyncio.Future[Any]] = {}

    def is_open(self, call_id: str) -> bool:
        return self._open[call_id].done()

    async def __call__(self, call: ToolCall) -> Any:
        self.entered.append(call.id)
        self.inside.append(call.id)
        self._open[call.id] = asyncio.get_running_loop().create_future()
        try:
            return await self._open[call.id]
        except asyncio.CancelledError:
            self.cancelled.append(call.id)
            raise
        finally:
            self.inside.remove(call.id)

    def open(self, call_id: str, value: Any = None) -> None:
        """What is inside comes out with a value, or with an exception."""
        if isinstance(value, BaseException):
            self._open[call_id].set_exception(value)
        else:
            self._open[call_id].set_result(value)


class Records(logging.Handler):
    """What is written to a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def own_log() -> Generator[list[logging.LogRecord]]:
    """What this package writes about calls meanwhile."""
    logger = logging.getLogger("enclave_broker.calls")
    records, level = Records(), logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    try:
        yield records.records
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)


async def spawn(invoke: CallNext, call: ToolCall) -> asyncio.Task[Any]:
    """The call under way, as far as it comes without waiting."""

    async def run() -> Any:
        return await invoke(call)

    task = asyncio.get_running_loop().create_task(run())
    await turns()
    return task


async def error_of(awaitable: Awaitable[Any]) -> BaseException:
    """What was raised, which has to be something."""
    try:
        value = await awaitable
    except BaseException as error:  # noqa: BLE001 the test looks at it
        return error
    raise AssertionError(f"nothing was raised, but {value!r} returned")
