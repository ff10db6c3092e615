"""A listener that keeps what it hears, and start messages with generous limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from enclave_broker.runtime.runtime import Key, Run, Runtime, StepTaken
from enclave_broker.types.messages import (
    CallEffect,
    CallFulfilled,
    ConsoleEffect,
    Effect,
    Failed,
    Returned,
    StartMessage,
    Verdict,
    decode_effects,
    encode_inputs,
    encode_start,
)

KEY = Key("javascript", "")


def start_message(code: str, **limits: Any) -> StartMessage:
    given: dict[str, Any] = {
        "seed": 7,
        "now": 1_700_000_000_000.0,
        "max_memory_bytes": 64 << 20,
        "max_stdout_bytes": 1 << 18,
        "max_args_bytes": 1 << 20,
        "max_result_bytes": 5 << 20,
        "max_calls": 100,
        "max_timers": 100,
        "cpu_ms": 10_000,
    }
    return StartMessage(code=code, **{**given, **limits})


def fulfilled(id: int, value: Any) -> bytes:
    return encode_inputs([CallFulfilled(id, 1_700_000_000_001.0, msgspec.Raw(msgspec.json.encode(value)))])


class Hearer:
    """A Listener."""

    def __init__(self) -> None:
        self.steps: list[StepTaken] = []
        self.effects: list[Effect] = []
        self.reason: str | None = None
        self._changed = asyncio.Event()

    def stepped(self, step: StepTaken, /) -> None:
        self.steps.append(step)
        self.effects += decode_effects(step.effects)
        self._changed.set()

    def lost(self, reason: str, /) -> None:
        self.reason = reason
        self._changed.set()

    async def heard(self, steps: int) -> None:
        """Until so many steps were heard of, or the run was lost."""
        async with asyncio.timeout(20):
            while len(self.steps) < steps and self.reason is None:
                self._changed.clear()
                await self._changed.wait()

    async def over(self) -> None:
        """Until the run has ended or was lost."""
        async with asyncio.timeout(20):
            while self.reason is None and not (self.steps and self.steps[-1].ended):
                self._changed.clear()
                await self._changed.wait()

    @property
    def value(self) -> Any:
        return next(effect.value for effect in self.effects if isinstance(effect, Returned))

    @property
    def error(self) -> Any:
        return next(effect.error for effect in self.effects if isinstance(effect, Failed))

    @property
    def output(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, ConsoleEffect)]

    @property
    def calls(self) -> list[CallEffect]:
        return [effect for effect in self.effects if isinstance(effect, CallEffect)]

    @property
    def verdict(self) -> Verdict:
        return self.steps[-1].verdict


def start(runtime: Runtime, code: str, key: Key = KEY, **limits: Any) -> tuple[Run, Hearer]:
    hearer = Hearer()
    return runtime.run(encode_start(start_message(code, **limits)), key, hearer), hearer


async def value_of(runtime: Runtime, code: str, key: Key = KEY, **limits: Any) -> Any:
    _, hearer = start(runtime, code, key, **limits)
    await hearer.over()
    return hearer.value
