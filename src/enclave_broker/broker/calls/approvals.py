"""The calls of a broker that wait for a person: asked once, answered once, several in one step.

Owns which are open, how many may be, who hears of them, and for a while how they were answered. One question is
asked.py's; policy.py asks; the record of it is the session's.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from enclave_broker.broker.calls.access_rule import Rule
from enclave_broker.broker.calls.asked import Answer, Asked, May, Word
from enclave_broker.broker.calls.call import Call, Caller
from enclave_broker.broker.calls.policy import ContextResolver, facts_about
from enclave_broker.broker.wheel import Wheel
from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ConfigurationError, EnclaveError, RateLimitError
from enclave_broker.types.ids import new_approval_id
from enclave_broker.types.principal import Principal

__all__ = ["Approvals", "MayAnswer", "OnApproval"]

T = TypeVar("T")
Facts = Mapping[str, Any]
Owner = tuple[str | None, str]
OnApproval = Callable[[Approval], Awaitable[None] | None]
MayAnswer = Callable[[Asked, Principal, Facts], bool]
"""Whether somebody with these facts may answer."""

MAX_PENDING = 10_000
MAX_PENDING_PER_SESSION = 100
MAX_REASON_CHARACTERS = 1_000
ANSWERED_SECONDS = 600.0
MAX_ANSWERED = 10_000
MAX_ANSWERED_BYTES = 16 << 20
"""How long, how many and how many bytes of those that were answered can still be looked up."""
RETRY_MS = 10_000
"""What a call is told that finds no room: a person has to act first."""


def _fits(asked: Asked, _: Principal, facts: Facts) -> bool:
    return asked.fits(facts)


class Approvals:
    """`broker.approvals`. Usable from any loop, and before the broker has started: then nothing is pending.

    Beyond `max_pending` of all sessions, `max_pending_per_session`, or `max_pending_per_principal` of one tenant and
    subject, a call is refused with RATE_LIMITED. Who is not known has no share of his own: all are the same nobody.
    """

    def __init__(
        self,
        here: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]],
        context: Callable[[], ContextResolver | None],
    ) -> None:
        self.max_pending = MAX_PENDING
        self.max_pending_per_session = MAX_PENDING_PER_SESSION
        self.max_pending_per_principal: int | None = None
        """None for a quarter of `max_pending`."""
        self.callbacks: list[OnApproval] = []
        self._here = here
        self._context = context
        self._pending: dict[str, Asked] = {}
        self._held: Counter[int | Owner] = Counter()
        """How many are pending of each session and of each principal."""
        self._answered: OrderedDict[str, tuple[float, Asked]] = OrderedDict()
        self._answered_bytes = 0
        self._wheel: Wheel | None = None
        self._tell: Callable[[Approval, Sequence[OnApproval]], None] | None = None

    # -- what a host asks ------------------------------------------------------------------------------------------

    async def list(self, *, session_id: str | None = None, principal: Principal | None = None) -> Sequence[Approval]:
        """What is pending, the oldest first: of one session, or what this principal may decide over HTTP."""

        async def find() -> Sequence[Approval]:
            facts = None if principal is None else await self.facts(principal)
            found = self.open(session_id)
            if principal is not None and facts is not None:
                found = [asked for asked in found if asked.may_be_answered_by(principal, facts)]
            return [asked.approval() for asked in found]

        return await self._here(find)

    async def approve(self, *ids: str, by: Principal) -> None:
        """Let these calls be made, all in one step: when this returns it can't be lost any more.

        `by` has to fit the `approvers` of each one's rule, and may be of another tenant: who may see them is the host's
        business here. Raises EnclaveError, and decides nothing, with NOT_FOUND for an id that isn't there or whose
        call is over, APPROVAL_DECIDED for one that was decided or has expired, FORBIDDEN where `by` doesn't fit.
        """
        await self._here(lambda: self.answer(ids, "approved", by, "", _fits))

    async def deny(self, *ids: str, by: Principal, reason: str = "") -> None:
        """Have these calls fail with APPROVAL_DENIED; the script sees the reason. Otherwise as `approve`."""
        await self._here(lambda: self.answer(ids, "denied", by, reason, _fits))

    def on(self, callback: OnApproval) -> OnApproval:
        """Call it, a function or an async function, with each Approval that is asked for, at least once.

        As `broker.on_approval` a decorator. What it raises is logged, and one that takes longer than a minute is
        cancelled; neither harms the run.
        """
        self.callbacks.append(callback)
        return callback

    # -- for edges, in the broker's loop ---------------------------------------------------------------------------

    async def answer(self, ids: Iterable[str], word: Word, by: Principal, reason: str, may: MayAnswer) -> None:
        """Answer all of them in one step, or raise and answer none. Durable when this returns."""
        if not isinstance(by, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"by is a Principal, not {by!r}")
        if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARACTERS:  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"reason is a text of at most {MAX_REASON_CHARACTERS} characters")
        facts = await self.facts(by)
        found = [self._find(id, by, facts, may) for id in dict.fromkeys(ids)]
        answer = Answer(word, by, reason.encode("utf-8", "replace").decode())
        writing = [self._give(asked, answer, lambda asked: may(asked, by, facts)) for asked in found]
        for each in writing:
            if each is not None:
                await each

    async def facts(self, principal: Principal) -> Facts:
        """What `approvers` are asked with: as for a call of the principal's, but for a session's own context."""
        return await facts_about(self._context(), principal, {})

    def open(self, session_id: str | None = None) -> Sequence[Asked]:
        """Those that may be seen, the oldest first."""
        return [
            asked
            for asked in self._pending.values()
            if self._is_open(asked) and (session_id is None or asked.session_id == session_id)
        ]

    def of(self, caller: Caller) -> Sequence[Approval]:
        """Those of one session."""
        open_ones = (asked for asked in self.open(caller.id) if asked.call is not None and asked.call.caller is caller)
        return [asked.approval() for asked in open_ones]

    def find(self, id: str) -> Asked | None:
        """One that may be seen, or was answered a while ago."""
        asked = self._pending.get(id)
        if asked is not None and self._is_open(asked):
            return asked
        self._forget_old()
        known = self._answered.get(id)
        return None if known is None else known[1]

    def _find(self, id: str, by: Principal, facts: Facts, may: MayAnswer) -> Asked:
        asked = self.find(id)
        if asked is None:
            raise EnclaveError("no such approval: there never was one, or its call is over", code="NOT_FOUND")
        if not may(asked, by, facts):
            raise EnclaveError(f"approval {id} is not yours to decide", code="FORBIDDEN")
        if asked.alarm is not None and asked.alarm.when <= asyncio.get_running_loop().time():
            self._expire(asked)  # the alarm may be a tick late
        if asked.answer is not None:
            word = "has expired" if asked.answer.word == "expired" else f"was {asked.answer.word} already"
            raise EnclaveError(f"approval {id} {word}", code="APPROVAL_DECIDED")
        return asked

    # -- for the chain ---------------------------------------------------------------------------------------------

    async def ask(self, call: Call, rule: Rule | None, shown: str) -> Asked:
        """Return when somebody has approved the call. Raises ToolError. Cancelling this takes the question back."""
        asked = self._admit(call, rule, shown)
        span = None
        try:
            if (writing := call.caller.asked(call, asked)) is not None:
                await writing
            self._show(asked, call)
            span = None if call.span is None else call.span.wait("approval")
            await asked.answered
            if (writing := call.caller.durable()) is not None:
                await writing
        finally:
            self._take_back(asked, call)
            if span is not None:
                span.end("taken back" if asked.answer is None else asked.answer.word)
        if (error := asked.error()) is not None:
            raise error
        call.approved = asked.args_hash
        return asked

    def _admit(self, call: Call, rule: Rule | None, shown: str) -> Asked:
        caller = call.caller
        self._check_room(call, self._held[id(caller)], self.max_pending_per_session, "of its session")
        if not (caller.principal.is_anonymous and caller.principal.tenant is None):
            share = self.max_pending_per_principal
            share = max(1, self.max_pending // 4) if share is None else share
            self._check_room(call, self._held[_owner(call)], share, f"of {caller.principal.subject!r}")
        self._check_room(call, len(self._pending), self.max_pending, "")
        asked = Asked(new_approval_id(os.urandom), call, rule, shown)
        self._pending[asked.id] = asked
        self._held.update((id(caller), _owner(call)))
        return asked

    def _check_room(self, call: Call, used: int, limit: int, whose: str) -> None:
        """Raises RateLimitError. How much all others have is nobody's business: `whose` is empty for these."""
        if used < limit:
            return
        call.rule = "limit: pending approvals"
        details: list[dict[str, Any]] = [{"type": "quota_info", "limit": limit, "used": used}] if whose else []
        details.append({"type": "retry_info", "retryDelayMs": RETRY_MS})
        many = f"{used} calls {whose}" if whose else "too many calls"
        message = f"tool {call.name!r} needs approval, and {many} wait for some: nobody is asked"
        raise RateLimitError(message, retry_after=RETRY_MS / 1000, details=details)

    def _show(self, asked: Asked, call: Call) -> None:
        assert self._wheel is not None
        left = asked.expires_in - (call.caller.now() - asked.at)
        asked.is_open = True
        asked.alarm = self._wheel.after(min(max(left, 0.0), asked.expires_in), partial(self._expire, asked))
        call.caller.waits_outside(call)
        if self.callbacks and self._tell is not None:
            self._tell(asked.approval(), self.callbacks)

    def _is_open(self, asked: Asked) -> bool:
        """A session that has ended takes its questions back a turn later."""
        return asked.is_open and asked.call is not None and not asked.call.is_settled

    def _expire(self, asked: Asked) -> None:
        if self._is_open(asked):
            self._give(asked, Answer("expired"))

    def _give(self, asked: Asked, answer: Answer, may: May | None = None) -> Awaitable[None] | None:
        call = asked.call
        if call is None or not self._is_open(asked):  # an answer to another of its calls has ended the session
            return None
        asked.give(answer, may)
        self._remember(asked)
        return call.caller.answered(call, asked)

    def _take_back(self, asked: Asked, call: Call) -> None:
        asked.close()
        if self._pending.pop(asked.id, None) is not None:
            for holder in (id(call.caller), _owner(call)):
                self._held[holder] -= 1
                if not self._held[holder]:
                    del self._held[holder]

    def _remember(self, asked: Asked) -> None:
        loop = asyncio.get_running_loop()
        self._answered[asked.id] = (loop.time() + ANSWERED_SECONDS, asked)
        self._answered_bytes += asked.size_bytes
        asked.drop = self._drop
        self._forget_old()

    def _drop(self, asked: Asked) -> None:
        if self._answered.pop(asked.id, None) is not None:
            self._answered_bytes -= asked.size_bytes

    def _forget_old(self) -> None:
        now = asyncio.get_running_loop().time()
        answered = self._answered
        while answered:
            until, asked = next(iter(answered.values()))
            few = len(answered) <= MAX_ANSWERED and self._answered_bytes <= MAX_ANSWERED_BYTES
            if few and now < until:
                return
            self._drop(asked)

    # -- life ------------------------------------------------------------------------------------------------------

    def attach(self, wheel: Wheel, tell: Callable[[Approval, Sequence[OnApproval]], None]) -> None:
        """The broker has started. `tell` calls callbacks, each once, and harms nothing."""
        self._wheel = wheel
        self._tell = tell

    def detach(self) -> None:
        """It has ended, or its loop has: nothing waits any more."""
        self._pending.clear()
        self._held.clear()
        self._answered.clear()
        self._answered_bytes = 0
        self._wheel = self._tell = None


def _owner(call: Call) -> Owner:
    return call.caller.principal.tenant, call.caller.principal.subject
