"""Retry: further attempts at a call whose tool failed, where `effect` permits them. tenacity counts and waits.

Not here: the number of an attempt and its record, which the innermost of the chain writes for each start.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_any, wait_exponential

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.broker.calls.middleware.options import check_count, failure_codes, is_failure
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import RateLimitError
from enclave_broker.types.limits import seconds

__all__ = ["Retry"]

log = logging.getLogger("enclave_broker.calls")

_FIRST_WAIT = 0.25  # seconds; what drops one request is often over by then
_LONGEST_WAIT = 10.0  # seconds
_longest_wait = wait_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)  # doubled after each attempt


class Retry:
    """Makes up to `attempts` attempts at a call, if its effect is `read` or `idempotent`; a `write` passes untouched.

    Another attempt follows an exception that nobody raised on purpose, a time-out, a RateLimitError (not before its
    `retry_after`), and a ToolError of one of `codes`; every other ToolError is an answer, and passes at once. Between
    two attempts it waits a random time up to 0.25 s, doubled each time, 10 s at most (full jitter). No attempt starts
    more than `budget` seconds after the first; when none may follow, the last error is raised. An attempt under way is
    not cut short: for that put a Timeout outside for all attempts, or inside for each. Cancelling is safe and takes
    effect at once. `chance` gives the numbers from 0 to 1 that the waits are made of.
    """

    def __init__(
        self,
        attempts: int = 3,
        budget: float | timedelta = 10.0,
        *,
        codes: Collection[str] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = check_count(attempts, "Retry: attempts")
        self._budget = seconds(budget, "Retry: budget")
        self._codes = failure_codes(codes, "Retry")
        self._chance = chance

    def __repr__(self) -> str:
        return f"Retry(attempts={self._attempts}, budget={self._budget:g})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        if call.effect == "write":
            return await call_next(call)
        ends = asyncio.get_running_loop().time() + self._budget
        try:
            return await call_next(call)
        except Exception as error:
            if not self._is_transient(error):
                raise
            failed = error
        return await self._again(call, call_next, failed, ends)

    async def _again(self, call: ToolCall, call_next: CallNext, failed: Exception, ends: float) -> Any:
        """What follows a first attempt that failed: tenacity hears of it as of any other, but only now."""
        clock = asyncio.get_running_loop().time
        heard: list[Exception] = [failed]

        def is_late(state: RetryCallState) -> bool:
            return clock() + state.upcoming_sleep > ends

        def tell(state: RetryCallState) -> None:
            words = "tool %s failed at attempt %d of %d (%s); the next is due in %.2f s"
            kind = type(_error_of(state)).__name__  # messages may hold what no log should
            log.warning(words, call.name, state.attempt_number, self._attempts, kind, state.upcoming_sleep)

        async def attempt() -> Any:
            if heard:
                raise heard.pop()
            return await call_next(call)

        retrying = AsyncRetrying(
            retry=retry_if_exception(self._is_transient),
            stop=stop_any(stop_after_attempt(self._attempts), is_late),  # pyright: ignore[reportArgumentType] any callable
            wait=self._wait,
            before_sleep=tell,
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(attempt)

    def _is_transient(self, error: BaseException) -> bool:
        return isinstance(error, RateLimitError) or (isinstance(error, Exception) and is_failure(error, self._codes))

    def _wait(self, state: RetryCallState) -> float:
        error = _error_of(state)
        least = error.retry_after if isinstance(error, RateLimitError) else 0.0
        return max(least, self._chance() * _longest_wait(state))


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
