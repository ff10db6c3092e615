"""What the broker and a runtime say to each other about one execution: start, inputs, effects, verdicts.

Owns the byte layout of both directions, sans-I/O. The worker passes bodies through without reading them; the engine's
shim (core/build/shim.c) reads the same layouts. Called by sessions (encode inputs, decode effects) and by replay.
Everything that comes back from a runtime is untrusted: `decode_effects` refuses what doesn't fit.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import msgspec

__all__ = [
    "CallEffect",
    "CallFulfilled",
    "CallRejected",
    "ConsoleEffect",
    "Effect",
    "Failed",
    "Input",
    "Returned",
    "ScriptFailure",
    "StartMessage",
    "Stuck",
    "TimerCleared",
    "TimerFired",
    "TimerSet",
    "UnhandledRejection",
    "Verdict",
    "decode_effects",
    "encode_input",
    "encode_inputs",
    "encode_start",
    "start_budget",
]

_START = struct.Struct("<QdIIIIIIII")
_INPUT = struct.Struct("<IIdI")
_FULFILLED, _REJECTED, _FIRED = 1, 2, 3


class Verdict(IntEnum):
    """How a step ended that the script did not end itself. None of them can be caught by a script."""

    NONE = 0
    MEMORY_LIMIT = 1
    CPU_LIMIT = 2
    STDOUT_LIMIT = 3
    ENGINE_FAULT = 4
    HOST_MEMORY = 5


class StartMessage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything that an execution's outcome depends on besides its inputs."""

    code: str
    seed: int
    """Unsigned, 64 bits, not zero."""
    now: float
    """Milliseconds since the epoch."""
    max_memory_bytes: int
    max_stdout_bytes: int
    max_args_bytes: int
    max_result_bytes: int
    max_calls: int
    max_timers: int
    cpu_ms: int


class CallFulfilled(msgspec.Struct, frozen=True, gc=False, tag="fulfilled"):
    """A call's value for the script, as JSON text; empty for undefined."""

    id: int
    now: float
    value: msgspec.Raw


class CallRejected(msgspec.Struct, frozen=True, gc=False, tag="rejected"):
    """A call's error for the script: `{"code", "message", "name"?, "details"?}` as JSON text."""

    id: int
    now: float
    error: msgspec.Raw


class TimerFired(msgspec.Struct, frozen=True, gc=False, tag="fired"):
    id: int
    now: float


Input = CallFulfilled | CallRejected | TimerFired


class CallEffect(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """The script called a tool."""

    id: int
    name: str
    args: dict[str, Any]


class ConsoleEffect(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """`level`: 0 log, 1 info, 2 debug, 3 warn, 4 error."""

    level: int
    text: str


class TimerSet(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    id: int
    delay_ms: float


class TimerCleared(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    id: int


class Returned(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The script's value; `UNSET` for undefined."""

    value: Any = msgspec.UNSET


class ScriptFailure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An error that ended a script. `line` and `column` count from 1 in the code as sent."""

    message: str
    name: str = "Error"
    code: str | None = None
    stack: str | None = None
    line: int | None = None
    column: int | None = None
    details: Any = None


class Failed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    error: ScriptFailure


class Stuck(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """The script waits for something that can't happen any more."""


class UnhandledRejection(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=8):
    """A promise that nobody awaited was rejected; it doesn't fail the run."""

    text: str


Effect = CallEffect | ConsoleEffect | TimerSet | TimerCleared | Returned | Failed | Stuck | UnhandledRejection

_effects = msgspec.json.Decoder(list[Effect])


def encode_start(message: StartMessage) -> bytes:
    """The body of a start frame."""
    header = _START.pack(
        message.seed,
        message.now,
        message.max_memory_bytes,
        message.max_stdout_bytes,
        message.max_args_bytes,
        message.max_result_bytes,
        message.max_calls,
        message.max_timers,
        message.cpu_ms,
        0,
    )
    return header + message.code.encode("utf-8", "replace")


def encode_inputs(inputs: list[Input]) -> bytes:
    """The body of a deliver frame: the engine settles the inputs one after the other, each at its own `now`."""
    return b"".join([encode_input(item) for item in inputs])


def encode_input(item: Input) -> bytes:
    """One input of a deliver frame's body."""
    if isinstance(item, CallFulfilled):
        raw = bytes(item.value)
        return _INPUT.pack(_FULFILLED, item.id, item.now, len(raw)) + raw
    if isinstance(item, CallRejected):
        raw = bytes(item.error)
        return _INPUT.pack(_REJECTED, item.id, item.now, len(raw)) + raw
    return _INPUT.pack(_FIRED, item.id, item.now, 0)


def decode_effects(body: bytes | memoryview) -> list[Effect]:
    """The effects of one step.

    Raises ValueError (msgspec's, or UnicodeDecodeError) for anything that an engine would not have written.
    """
    try:
        return _effects.decode(body)
    except RecursionError:
        raise ValueError("effects that are nested deeper than any engine's") from None


def start_budget(body: bytes) -> tuple[int, int]:
    """Of a start frame's body: max_memory_bytes and cpu_ms, the two that whoever runs the engine enforces."""
    fields = _START.unpack_from(body)
    return fields[2], fields[8]
