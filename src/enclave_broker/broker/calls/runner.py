"""Runs calls: one task a call, its clock, its outcome whatever happens. The owner of every handler's task.

Any exception of a handler becomes an outcome here, SystemExit and KeyboardInterrupt too, so that no tool can end the
loop. What isn't a ToolError reaches the script as an error id; the log has the rest.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextvars import Context
from typing import Any

import msgspec

from enclave_broker.broker.calls.call import Call, CallState, Outcome
from enclave_broker.broker.calls.chain import Chain
from enclave_broker.broker.calls.handler import start_of
from enclave_broker.types.bounded_json import WireError, encode_json
from enclave_broker.types.errors import RateLimitError, ToolError, retry_info
from enclave_broker.types.results import ScriptError

__all__ = ["CallRunner"]

log = logging.getLogger("enclave_broker.calls")

MAX_MESSAGE_CHARACTERS = 10_000
MAX_DETAILS_BYTES = 1 << 16
MAX_CODE_CHARACTERS = 128
MAX_DETAILS_LEVELS = 100
CLOSE_SECONDS = 1.0
"""How long closing waits for handlers that were cancelled."""


class CallRunner:
    """The calls under way of one broker."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def prepare(self, call: Call) -> str | None:
        """Take the call through the policy as far as nothing has to be awaited.

        The hash of its arguments if that was all and the broker is to start it: its start is then recorded with the
        request. Never raises: a refusal is the outcome that `start` gives.
        """
        try:
            call.pending = self._chain.admit(call)
        except BaseException as error:  # noqa: BLE001 a step of the policy's boundary
            call.refused = Outcome(error=self._explain(call, error), rule=_rule(call))
            return None
        if call.pending is not None or call.caller.is_consulted or not self._chain.is_plain(call):
            return None
        call.prepared = True
        return start_of(call)

    def start(self, call: Call) -> None:
        """Run a call that was prepared; its caller hears of the outcome, of a refusal at once."""
        if call.refused is not None:
            call.settle(call.refused)
            return
        call.task = task = self._loop.create_task(self._run(call), context=_context(call))
        self._tasks.add(task)

    def cancel(self, call: Call) -> None:
        """The session is over: the handler gets CancelledError, and there will be no outcome."""
        task = call.task
        call.cancel()
        if task is not None:
            task.add_done_callback(self._tasks.discard)  # one that hasn't begun never gets to its `finally`

    async def _run(self, call: Call) -> None:
        outcome = None
        try:
            outcome = await self._outcome(call)
        finally:
            # A done callback would be one more turn of the loop for each call.
            self._tasks.discard(call.task)  # pyright: ignore[reportArgumentType] this is it
            call.task = None
        if outcome is not None:
            call.settle(outcome)

    def perform(self, call: Call) -> asyncio.Task[Outcome | None]:
        """Run the handler of a call that its listeners are asked about, once, whoever asks."""
        if call.performing is None:
            call.performing = task = self._loop.create_task(self._performed(call), context=_context(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return call.performing

    async def _performed(self, call: Call) -> Outcome | None:
        try:
            await self._chain.perform(call)
            return Outcome(call.result, rule=call.rule)
        except asyncio.CancelledError:
            return None
        except BaseException as error:  # noqa: BLE001 a task's boundary: whatever a tool raises becomes an outcome
            return Outcome(error=self._explain(call, error), rule=_rule(call))

    @property
    def quiet(self) -> bool:
        """Whether no other call is under way, so that no other outcome can come in this loop turn."""
        return not self._tasks

    async def _outcome(self, call: Call) -> Outcome | None:
        """None: the call has one already, or wants none."""
        try:
            if call.prepared:
                if (writing := call.caller.durable()) is not None:
                    await self._chain.until_durable(call, writing)
                await self._chain.handle(call)
            else:
                if call.pending is not None:
                    await call.pending
                if call.caller.is_consulted and (writing := call.caller.durable()) is not None:
                    await self._chain.until_durable(call, writing)  # nobody hears of a call that may be lost
                if not call.is_settled and (asked := call.caller.consult(call)) is not None:
                    self._chain.expect(call)  # what listeners, or the host, take is the tool's time
                    await asked
                    if call.performing is not None and not call.is_settled:
                        return await call.performing
                if not call.is_settled:
                    await self._chain.perform(call)
            return None if call.is_settled else Outcome(call.result, None, call.rule)
        except asyncio.CancelledError:
            if call.state is CallState.SETTLED:
                return None
            message = f"tool {call.name!r} was cancelled"
            return Outcome(error=ScriptError(code="EXECUTION_ERROR", message=message, name="ToolError"))
        except BaseException as error:  # noqa: BLE001 a task's boundary: whatever a tool raises becomes an outcome
            return Outcome(error=self._explain(call, error), rule=_rule(call))

    def _explain(self, call: Call, error: BaseException) -> ScriptError:
        if isinstance(error, ToolError) and (message := _text(error.message)) is not None:
            code = error.code if _is_word(error.code) else ToolError.default_code
            return ScriptError(code=code, message=message, name="ToolError", details=_details(call, error))
        error_id = secrets.token_hex(6)
        log.error("tool %s failed (error id %s)", call.name, error_id, exc_info=error)
        message = f"tool {call.name!r} failed (error id {error_id})"
        return ScriptError(code="EXECUTION_ERROR", message=message, name="ToolError")

    async def aclose(self) -> None:
        """Cancel what runs and wait a while; handlers that resist are named in the log and left."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, resisting = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            if resisting:
                log.error("%d tool handlers ignore their cancellation and are left behind", len(resisting))


def _context(call: Call) -> Context | None:
    """What a handler traces stands below its call. None is the current one."""
    return None if call.span is None else call.span.context


_DECIDING = frozenset({"access", "quota", "approval"})
"""The steps in which a rule refuses; elsewhere the step itself is what did."""


def _rule(call: Call) -> str:
    """What has refused the call, or where it failed."""
    return call.rule if call.rule is not None and call.step in _DECIDING else call.step


def _is_word(code: object) -> bool:
    """Whether it can be a code: middleware may take any, but only a code."""
    return isinstance(code, str) and 0 < len(code) <= MAX_CODE_CHARACTERS and code.isascii() and code.isprintable()


def _text(message: object) -> str | None:
    """A tool's message as text that can be sent; None if it is none."""
    try:
        return str(message)[:MAX_MESSAGE_CHARACTERS].encode("utf-8", "replace").decode()
    except BaseException:  # noqa: BLE001 a tool's own object may do anything
        return None


def _details(call: Call, error: ToolError) -> Any:
    """What a tool adds to its error, if it is JSON and of moderate size; of a limit when to try again."""
    details = error.details
    if details is None and isinstance(error, RateLimitError):
        details = retry_info(error.retry_after)
    if details is None:
        return None
    try:
        text = encode_json(details, MAX_DETAILS_BYTES)
        if _depth(text) <= MAX_DETAILS_LEVELS:
            return msgspec.json.decode(text)
        log.warning("tool %s: an error's details of more than %d levels are left out", call.name, MAX_DETAILS_LEVELS)
    except WireError as fault:
        log.warning("tool %s: an error's details are left out: %s", call.name, fault)
    return None


def _depth(text: bytes) -> int:
    """Levels of a JSON text, at most: brackets in strings count, too."""
    depth = deepest = 0
    for byte in text:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
