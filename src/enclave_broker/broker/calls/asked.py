"""One question to a person: which call, with which arguments, until when; and the answer, once.

Owns who may answer and what the call gets then. All that are open at a time are approvals.py's, what the log has of
them the session's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import msgspec

from enclave_broker.broker.calls.access_rule import Rule
from enclave_broker.broker.calls.call import Call
from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ApprovalDeniedError, ApprovalExpiredError, ToolError
from enclave_broker.types.principal import Principal

if TYPE_CHECKING:
    from enclave_broker.broker.wheel import Alarm

__all__ = ["Answer", "Asked", "May", "Word", "hash_of"]

DEFAULT_EXPIRES_IN = 3600.0
"""Seconds, for tools that want an approval without a rule that says so."""

Word = Literal["approved", "denied", "expired"]


May = Callable[["Asked"], bool]
"""Whether who has answered may answer this."""


class Answer(NamedTuple):
    """`by` is None for an expiry."""

    word: Word
    by: Principal | None = None
    reason: str = ""


def hash_of(args_json: bytes) -> str:
    """What an approval is bound to, and what the record of a start has: sha256 of the arguments' JSON text."""
    return hashlib.sha256(args_json).hexdigest()


class Asked:
    """`rule` is None for a tool's own `requires_approval`; `shown` is what history shows of what asks."""

    __slots__ = (
        "__weakref__",
        "_args_text",
        "_may",
        "alarm",
        "answer",
        "answered",
        "args_hash",
        "at",
        "call",
        "call_id",
        "drop",
        "expires_at",
        "expires_in",
        "id",
        "is_open",
        "principal",
        "rule",
        "session_id",
        "shown",
        "tool",
    )

    def __init__(self, id: str, call: Call, rule: Rule | None, shown: str) -> None:
        caller = call.caller
        self.id = id
        self.call: Call | None = call
        """None once it is answered: nothing of the session is held."""
        self.session_id = caller.id
        self.call_id = call.id
        self.tool = call.name
        self.principal = caller.principal
        self.rule = rule
        self.shown = shown
        self.args_hash = hash_of(call.args_json)
        self._args_text = _judged(call)
        self.at = caller.now()
        self.expires_in = DEFAULT_EXPIRES_IN if rule is None else cast("float", rule.expires_in)  # made one on loading
        self.expires_at = self.at + self.expires_in
        self.is_open = False
        """Whether it stands in the log for good, so that people may see it."""
        self.alarm: Alarm | None = None
        self.answer: Answer | None = None
        self._may: May | None = None
        self.drop: Callable[[Asked], None] | None = None
        """Called when it was answered and its session is forgotten."""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def size_bytes(self) -> int:
        """Of the arguments, as JSON."""
        return len(self._args_text)

    def forget(self) -> None:
        """The session is forgotten: nobody may see what it had asked any more."""
        if self.drop is not None:
            self.drop(self)

    def approval(self) -> Approval:
        """As people see it; a copy of its own."""
        return Approval(
            id=self.id,
            session_id=self.session_id,
            call_id=self.call_id,
            tool=self.tool,
            args=msgspec.json.decode(self._args_text),
            requested_by=self.principal,
            rule=self.shown,
            created_at=datetime.fromtimestamp(self.at, UTC),
            expires_at=datetime.fromtimestamp(self.expires_at, UTC),
        )

    def give(self, answer: Answer, may: May | None = None) -> None:
        """The answer; the call hears of it with the loop's next turn. Called once. `may` is None for an expiry."""
        assert self.answer is None
        self.answer = answer
        self._may = may
        self.close()
        if not self.answered.done():
            self.answered.set_result(None)

    def close(self) -> None:
        """Nobody is asked any more. Idempotent."""
        self.is_open = False
        self.call = None
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    def error(self) -> ToolError | None:
        """What the call fails with; None when it may go on."""
        assert self.answer is not None
        word, _, reason = self.answer
        details: list[dict[str, Any]] = [{"type": "approval_info", "approvalId": self.id}]
        if word == "expired":
            message = f"tool {self.tool!r}: nobody has approved the call within {self.expires_in:g} s"
            return ApprovalExpiredError(message, details=details)
        if word == "denied":
            message = f"tool {self.tool!r}: the call was not approved{f': {reason}' if reason else ''}"
            if reason:
                details[0]["reason"] = reason
            return ApprovalDeniedError(message, reason=reason, details=details)
        return None

    def holds_for(self, rule: Rule | None) -> bool:
        """Whether who has approved it could have done so, too, had this rule asked. Asked once, at most."""
        may, self._may = self._may, None
        if rule is self.rule:
            return True
        other = copy(self)
        other.rule = rule
        return may is not None and may(other)

    # -- who may answer --------------------------------------------------------------------------------------------

    def fits(self, facts: Mapping[str, Any]) -> bool:
        """Whether somebody with these facts is one of the rule's `approvers`, if it names any."""
        return self.rule is None or self.rule.may_approve(facts)

    def may_be_answered_by(self, by: Principal, facts: Mapping[str, Any]) -> bool:
        """Over HTTP: one of the same tenant, who fits; where no approvers are named, anybody of it but who has asked.

        Those without a tenant have nothing in common: only named approvers may. Where nobody is asked for a key, all
        are the same nobody, and that one may answer.
        """
        if by.tenant != self.principal.tenant or not self.fits(facts):
            return False
        named = self.rule is not None and self.rule.approvers is not None
        return named or by.is_anonymous or (bool(by.tenant) and by.subject != self.principal.subject)

    def may_be_seen_by(self, by: Principal, facts: Mapping[str, Any]) -> bool:
        """By who may answer, and by who has asked."""
        own = (by.tenant, by.subject) == (self.principal.tenant, self.principal.subject)
        return own or self.may_be_answered_by(by, facts)


def _judged(call: Call) -> bytes:
    """The arguments as JSON, defaults filled in; mostly the very text that was sent."""
    assert call.tool is not None
    try:
        text = msgspec.json.encode(call.tool.arguments(call.validated))
    except (TypeError, ValueError, RecursionError):  # a type of the tool's own that JSON doesn't know
        return call.args_json
    return call.args_json if text == call.args_json else text
