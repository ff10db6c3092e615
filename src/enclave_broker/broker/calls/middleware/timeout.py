"""Timeout: how long what it stands before may take. One attempt if it is inside Retry, all of them if outside.

Time spent waiting for a person is in no time-out: middleware begins only after that.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ToolTimeoutError
from enclave_broker.types.limits import seconds

__all__ = ["Timeout"]


class Timeout:
    """Raises ToolTimeoutError when the rest has not ended within `timeout` seconds, even if its result comes later.

    An async handler is cancelled; one that ignores that is waited for, until the call's own deadline. A `def` handler
    goes on in its thread, and nobody waits for it any more: whether a `write` took effect is then not known.
    """

    def __init__(self, timeout: float | timedelta) -> None:
        self._timeout = seconds(timeout, "Timeout: timeout")

    def __repr__(self) -> str:
        return f"Timeout({self._timeout:g})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        # By the rules of asyncio.timeout(), which costs two thirds more.
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        expired = False

        def ring() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        alarm = asyncio.get_running_loop().call_later(self._timeout, ring)
        try:
            value = await call_next(call)
        except BaseException as error:
            alarm.cancel()
            if not expired:
                raise
            others = task.uncancel() > cancelling  # who asked for its cancellation, too
            if isinstance(error, Exception) or (isinstance(error, asyncio.CancelledError) and not others):
                raise self._error(call) from error
            raise
        alarm.cancel()
        if expired:  # the handler made a result of its cancellation
            task.uncancel()
            raise self._error(call)
        return value

    def _error(self, call: ToolCall) -> ToolTimeoutError:
        return ToolTimeoutError(f"tool {call.name!r} did not finish within {self._timeout:g} s")
