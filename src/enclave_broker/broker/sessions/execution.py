"""One execution: code into an engine, inputs in, effects out, one final. Callbacks, no task of its own.

Everything the engine makes or gets stands in the session's log before anything else sees it. What a runtime sends is
untrusted: `stepped` raises ValueError for what no engine makes, before anything has changed. sessions/session.py owns
the session around it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from enclave_broker.broker.calls.call import Call, Outcome
from enclave_broker.broker.sessions.clock import ActiveClock
from enclave_broker.broker.sessions.log import Batch
from enclave_broker.broker.sessions.timers import Timers
from enclave_broker.broker.sessions.untrusted import LEVELS, StepGuard
from enclave_broker.broker.sessions.verdicts import STUCK, failure_of, script_error, verdict_error
from enclave_broker.broker.store.records import (
    CallSettled,
    Decided,
    Ended,
    ExecutionStarted,
    Printed,
    StepDone,
    TimerExpired,
)
from enclave_broker.runtime.runtime import Key, Run, StepTaken
from enclave_broker.types.events import DeadlineExceededEvent, FinalEvent, LogEvent, StdoutEvent, ToolResultAppliedEvent
from enclave_broker.types.messages import (
    CallEffect,
    CallFulfilled,
    CallRejected,
    ConsoleEffect,
    Effect,
    Failed,
    Input,
    Returned,
    StartMessage,
    TimerCleared,
    TimerFired,
    TimerSet,
    UnhandledRejection,
    Verdict,
    encode_input,
    encode_start,
)
from enclave_broker.types.results import ExecutionStats, ScriptError

if TYPE_CHECKING:
    from enclave_broker.broker.sessions.session import Session
    from enclave_broker.broker.wheel import Alarm

__all__ = ["Execution", "Status"]

Status = Literal["completed", "failed", "cancelled"]
MAX_DELAY_MS = float(2**31 - 1)
"""A longer delay is cut to this, as browsers do; the session ends long before."""
PRINTED = Printed()
TIMER_BYTES = 16
"""What a fired timer weighs in the log."""


class Execution:
    """One run of code in a session, from its start record to its final."""

    __slots__ = (
        "_cpu_us",
        "_deadline",
        "_ended",
        "_ended_at",
        "_guard",
        "_now",
        "_run",
        "_session",
        "_started_at",
        "_stdout_bytes",
        "_timers",
        "_undone",
        "clock",
        "done",
        "first_index",
        "over",
        "settled",
        "span",
        "waiters",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._run: Run | None = None
        self.clock: ActiveClock | None = None
        """Of the `timeout`; there is none when nothing was started."""
        self._deadline: Alarm | None = None
        self._timers: Timers | None = None
        """Those that the script has set, once it has set any."""
        self._guard = StepGuard(session.limits)
        self._undone = 1
        """Deliveries, the start among them, that the engine has not worked off."""
        self._cpu_us = self._stdout_bytes = 0
        self._now = self._started_at = self._ended_at = 0.0
        self._ended = False
        self.first_index = 0
        self.settled: Returned | Failed | None = None
        self.over = False
        self.done = False
        """Over, and its final is durable."""
        self.waiters: list[asyncio.Future[None]] = []

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, code: str, language: str) -> None:
        """Hand the code to a runtime and record the start; from then on there is a final, whatever fails.

        Raises OverloadedError, and has changed nothing, when the runtime has no room.
        """
        session, limits = self._session, self._session.limits
        host = session.host
        self._started_at = host.loop.time()
        message = StartMessage(
            code=code,
            seed=int.from_bytes(session.sources.random(8), "little") or 1,
            now=self._tick(),
            max_memory_bytes=limits.max_memory_bytes,
            max_stdout_bytes=limits.max_stdout_bytes,
            max_args_bytes=limits.max_tool_args_bytes,
            max_result_bytes=limits.max_tool_result_bytes,
            max_calls=limits.max_tool_calls,
            max_timers=limits.max_timers,
            cpu_ms=max(1, int(limits.cpu_time * 1000)),
        )
        too_long = len(code) > limits.max_code_bytes or len(code.encode("utf-8", "replace")) > limits.max_code_bytes
        if not too_long:  # nothing leaves for the runtime before this turn of the loop is over
            self._run = host.runtime.run(encode_start(message), Key(language, session.tenant), self)
        self.span = host.telemetry.execution_started(session.id)
        self.first_index = len(session.log.records)
        batch = session.log.batch()
        batch.weight = min(len(code), limits.max_code_bytes)
        engine = host.runtime.engines[language]
        session.opened(self, batch, ExecutionStarted(language, engine, message, limits, session.principal))
        if too_long:
            self.decide(
                "CODE_TOO_LARGE", f"the code is larger than the {limits.max_code_bytes} bytes of max_code_bytes"
            )
            return
        self.clock = ActiveClock(host.loop, host.wheel, limits.timeout, self._expire)
        if limits.deadline is not None:
            self._deadline = host.wheel.after(limits.deadline, self._miss_deadline)

    def _tick(self) -> float:
        """Milliseconds since the epoch, whole, and never back: what the script's clock shows."""
        self._now = max(self._now, float(int(self._session.sources.now() * 1000)))
        return self._now

    # -- what the engine does --------------------------------------------------------------------------------------

    def stepped(self, step: StepTaken, /) -> None:
        if self.over:
            return
        effects = self._guard.read(step, settled=self.settled is not None)
        self._undone -= 1 if step.inputs == 0 else step.inputs
        self._cpu_us += step.cpu_us
        if (spend := self._session.spend) is not None:
            spend(step.cpu_us)
        self._ended = step.ended
        if step.verdict:
            self._cut_off(effects, step.verdict)
            return
        batch = self._session.log.batch()
        calls: list[Call] = []
        timers: list[tuple[int, float | None]] = []
        for effect in effects:
            self._apply(effect, batch, calls, timers)
        batch.fact(StepDone(step.inputs, step.cpu_us, timers))
        if self.settled is not None and not calls and self._is_idle():
            self._finish_settled(batch)
            return
        started = [call for call in calls if self._session.calls.admit(call, batch)]
        self._session.commit(batch)
        if self.over:  # the log is full
            return
        self._set_timers(timers)
        for call in started:
            self._session.calls.begin_call(call)
        if self.settled is not None and not self.over:
            self._session.calls.drop_queue()
            if self._is_idle():
                self._finish_settled(self._session.log.batch())
        self.look()

    def look(self) -> None:
        """Let the clock stand while all that is pending is what a person or a client has to do."""
        waits = self._session.calls.all_wait_outside and self._undone == 0 and not self._timers
        if waits and self.clock is not None and not self.over:
            self.clock.stand()
            self._wake()

    def _cut_off(self, effects: list[Effect], verdict: Verdict) -> None:
        """Of a step that was cut off what it had printed counts; its calls and timers never came to be."""
        batch = self._session.log.batch()
        printed = [effect for effect in effects if isinstance(effect, ConsoleEffect)]
        for effect in printed:
            # The line that went over the limit is cut where the limit is.
            self._console(effect, batch, whole=verdict is not Verdict.STDOUT_LIMIT or effect is not printed[-1])
        error = verdict_error(verdict, self._session.limits)
        batch.fact(Decided(error))
        self.finish("failed", msgspec.UNSET, error, batch, closes=True)

    def _apply(self, effect: Effect, batch: Batch, calls: list[Call], timers: list[tuple[int, float | None]]) -> None:
        """Add the effect's records to the step's batch."""
        if isinstance(effect, CallEffect):
            call = self._session.calls.request(effect.name, effect.args, effect.id, batch)
            if self.settled is None:
                calls.append(call)
        elif isinstance(effect, ConsoleEffect):
            self._console(effect, batch)
        elif isinstance(effect, Returned | Failed):
            self.settled = effect
        elif isinstance(effect, TimerSet):
            timers.append((effect.id, min(max(effect.delay_ms, 0.0), MAX_DELAY_MS)))
        elif isinstance(effect, TimerCleared):
            timers.append((effect.id, None))
        elif isinstance(effect, UnhandledRejection):
            message = f"a promise that nobody awaited was rejected: {effect.text}"
            batch.event(LogEvent, level="warn", message=message)
            batch.weight += len(message)
        else:
            self.settled = Failed(failure_of("EXECUTION_ERROR", STUCK))

    def _console(self, effect: ConsoleEffect, batch: Batch, *, whole: bool = True) -> None:
        text = effect.text
        if not text and not whole:
            return
        size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        batch.weight += size
        if effect.level < 2:
            self._stdout_bytes += size + whole
            batch.event(StdoutEvent, PRINTED, chunk=text + "\n" if whole else text)
        else:
            batch.event(LogEvent, PRINTED, level=LEVELS[effect.level], message=text)

    def lost(self, reason: str, /) -> None:
        if self.over:
            return
        self._ended = True
        doubt = [f"{call.name} ({call.id})" for call in self._session.calls.running.values()]
        names = f"; in doubt: {', '.join(doubt)}" if doubt else ""
        self.decide("RUNTIME_LOST", f"{reason}{names}", closes=True)

    # -- what the engine gets --------------------------------------------------------------------------------------

    def answer(self, call: Call, outcome: Outcome) -> None:
        """Record a call's outcome and hand it to the script."""
        now = self._tick()
        item: Input
        if outcome.error is None:
            item = CallFulfilled(call.engine_id, now, msgspec.Raw(outcome.value))
            size = len(outcome.value)
        else:
            error: dict[str, Any] = {"code": outcome.error.code, "message": outcome.error.message}
            error["name"] = outcome.error.name
            if outcome.error.details is not None:
                error["details"] = outcome.error.details
            raw = msgspec.json.encode(error)
            item, size = CallRejected(call.engine_id, now, msgspec.Raw(raw)), len(raw)
        session = self._session
        batch = session.log.batch()
        batch.weight = size
        result_bytes = 0 if outcome.error else size
        settled = CallSettled(call.id, item, None, outcome.error, outcome.rule, result_bytes, call.route)
        batch.event(ToolResultAppliedEvent, settled, call_id=call.id)
        if outcome.error is not None and session.limits.cancel_on_first_error:
            batch.fact(Decided(outcome.error))
            self.finish("failed", msgspec.UNSET, outcome.error, batch)
            return
        session.commit(batch)
        if not self.over:
            self._deliver(item)

    def _deliver(self, item: Input) -> None:
        self._undone += 1
        if self.clock is not None and self.clock.stands:
            self.clock.go_on()
        if self._run is not None:
            self._run.deliver(encode_input(item))
            if self._session.host.runner.quiet:
                self._run.flush()

    def _set_timers(self, timers: list[tuple[int, float | None]]) -> None:
        if self.settled is not None:
            return  # a script that has settled waits for its calls, not for its timers
        if timers:
            if self._timers is None:
                self._timers = Timers(self._session.host.loop, self._fire)
            self._timers.change(timers)

    def _fire(self, id: int) -> None:
        item = TimerFired(id, self._tick())
        batch = self._session.log.batch()
        batch.fact(TimerExpired(item))
        batch.weight = TIMER_BYTES
        self._session.commit(batch)
        if not self.over:
            self._deliver(item)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        """A script that has settled is over when no call that started is under way and each outcome is worked off."""
        return not self._session.calls.running and self._undone == 0

    def _finish_settled(self, batch: Batch) -> None:
        if isinstance(self.settled, Returned):
            self.finish("completed", self.settled.value, None, batch)
        elif self.settled is not None:
            self.finish("failed", msgspec.UNSET, script_error(self.settled.error), batch)

    def decide(self, code: str, message: str, *, status: Status = "failed", closes: bool = False) -> None:
        """End the execution by a verdict from outside the script."""
        if not self.over:
            error = ScriptError(code=code, message=message)
            batch = self._session.log.batch()
            batch.fact(Decided(error))
            self.finish(status, msgspec.UNSET, error, batch, closes=closes)

    def finish(
        self, status: Status, value: Any, error: ScriptError | None, batch: Batch, *, closes: bool = False
    ) -> None:
        """The one final: append it, stop what runs, wake whoever waits."""
        self.over = True
        session = self._session
        stats = ExecutionStats(
            duration=session.host.loop.time() - self._started_at,
            tool_call_count=session.calls.count,
            stdout_bytes=self._stdout_bytes,
            cpu_time=self._cpu_us / 1e6,
        )
        wire_error = None
        if error is not None:
            wire_error = {"message": error.message, "code": error.code}
            if error.stack is not None:
                wire_error["stack"] = error.stack
        ended = Ended(error is None, status, value, error, stats)
        batch.event(FinalEvent, ended, ok=error is None, result=value, error=wire_error, stats=stats.to_wire())
        if self._timers is not None:
            self._timers.close()
        if self.clock is not None:
            self.clock.stop()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._run is not None and not self._ended:
            self._run.cancel(self._session.spend)
        self._run = None
        self._ended_at = session.host.loop.time()
        session.finished(status, batch, closes=closes)
        session.host.telemetry.execution_ended(self.span, status, error.code if error else "", stats.duration)
        session.log.when_durable(self._tell)

    def _tell(self) -> None:
        self.done = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    def changed(self) -> asyncio.Future[None]:
        """Done when it is, or when all that is under way waits for somebody outside; look again then."""
        self.waiters.append(waiter := asyncio.get_running_loop().create_future())
        return waiter

    def release(self) -> None:
        """It is over and its session forgotten: no cycle keeps either in memory."""
        del self._session

    @property
    def duration(self) -> float:
        """Seconds since the start; it stops growing at the end."""
        return (self._ended_at or self._session.host.loop.time()) - self._started_at

    def _expire(self) -> None:
        timeout = self._session.limits.timeout
        self.decide(
            "SESSION_EXPIRED", f"the script was active for longer than its timeout of {timeout:g} s", closes=True
        )

    def _miss_deadline(self) -> None:
        if self.over:
            return
        budget = (self._session.limits.deadline or 0.0) * 1000
        elapsed = (self._session.host.loop.time() - self._started_at) * 1000
        error = ScriptError(code="DEADLINE_EXCEEDED", message=f"the deadline of {budget / 1000:g} s has passed")
        batch = self._session.log.batch()
        batch.event(DeadlineExceededEvent, Decided(error), elapsed_ms=round(elapsed, 3), budget_ms=budget)
        self.finish("failed", msgspec.UNSET, error, batch, closes=True)
