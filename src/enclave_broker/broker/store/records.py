"""The records of a session's log: what happened, in order, as facts that a store can keep and a replay can obey.

A record has a dense `index`; one with a public event has a dense `seq` too, and only that event is ever streamed.
Made by sessions, read by streams, history, recovery and replay. Times are seconds since the epoch unless named
otherwise.
"""

from __future__ import annotations

from typing import Any

import msgspec

from enclave_broker.types.calls import Effect
from enclave_broker.types.events import Event
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.messages import Input, StartMessage
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import ExecutionStats, ScriptError

__all__ = [
    "ApprovalAsked",
    "ApprovalDecided",
    "CallRequested",
    "CallSettled",
    "Decided",
    "Ended",
    "ExecutionStarted",
    "Fact",
    "HandlerStarted",
    "Opened",
    "Printed",
    "Record",
    "StepDone",
    "TimerExpired",
]


class Opened(msgspec.Struct, frozen=True, gc=False, tag="opened"):
    """A session begins with a call that the host makes: there is no execution that would say whose it is."""

    principal: Principal


class ExecutionStarted(msgspec.Struct, frozen=True, gc=False, tag="started"):
    """Everything that the engine's state depends on, besides the inputs that follow."""

    language: str
    engine: str
    message: StartMessage
    limits: SessionLimits
    principal: Principal


class CallRequested(msgspec.Struct, frozen=True, gc=False, tag="requested"):
    """`engine_id` is the call's number in the engine, 0 for one that the host made."""

    call_id: str
    engine_id: int
    name: str
    args: msgspec.Raw
    """JSON text of an object: what was validated, hashed and shown."""


class ApprovalAsked(msgspec.Struct, frozen=True, gc=False, tag="asked"):
    """People are asked whether the call may be made. `args_hash` is as in HandlerStarted, `rule` is what asks.

    `expires_at` is in seconds since the epoch, `line` the script's, None where it isn't known.
    """

    approval_id: str
    call_id: str
    args_hash: str
    rule: str
    expires_at: float
    line: int | None = None


class ApprovalDecided(msgspec.Struct, frozen=True, gc=False, tag="answered"):
    """The answer: `decision` is approved, denied or expired. Whose it is, and what they wrote, maybe nothing."""

    approval_id: str
    call_id: str
    decision: str
    subject: str | None = None
    tenant: str | None = None
    reason: str = ""


class HandlerStarted(msgspec.Struct, frozen=True, gc=False, tag="handler"):
    """The handler is about to run. `args_hash` is of the effective arguments' JSON text (sha256, hex).

    `route` is the name or pattern that has taken the call, `rule` what has let it through, if there are rules.
    """

    call_id: str
    attempt: int
    effect: Effect
    args_hash: str
    route: str | None = None
    rule: str | None = None


class CallSettled(msgspec.Struct, frozen=True, gc=False, tag="settled"):
    """A call's outcome. `input` is what the engine gets, None for a call that the host made: that has its `value`."""

    call_id: str
    input: Input | None
    value: msgspec.Raw | None
    error: ScriptError | None
    rule: str | None
    result_bytes: int
    route: str | None = None


class TimerExpired(msgspec.Struct, frozen=True, gc=False, tag="timer"):
    input: Input


class StepDone(msgspec.Struct, frozen=True, gc=False, tag="step"):
    """The engine has consumed `inputs` more inputs. `timers` are those set and cleared: (id, delay in ms or None)."""

    inputs: int
    cpu_us: int
    timers: list[tuple[int, float | None]]


class Printed(msgspec.Struct, frozen=True, gc=False, tag="printed"):
    """The event is output of the script, not of a tool or of the broker."""


class Decided(msgspec.Struct, frozen=True, gc=False, tag="verdict"):
    """A verdict from outside the script: a limit, an expiry, a cancel. A replay obeys it and never decides again."""

    error: ScriptError


class Ended(msgspec.Struct, frozen=True, gc=False, tag="ended"):
    """The end of an execution. `value` is UNSET for undefined and for a failure."""

    ok: bool
    status: str
    value: Any
    error: ScriptError | None
    stats: ExecutionStats


Fact = (
    Opened
    | ExecutionStarted
    | CallRequested
    | ApprovalAsked
    | ApprovalDecided
    | HandlerStarted
    | CallSettled
    | TimerExpired
    | StepDone
    | Printed
    | Decided
    | Ended
)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One entry of a log. `public` is the event that readers get, `fact` what recovery and history need."""

    index: int
    at: float
    public: Event | None
    fact: Fact | None
