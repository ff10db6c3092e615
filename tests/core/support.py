"""Drives the real engine: one script at a time, its effects as plain JSON lists."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

import msgspec

from enclave_broker.core.javascript import Engine, Instance, Step
from enclave_broker.runtime.image import open_image
from enclave_broker.types.messages import (
    CallFulfilled,
    CallRejected,
    Input,
    StartMessage,
    TimerFired,
    Verdict,
    decode_effects,
    encode_inputs,
    encode_start,
)

__all__ = ["NOW", "Limits", "Script", "fired", "fulfilled", "open_engine", "rejected", "run", "value_of"]

NOW = 1_700_000_000_000.0
_ENOUGH_SLICES = 20_000
_TICK_SECONDS = 0.002


class Limits(TypedDict, total=False):
    seed: int
    now: float
    max_memory_bytes: int
    max_stdout_bytes: int
    max_args_bytes: int
    max_result_bytes: int
    max_calls: int
    max_timers: int


@contextmanager
def open_engine() -> Generator[Engine]:
    """The engine with a ticker beside it, as a worker has it."""
    image = open_image()
    engine = Engine(f"/dev/fd/{image}", max_instances=100)
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK_SECONDS):
            engine.tick()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield engine
    finally:
        ended.set()
        thread.join()
        os.close(image)


def fulfilled(id: int, value: Any = None, now: float = NOW, *, raw: bytes | None = None) -> Input:
    return CallFulfilled(id, now, msgspec.Raw(json.dumps(value).encode() if raw is None else raw))


def rejected(id: int, now: float = NOW, **error: Any) -> Input:
    return CallRejected(id, now, msgspec.Raw(json.dumps(error).encode()))


def fired(id: int, now: float = NOW) -> Input:
    return TimerFired(id, now)


def start_body(code: str, limits: Limits) -> bytes:
    defaults: dict[str, Any] = {
        "seed": 1,
        "now": NOW,
        "max_memory_bytes": 64 << 20,
        "max_stdout_bytes": 262_144,
        "max_args_bytes": 5 << 20,
        "max_result_bytes": 5 << 20,
        "max_calls": 50,
        "max_timers": 1000,
        "cpu_ms": 10_000,
    }
    defaults.update(limits)
    return encode_start(StartMessage(code=code, **defaults))


class Script:
    """One execution. `effects` are all so far, `raw` their bytes without the brackets around each step's."""

    def __init__(self, engine: Engine, code: str, slices: int = _ENOUGH_SLICES, **limits: Unpack[Limits]) -> None:
        self._slices = slices
        self._instance = engine.instantiate(limits.get("max_memory_bytes", 64 << 20))
        self.effects: list[list[Any]] = []
        self.raw: list[bytes] = []
        self.ended = False
        self.verdict = 0
        self._take(self._instance.start(start_body(code, limits)))

    def deliver(self, *inputs: Input) -> list[list[Any]]:
        """The effects of a delivery of its own."""
        return self._take(self._instance.deliver(encode_inputs(list(inputs))))

    def _take(self, step: Step | None) -> list[list[Any]]:
        for _ in range(self._slices):
            if step is not None:
                break
            step = self._instance.resume()
        if step is None:
            step = self._instance.stop(Verdict.CPU_LIMIT)
        effects: list[list[Any]] = json.loads(step.effects)
        decode_effects(step.effects)
        self.effects += effects
        if step.effects != b"[]":
            self.raw.append(step.effects[1:-1])
        self.ended, self.verdict = step.ended, step.verdict
        if step.ended:
            self._instance.close()
        return effects

    def close(self) -> None:
        self._instance.close()

    @property
    def instance(self) -> Instance:
        return self._instance

    def of_kind(self, kind: int) -> list[list[Any]]:
        return [effect for effect in self.effects if effect[0] == kind]

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(name, args) for _, _, name, args in self.of_kind(1)]

    @property
    def output(self) -> list[str]:
        return [text for _, _, text in self.of_kind(2)]

    @property
    def value(self) -> Any:
        """What the script returned; it must have."""
        [effect] = self.of_kind(5)
        return effect[1] if len(effect) > 1 else None

    @property
    def error(self) -> dict[str, Any]:
        """What the script failed with; it must have."""
        [effect] = self.of_kind(6)
        return effect[1]


def run(engine: Engine, code: str, answers: Sequence[Any] = (), **limits: Unpack[Limits]) -> Script:
    """Runs a script, answers its calls in their order with `answers`, and closes the instance."""
    script = Script(engine, code, **limits)
    for id, answer in enumerate(answers, 1):
        script.deliver(fulfilled(id, answer))
    script.close()
    return script


def value_of(engine: Engine, code: str, answers: Sequence[Any] = (), **limits: Unpack[Limits]) -> Any:
    """What a script returns."""
    return run(engine, code, answers, **limits).value
