"""Runs a log's executions again, offline, and compares what the script made: no policy, no tool code, no clock.

Compared are calls by name and argument bytes, timers, output and the end; never ids or notices. Recovery, verification
and the test suite use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from enclave_broker.broker.sessions.execution import MAX_DELAY_MS
from enclave_broker.broker.sessions.untrusted import LEVELS
from enclave_broker.broker.sessions.verdicts import STUCK, failure_of, script_error
from enclave_broker.broker.store.records import (
    CallRequested,
    CallSettled,
    Decided,
    Ended,
    ExecutionStarted,
    Printed,
    Record,
    StepDone,
    TimerExpired,
)
from enclave_broker.runtime.runtime import Key, Runtime, StepTaken
from enclave_broker.types.errors import RuntimeLostError
from enclave_broker.types.events import LogEvent, StdoutEvent
from enclave_broker.types.messages import (
    CallEffect,
    ConsoleEffect,
    Failed,
    Input,
    Returned,
    Stuck,
    TimerCleared,
    TimerSet,
    decode_effects,
    encode_input,
    encode_start,
)

__all__ = ["Divergence", "Made", "recorded_executions", "replay"]

GUARD_FACTOR, GUARD_MS = 10, 1000
"""A replay may use ten times the recorded CPU time and a second: it never decides the limit anew."""


class Divergence(NamedTuple):
    """The first thing that came out differently."""

    what: str
    recorded: Any
    replayed: Any


class Made:
    """What one execution's script made."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.timers: list[tuple[int, float | None]] = []
        self.output: list[tuple[str, str]] = []
        self.end: Any = None

    def printed(self) -> str:
        return "".join(f"{kind}\0{text}\n" for kind, text in self.output)


class Recorded(Made):
    """The same, and the inputs, as a log has it."""

    def __init__(self, start: ExecutionStarted) -> None:
        super().__init__()
        self.start = start
        self.inputs: list[Input] = []
        self.steps = 0
        self.groups: list[int] = []
        """How many inputs each step consumed."""
        self.cpu_us = 0
        self.decided = False


def recorded_executions(records: Sequence[Record]) -> list[Recorded]:
    """The executions of a log, in order."""
    found: list[Recorded] = []
    for record in records:
        if isinstance(record.fact, ExecutionStarted):
            found.append(Recorded(record.fact))
        elif found:
            _add(found[-1], record)
    return found


def _add(execution: Recorded, record: Record) -> None:
    match record.fact:
        case CallRequested(engine_id=engine_id, name=name, args=args) if engine_id:
            execution.calls.append((name, bytes(args)))
        case CallSettled(input=item) if item is not None:
            execution.inputs.append(item)
        case TimerExpired(input=item):
            execution.inputs.append(item)
        case StepDone(inputs, cpu_us, timers):
            execution.steps += 1
            if inputs:
                execution.groups.append(inputs)
            execution.cpu_us += cpu_us
            execution.timers += timers
        case Printed():
            if isinstance(record.public, StdoutEvent):
                execution.output.append(("info", record.public.chunk.removesuffix("\n")))
            elif isinstance(record.public, LogEvent):
                execution.output.append((record.public.level, record.public.message))
        case Decided():
            execution.decided = True
        case Ended() as ended:
            execution.end = ended.value if ended.error is None else ended.error
        case _:
            pass


class _Listener(Made):
    """Collects the effects of the replayed run until its inputs are consumed."""

    def __init__(self) -> None:
        super().__init__()
        self._done = -1
        self._over = False
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def worked_off(self, inputs: int) -> None:
        """Until so many inputs are, or the run is over. Raises RuntimeLostError."""
        while self._done < inputs and not self._over:
            await self._changed
            self._changed = asyncio.get_running_loop().create_future()

    def stepped(self, step: StepTaken, /) -> None:
        for effect in decode_effects(step.effects):
            match effect:
                case CallEffect(_, name, args):
                    self.calls.append((name, msgspec.json.encode(args)))
                case ConsoleEffect(level, text):
                    self.output.append((LEVELS[level], text))
                case TimerSet(id, delay_ms):
                    self.timers.append((id, min(max(delay_ms, 0.0), MAX_DELAY_MS)))
                case TimerCleared(id):
                    self.timers.append((id, None))
                case Returned(value):
                    self.end = value
                case Failed(error):
                    self.end = script_error(error)
                case Stuck():
                    self.end = script_error(failure_of("EXECUTION_ERROR", STUCK))
                case _:
                    pass
        self._done = max(self._done, 0) + step.inputs
        self._over = step.ended
        if not self._changed.done():
            self._changed.set_result(None)

    def lost(self, reason: str, /) -> None:
        if not self._changed.done():
            self._changed.set_exception(RuntimeLostError(reason))


async def replay(records: Sequence[Record], runtime: Runtime) -> Divergence | None:
    """Run every execution of a log again in `runtime`; the first difference, or None.

    Raises RuntimeLostError when the runtime fails. Cancelling is safe.
    """
    for execution in recorded_executions(records):
        if execution.steps == 0:
            continue  # cut off in its first step: the script has made nothing that counts
        hash = runtime.engines.get(execution.start.language)
        if hash != execution.start.engine:
            return Divergence("engine", execution.start.engine, hash)
        guard = GUARD_FACTOR * execution.cpu_us // 1000 + GUARD_MS
        message = msgspec.structs.replace(execution.start.message, cpu_ms=guard)
        if sum(execution.groups) > len(execution.inputs):
            return Divergence("inputs", sum(execution.groups), len(execution.inputs))
        listener = _Listener()
        run = runtime.run(encode_start(message), Key(execution.start.language, "replay"), listener)
        try:
            await listener.worked_off(0)
            done = 0
            for group in execution.groups:
                for item in execution.inputs[done : done + group]:
                    run.deliver(encode_input(item))
                done += group
                await listener.worked_off(done)
        finally:
            run.cancel()
        if (found := _compare(execution, listener)) is not None:
            return found
    return None


def _compare(recorded: Recorded, replayed: Made) -> Divergence | None:
    for what in ("calls", "timers"):
        ours, theirs = getattr(recorded, what), getattr(replayed, what)
        if ours != theirs:
            at = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(ours), len(theirs)) if at is None else at
            return Divergence(f"{what}[{at}]", ours[at : at + 1], theirs[at : at + 1])
    ours, theirs = recorded.printed(), replayed.printed()
    # A step that was cut off leaves what it had printed, and a replay doesn't run it again.
    if ours != theirs and not (recorded.decided and ours.startswith(theirs)):
        return Divergence("output", ours, theirs)
    if not recorded.decided and recorded.end != replayed.end:
        return Divergence("end", recorded.end, replayed.end)
    return None
