"""Middleware around a handler: what it changes is validated, checked and hashed again, and a `write` starts once.

The innermost of the chain for calls that have middleware; calls without any go straight to the handler (chain.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from pydantic import TypeAdapter

from enclave_broker.broker.calls.call import Call, encode_args
from enclave_broker.broker.calls.handler import Handler, start_of
from enclave_broker.broker.calls.middleware.compose import Middleware, compose
from enclave_broker.broker.tools.values import dump_result
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ToolError

__all__ = ["Around"]

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
_PLAIN = frozenset({str, int, float, bool})


class Around:
    """`middleware` is the broker's, outside each route's own; `judge` validates and judges changed arguments."""

    def __init__(self, middleware: tuple[Middleware, ...], handler: Handler, judge: Callable[[Call], None]) -> None:
        self._middleware = middleware
        self._handler = handler
        self._judge = judge

    def has_any(self, call: Call) -> bool:
        """Whether the call has middleware."""
        return bool(self._middleware) or (call.tool is not None and bool(call.tool.middleware))

    async def perform(self, call: Call) -> None:
        """Take the call through all of them; its `result` is set when this returns. Raises what they raise."""
        tool = call.tool
        assert tool is not None
        if call.is_settled:
            return
        self._handler.expect_whole(call)
        start = _Start(call, self._handler, self._judge)
        value = await compose(self._middleware + tool.middleware, start)(call.public())
        if call.is_settled:
            return
        call.rule = start.rule
        if not start.gave(value):
            call.result = dump_result(_ANYTHING, value, call.caller.limits.max_tool_result_bytes, call.name)


class _Start:
    """What the innermost `call_next` is: one attempt, and one at a time."""

    def __init__(self, call: Call, handler: Handler, judge: Callable[[Call], None]) -> None:
        self._call = call
        self._handler = handler
        self._judge = judge
        self.rule = call.rule
        """What has let through the arguments that the call has now."""
        self._under_way = False
        self._begun = False
        self._given: Any = self  # nothing that a middleware could return

    def gave(self, value: Any) -> bool:
        """Whether the call's `result` is this value's text; only of values that nobody can change in place."""
        return value is self._given and type(value) in _PLAIN

    async def __call__(self, asked: ToolCall) -> Any:
        call, tool = self._call, self._call.tool
        assert tool is not None
        self._check_open()
        if self._under_way:
            raise ToolError(f"tool {call.name!r} is under way: a middleware calls on again when an attempt has ended")
        if self._begun and tool.effect == "write":
            raise ToolError(f"tool {call.name!r} writes: it isn't started a second time by one call")
        self._under_way = True
        try:
            self._take(asked.args)
            return await self._attempt()
        finally:
            self._under_way = False

    async def _attempt(self) -> Any:
        call = self._call
        call.step = "started"
        self._begun = True  # whatever becomes of the record: nobody could tell
        writing = call.caller.started(call, start_of(call))
        if writing is not None:
            await writing
            self._check_open()
        call.step = "handler"
        await self._handler.attempt(call)
        self._given = value = msgspec.json.decode(call.result) if call.result else None
        return value

    def _check_open(self) -> None:
        """A call that has its outcome is never started again, though a middleware swallows its cancellation."""
        if self._call.is_settled:
            raise ToolError(f"the call of tool {self._call.name!r} is over")

    def _take(self, args: dict[str, Any]) -> None:
        """Arguments that differ from what the policy has judged, also those changed in place, are judged anew.

        A refusal leaves the call as it was.
        """
        call = self._call
        try:
            args_json = encode_args(args)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(f"a middleware gave tool {call.name!r} arguments that are no JSON") from error
        if args_json == call.args_json:
            call.rule = self.rule
            return
        limit = call.caller.limits.max_tool_args_bytes
        if len(args_json) > limit:
            raise ToolError(
                f"the arguments are over the {limit} bytes of max_tool_args_bytes", code="ARGUMENTS_TOO_LARGE"
            )
        before, validated, asking = call.args_json, call.validated, call.asking
        call.args, call.args_json = args, args_json
        try:
            self._judge(call)
        except BaseException:
            call.args, call.args_json = msgspec.json.decode(before), before
            call.validated, call.asking = validated, asking
            raise
        self.rule = call.rule
