"""The innermost part of the chain: ask for secrets, run the handler within its time, scrub and bound its result.

Audit before effect: the record that a handler starts is durable before it does. A handler that doesn't end on its
cancellation is abandoned; its caller has the outcome in time all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from enclave_broker.broker.calls.call import Call, CallState, Outcome
from enclave_broker.broker.calls.secrets import Secrets
from enclave_broker.broker.tools.context import LogLine, Progress, ToolContext
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.values import check_length
from enclave_broker.broker.wheel import TICK, Alarm, Wheel
from enclave_broker.types.errors import RateLimitError, ToolError, ToolTimeoutError, code_of_handler
from enclave_broker.types.results import ScriptError

__all__ = ["Handler", "start_of"]

log = logging.getLogger("enclave_broker.calls")

_NO_SECRETS: Mapping[str, str] = MappingProxyType({})


def start_of(call: Call) -> str:
    """Count the attempt that is about to be recorded; the hash of its effective arguments."""
    call.attempt += 1
    call.state = CallState.STARTED
    return hashlib.sha256(call.args_json).hexdigest()


class Handler:
    """Runs the tool: `tool_timeout` bounds one attempt, `per_tool_deadline` the call."""

    def __init__(self, wheel: Wheel, threads: HandlerThreads, secrets: Secrets) -> None:
        self._wheel = wheel
        self._threads = threads
        self._secrets = secrets
        self._loop = asyncio.get_running_loop()

    def expect(self, call: Call) -> Alarm:
        """The call's time begins, unless it has begun: with its handler, or when it has to wait before that."""
        if call.alarm is None:
            timeout = _seconds(call)
            call.alarm = self._wheel.after(timeout, partial(_timed_out, call, timeout))
        return call.alarm

    def expect_whole(self, call: Call) -> None:
        """The time of the call with all its attempts begins."""
        timeout = call.caller.limits.per_tool_deadline
        if call.alarm is None and call.tool is not None and not call.tool.is_client:
            call.alarm = self._wheel.after(timeout, partial(_timed_out, call, timeout))

    def attempt(self, call: Call) -> Awaitable[None]:
        """One attempt, as middleware sees it: a time-out is raised, and so is whatever the handler raises."""
        assert call.tool is not None
        return self._with_secrets(call, self._attempt) if call.tool.secrets else self._attempt(call)

    def __call__(self, call: Call) -> Awaitable[None]:
        """The only attempt of a call without middleware."""
        assert call.tool is not None
        return self._with_secrets(call, self._run) if call.tool.secrets else self._run(call)

    async def _with_secrets(self, call: Call, run: Callable[[Call], Awaitable[None]]) -> None:
        """The tool has them for this attempt, and nothing that comes of it holds one."""
        tool, before = call.tool, call.revealed
        assert tool is not None
        self.expect(call)
        call.step = "secrets"
        call.revealed = await self._secrets.reveal(call.name, tool.secrets, before and before.scrubber)
        call.step = "handler"
        scrubber = call.revealed.scrubber
        try:
            await run(call)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 raised below
            failure = scrubber.error(error)
        else:
            call.result = scrubber.json(call.result)
            check_length(call.result, call.caller.limits.max_tool_result_bytes, call.name)
            return
        raise failure  # out here: what it was made of is not its context

    async def _attempt(self, call: Call) -> None:
        tool, timeout = call.tool, _seconds(call)
        assert tool is not None
        if tool.is_client:
            self.expect(call)
            call.caller.waits_outside(call)
            await call.wait()
            return
        context = _context(call, timeout) if tool.takes_context else None
        clock = _Clock(self._loop, timeout)
        try:
            result = await tool.invoke(call.name, call.validated, context, self._threads)
        except ToolError as error:
            clock.stop()
            raise _of_handler(error) from error
        except BaseException as error:
            if clock.stop(error):
                raise _timeout(call, timeout) from error
            raise
        clock.stop()
        call.result = tool.dump(result, call.caller.limits.max_tool_result_bytes, name=call.name)

    async def _run(self, call: Call) -> None:
        tool, limits = call.tool, call.caller.limits
        assert tool is not None
        alarm = self.expect(call)
        if tool.is_client:
            call.caller.waits_outside(call)
            await call.wait()
            return
        try:
            context = _context(call, alarm.when - self._loop.time()) if tool.takes_context else None
            result = await tool.invoke(call.name, call.validated, context, self._threads)
        except ToolError as error:
            self._refuse_late(call, alarm)
            raise _of_handler(error) from error
        except Exception:
            self._refuse_late(call, alarm)
            raise
        self._refuse_late(call, alarm)
        call.result = tool.dump(result, limits.max_tool_result_bytes, name=call.name)

    def _refuse_late(self, call: Call, alarm: Alarm) -> None:
        """The handler's time is over, though the alarm has not rung."""
        late = self._loop.time() - alarm.when
        if late > 0 and not call.is_settled:
            if late > TICK:  # by then the alarm would have rung
                words = "tool %s blocked the event loop for %.1f s; a function that blocks has to be a `def`"
                log.error(words, call.name, late + _seconds(call))
            raise _timeout(call, _seconds(call))


class _Clock:
    """Cancels the current task in so many seconds. By the rules of asyncio.timeout(), which costs three times this."""

    __slots__ = ("_cancelling", "_expired", "_task", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self._timer = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._expired = True
        self._task.cancel()

    def stop(self, error: BaseException | None = None) -> bool:
        """Whether the error that has ended the wait is its doing."""
        self._timer.cancel()
        if not self._expired:
            return False
        others = self._task.uncancel() > self._cancelling  # who asked for its cancellation, too
        return isinstance(error, TimeoutError) or (isinstance(error, asyncio.CancelledError) and not others)


def _of_handler(error: ToolError) -> ToolError:
    """A handler speaks for itself, never with a code of the broker's; when to try again stays known."""
    code = code_of_handler(error.code)
    if isinstance(error, RateLimitError):
        return RateLimitError(error.message, retry_after=error.retry_after, code=code, details=error.details)
    return ToolError(error.message, code=code, details=error.details)


def _seconds(call: Call) -> float:
    """How long the call may take. A client's tool has its own time."""
    tool, limits = call.tool, call.caller.limits
    assert tool is not None
    timeout = tool.timeout or limits.tool_timeout
    return timeout if tool.is_client else min(timeout, limits.per_tool_deadline)


def _timeout(call: Call, timeout: float) -> ToolTimeoutError:
    return ToolTimeoutError(f"tool {call.name!r} did not finish within {timeout:g} s")


def _timed_out(call: Call, timeout: float) -> None:
    error = _timeout(call, timeout)
    outcome = Outcome(error=ScriptError(code=error.code, message=error.message, name="ToolError"), rule="timeout")
    if call.settle(outcome):
        call.stop()


def _context(call: Call, timeout: float) -> ToolContext:
    caller, revealed = call.caller, call.revealed

    async def sink(item: Progress | LogLine) -> None:
        told = item if revealed is None else revealed.scrubber.told(item)
        if told is not None:
            caller.told(call, told)

    return ToolContext(
        session_id=caller.id,
        call_id=call.id,
        idempotency_key=call.id,
        tool_name=call.name,
        principal=caller.principal,
        deadline=datetime.fromtimestamp(caller.now() + timeout, UTC),
        metadata=caller.metadata,
        secrets=_NO_SECRETS if revealed is None else revealed.values,
        sink=sink,
    )
