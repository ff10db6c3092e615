"""What a runtime says a step did, before anything believes it: form, numbers, limits. Sans-I/O.

A runtime is a process that ran a script, so what it sends is input. Called by sessions/execution.py.
"""

from __future__ import annotations

from typing import Any

from enclave_broker.runtime.runtime import StepTaken
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.messages import (
    CallEffect,
    ConsoleEffect,
    Effect,
    Failed,
    Returned,
    Stuck,
    TimerSet,
    decode_effects,
)

__all__ = ["LEVELS", "StepGuard"]

LEVELS: tuple[Any, ...] = ("info", "info", "debug", "warn", "error")
SLACK_BYTES = 4 << 20
"""Of the effects of an input, what no limit speaks of: an error and its stack, twenty rejections of 16 KiB, escaped."""
SETS_A_STEP = 17
"""Timers that one input may set, for each of max_timers: the engine stops at 16."""


class StepGuard:
    """Of one execution: what its steps may still say."""

    __slots__ = ("_calls", "_limits", "_printed", "_timers")

    def __init__(self, limits: SessionLimits) -> None:
        self._limits = limits
        self._calls = self._timers = self._printed = 0

    def read(self, step: StepTaken, *, settled: bool) -> list[Effect]:
        """The step's effects; `settled`: the script has ended already. Raises ValueError for what no engine makes."""
        self._check_size(len(step.effects), max(1, step.inputs))
        effects = decode_effects(step.effects)
        self._check(effects, step, settled=settled)
        return effects

    def _check_size(self, size: int, inputs: int) -> None:
        """No step says more than its limits allow, each character escaped. What the engine bounds is for each input."""
        if size <= SLACK_BYTES:
            return
        limits = self._limits
        calls = max(0, limits.max_tool_calls - self._calls)
        texts = limits.max_stdout_bytes + calls * limits.max_tool_args_bytes + limits.max_tool_result_bytes
        if size > 6 * texts + inputs * (SLACK_BYTES + 64 * SETS_A_STEP * limits.max_timers):
            raise ValueError(f"a step of {size} bytes, more than its limits allow")

    def _check_limits(self, calls: int, timers_set: int, printed: int, inputs: int) -> None:
        """The engine enforces them, too; what comes from its process is not believed."""
        limits = self._limits
        if calls > limits.max_tool_calls:
            raise ValueError(f"{calls} calls, more than max_tool_calls")
        if timers_set > SETS_A_STEP * limits.max_timers * inputs:
            raise ValueError(f"{timers_set} timers set in one step")
        self._printed += printed
        if self._printed > limits.max_stdout_bytes:
            raise ValueError("more output than max_stdout_bytes")

    def _check(self, effects: list[Effect], step: StepTaken, *, settled: bool) -> None:
        """Numbers of calls and timers are dense, and a script settles once."""
        calls, timers = self._calls, self._timers
        printed = 0
        for effect in effects:
            if isinstance(effect, CallEffect):
                calls += 1
                if effect.id != calls:
                    raise ValueError(f"call {effect.id} where {calls} has to come")
            elif isinstance(effect, TimerSet):
                timers += 1
                if effect.id != timers:
                    raise ValueError(f"timer {effect.id} where {timers} has to come")
            elif isinstance(effect, Returned | Failed | Stuck):
                if settled:
                    raise ValueError("a script settles once")
                settled = True
            elif isinstance(effect, ConsoleEffect):
                printed += len(effect.text)
                if not 0 <= effect.level < len(LEVELS):
                    raise ValueError(f"console level {effect.level}")
        self._check_limits(calls, timers - self._timers, printed, max(1, step.inputs))
        if step.ended and not settled and not step.verdict:
            raise ValueError("a run ended before its script has settled")
        self._calls, self._timers = calls, timers
