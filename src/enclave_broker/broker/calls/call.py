"""One tool call on its way: who asks, what for, how far it is. One handler run whoever asks, one outcome.

Made by a session for what its script asks, or by the host through `execute_tool_call`. calls/chain.py drives it;
calls/runner.py owns its task and its clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from enclave_broker.broker.tools.context import LogLine, Progress
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import ScriptError

if TYPE_CHECKING:
    from enclave_broker.broker.calls.access_rule import Rule
    from enclave_broker.broker.calls.asked import Asked
    from enclave_broker.broker.calls.secrets import Revealed
    from enclave_broker.broker.telemetry.spans import ToolSpan
    from enclave_broker.broker.wheel import Alarm

__all__ = ["Call", "CallState", "Caller", "Later", "Outcome"]


_BEFORE_START = frozenset({"quota", "started"})
"""Steps in which a call that was charged waits for the store."""


class CallState(IntEnum):
    """In this order only; SETTLED from any."""

    REQUESTED = 0
    RUNNING = 1
    """In the chain."""
    STARTED = 2
    """Its handler has begun."""
    SETTLED = 3


class Outcome(NamedTuple):
    """What the caller gets: JSON text, or an error. `rule` names what refused it, if something did."""

    value: bytes = b"null"
    error: ScriptError | None = None
    rule: str | None = None


class Later:
    """Something to await that begins only then: nothing of it is left if its call is dropped before."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._make = make

    def __await__(self) -> Generator[Any, Any, None]:
        return self._make().__await__()


class Caller(Protocol):
    """The session, as a call sees it."""

    id: str
    limits: SessionLimits
    principal: Principal
    metadata: dict[str, Any]
    context: Mapping[str, Any]
    """Facts for the policy that the host has set for this session."""
    life: str
    """Tells the session from an earlier one of its id; the same again when it is recovered."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def allows(self, name: str) -> bool:
        """Whether the session's allow-list has the name."""
        ...

    @property
    def is_consulted(self) -> bool:
        """Whether somebody else may answer its calls."""
        ...

    def consult(self, call: Call) -> Awaitable[None] | None:
        """Ask who else may answer the call that the policy has let through; None if there is nobody."""
        ...

    def started(self, call: Call, args_hash: str) -> Awaitable[None] | None:
        """Record that the handler is about to run; it may run only when what this returns is done."""
        ...

    def asked(self, call: Call, asked: Asked) -> Awaitable[None] | None:
        """Record that a person is asked; who it is may see it only when what this returns is done."""
        ...

    def answered(self, call: Call, asked: Asked) -> Awaitable[None] | None:
        """Record the answer, or that there was none in time; what to await until it can't be lost any more."""
        ...

    def waits_outside(self, call: Call) -> None:
        """Only a person or a client can bring the call on: no active time passes for it."""
        ...

    def durable(self) -> Awaitable[None] | None:
        """What to await before what was recorded so far may have an effect."""
        ...

    def settled(self, call: Call, outcome: Outcome) -> None:
        """The call has its outcome. Called once."""
        ...

    def told(self, call: Call, item: Progress | LogLine) -> None:
        """The handler says how far it is, or writes a line for the session's readers."""
        ...


class Call:
    """See the module. `engine_id` is 0 for a call that the host made."""

    __slots__ = (
        "alarm",
        "approved",
        "args",
        "args_json",
        "asked_at",
        "asking",
        "attempt",
        "caller",
        "consulting",
        "deadline",
        "engine_id",
        "facts",
        "give_back",
        "id",
        "name",
        "outcome",
        "outside",
        "pending",
        "performing",
        "prepared",
        "progress",
        "progressed_at",
        "queued",
        "refused",
        "result",
        "revealed",
        "rule",
        "span",
        "state",
        "step",
        "task",
        "tool",
        "validated",
        "waiters",
    )

    def __init__(
        self, caller: Caller, id: str, engine_id: int, name: str, args: dict[str, Any], args_json: bytes
    ) -> None:
        self.caller = caller
        self.id = id
        self.engine_id = engine_id
        self.name = name
        self.args = args
        self.args_json = args_json
        self.asked_at = 0.0
        self.state = CallState.REQUESTED
        self.step = ""
        """The chain's step that it is in."""
        self.consulting = False
        """Whether listeners are being asked."""
        self.performing: asyncio.Task[Outcome | None] | None = None
        """The handler's run, if a listener executes the call."""
        self.pending: Awaitable[None] | None = None
        """What of the policy has to be awaited."""
        self.refused: Outcome | None = None
        """What the policy said, if it refused at once."""
        self.prepared = False
        """Whether the policy has let it through at once and its start is recorded."""
        self.queued = False
        """Whether it had to wait for a place."""
        self.outside = False
        """Whether it waits for a person or a client."""
        self.attempt = 0
        self.tool: Tool | None = None
        self.facts: Mapping[str, Any] | None = None
        """What the access rules are asked with, once it is known."""
        self.rule: str | None = None
        """The access rule that has decided, as history shows it."""
        self.asking: Rule | None = None
        """The access rule that wants a person's approval."""
        self.approved: str | None = None
        """The hash of the arguments that a person has approved."""
        self.give_back: Callable[[Call], None] | None = None
        """Gives back what limits have charged."""
        self.span: ToolSpan | None = None
        """If the host traces: its handler runs in it."""
        self.validated: Any = None
        self.result = b""
        self.revealed: Revealed | None = None
        """The secrets of its last attempt, if its tool has some."""
        self.outcome: Outcome | None = None
        self.deadline = 0.0
        self.progress: Progress | None = None
        """What the handler said last and nobody has been told yet."""
        self.progressed_at = 0.0
        self.alarm: Alarm | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it has its outcome or gets none."""
        return self.state is CallState.SETTLED

    @property
    def route(self) -> str | None:
        """The name or pattern that has taken the call, if one has."""
        return None if self.tool is None else self.tool.name

    def settle(self, outcome: Outcome) -> bool:
        """Give the call its outcome; False if it has one. The first counts."""
        if self.state is CallState.SETTLED:
            return False
        self._return_charge()
        self.state = CallState.SETTLED
        self.outcome = outcome
        self.drop_alarm()
        self.caller.settled(self, outcome)
        self._wake()
        return True

    def cancel(self) -> None:
        """The session is over: the handler gets CancelledError, and there will be no outcome."""
        self._return_charge()
        self.state = CallState.SETTLED
        self.drop_alarm()
        self.stop()
        self._wake()

    def stop(self) -> None:
        """Its outcome is there, or none will be: what still runs for it is cancelled, but for whoever says so."""
        for task in (self.task, self.performing):
            if task is not None and task is not _current():
                task.cancel()

    def _return_charge(self) -> None:
        """What could not be recorded was never started, and nobody has heard of it: it costs nothing."""
        give_back, self.give_back = self.give_back, None
        if give_back is None or self.step not in _BEFORE_START or self.attempt > 1:
            return
        if self.caller.durable() is not None:
            give_back(self)

    def _wake(self) -> None:
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def drop_alarm(self) -> None:
        """It rings no more."""
        alarm, self.alarm = self.alarm, None
        if alarm is not None:
            alarm.cancel()

    def wait(self) -> asyncio.Future[None]:
        """Done when the call has its outcome or gets none; cancelling it leaves the call alone."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.state is CallState.SETTLED:
            future.set_result(None)
        elif self.waiters is None:
            self.waiters = [future]
        else:
            self.waiters.append(future)
        return future

    def public(self) -> ToolCall:
        """As listeners, middleware and hooks see it."""
        return ToolCall(
            id=self.id,
            name=self.name,
            args=self.args,
            session_id=self.caller.id,
            principal=self.caller.principal,
            effect=self.tool.effect if self.tool is not None else "write",
            attempt=self.attempt,
        )


def _current() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # outside of every loop
        return None


def encode_args(args: dict[str, Any]) -> bytes:
    """The one JSON text of a call's arguments: what is hashed is what is validated and what is shown."""
    return msgspec.json.encode(args)
