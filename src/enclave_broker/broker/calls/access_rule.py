"""One access rule: whether it applies to a call, and what it decides then.

Owns what a rule may say and how it is held to that when it is loaded. Which rule comes first is access_index.py's.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from pathlib import PurePath
from typing import Any, Literal

from enclave_broker.broker.calls.access_conditions import Condition, RuleError, on_arguments, on_facts
from enclave_broker.broker.calls.access_values import copy_value
from enclave_broker.broker.tools.globs import Glob, compile_glob
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import seconds

__all__ = ["Decision", "Rule", "Verdict"]

log = logging.getLogger("enclave_broker.access")

Verdict = Literal["allow", "ask", "deny"]
Facts = Mapping[str, Any]
Ask = Callable[[Any], bool]
"""A host's own condition. It gets the context or the arguments, which it must not change."""

_VERBS: Mapping[Verdict, str] = {"allow": "allows", "ask": "asks a person", "deny": "denies"}
_MAX_REASON_CHARACTERS = 1_000
_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says to one call. `rule` is None when none applied; `where` is its file and line, maybe empty.

    `reason` is one sentence that holds nothing of arguments, facts or exceptions.
    """

    verdict: Verdict
    rule: Rule | None
    reason: str
    where: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """What happens to calls of names that fit `pattern`. The first rule that applies to a call decides.

    `allow`: True, False, or "ask" for a person's approval, which `approvers` may give within `expires_in` seconds.
    `when`: the rule applies only to such arguments. Paths such as "address.city" lead through objects to a value, which
    has to be equal, or to hold to words: `{"amount": {"gt": 0, "le": 100}}`. The words are eq, ne, in, not_in; lt, le,
    gt, ge for numbers and strings; min_length, max_length for strings, lists and objects; pattern, a regular expression
    of RE2 that is found anywhere in a string unless ^ and $ say otherwise.
    `unless`: turns the verdict (deny to allow, allow to deny, ask to allow) if each of these facts of the context is
    the value, or a list or set in which that string or number is. A list of values means any of them.
    `approvers`: facts of whoever approves, written like `unless`; None for no demand.

    Each condition may be a function instead: of the arguments for `when`, of the context for the others. It must return
    True or False and can't be async. If it raises, or can't tell, the rule applies and denies.

    What is compared must be there and of one kind: 1 is not True, "7" is not 7, and a missing argument or fact
    satisfies nothing, not even `ne` or `not_in`. So a rule that denies *when* something holds lets through what it
    can't compare: allow what is known to be right, and deny the rest.

    `reason` is shown to whoever is refused. `where` is the rule's own place, by default the line that calls Rule.
    Raises ConfigurationError.
    """

    pattern: str
    _: KW_ONLY
    allow: bool | Literal["ask"]
    unless: Mapping[str, Any] | Ask | None = None
    when: Mapping[str, Any] | Ask | None = None
    approvers: Mapping[str, Any] | Ask | None = None
    expires_in: float | timedelta = 3600.0
    reason: str | None = None
    where: str = ""
    glob: Glob = field(init=False, repr=False)
    _unless: Condition | None = field(init=False, repr=False)
    _when: Condition | None = field(init=False, repr=False)
    _approvers: Condition | None = field(init=False, repr=False)
    _plain: Decision = field(init=False, repr=False)
    _turned: Decision = field(init=False, repr=False)
    _faults: set[str] = field(init=False, repr=False, default_factory=set[str])
    """The conditions whose fault has been logged."""

    def __post_init__(self) -> None:
        try:
            self._load()
        except RuleError as error:
            raise RuleError(f"rule {_shown(self.pattern)}: {error.message}", error.path) from None

    def decide(self, facts: Facts, args: Mapping[str, Any]) -> Decision | None:
        """None if the rule doesn't apply to these arguments. The name is known to fit."""
        if self._when is not None:
            applies = self._ask("when", self._when, args)
            if applies is False:
                return None
            if applies is not True:
                return applies
        return self.decide_for(facts)

    def decide_for(self, facts: Facts) -> Decision:
        """What it decides once it applies."""
        if self._unless is None:
            return self._plain
        turns = self._ask("unless", self._unless, facts)
        if turns is False:
            return self._plain
        return self._turned if turns is True else turns

    def may_approve(self, facts: Facts) -> bool:
        """Whether somebody with these facts is one of `approvers`."""
        return self._approvers is None or self._ask("approvers", self._approvers, facts) is True

    def _ask(self, option: str, condition: Condition, subject: Mapping[str, Any]) -> bool | Decision:
        """The condition's answer; if it has none, the decision that this makes."""
        try:
            return condition(subject)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the host's own function; SystemExit would end the loop
            if option not in self._faults:  # once: a script may call as often as it likes
                self._faults.add(option)
                log.exception("%s: `%s` of the rule %r failed; it denies", self.where, option, self.pattern)
            said = f"the rule {_shown(self.pattern)} denies, since its `{option}` raised {type(error).__name__}"
            return Decision("deny", self, said, self.where)

    # --- Loading -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self.allow is not True and self.allow is not False and self.allow != "ask":
            raise RuleError(f"allow is true, false or ask, not {self.allow!r}", ("allow",))
        if self.approvers is not None and self.allow != "ask":
            raise RuleError("approvers are asked only where allow is ask", ("approvers",))
        try:
            self._set("glob", compile_glob(self.pattern))
        except ConfigurationError as error:
            raise RuleError(error.message, ("pattern",)) from None
        try:
            self._set("expires_in", seconds(self.expires_in, "expires_in"))
        except ConfigurationError as error:
            raise RuleError(error.message, ("expires_in",)) from None
        reason: Any = self.reason
        if reason is not None and not (isinstance(reason, str) and 0 < len(reason) <= _MAX_REASON_CHARACTERS):
            raise RuleError(f"reason is a text of 1 to {_MAX_REASON_CHARACTERS} characters", ("reason",))
        for option, compiled in (("unless", on_facts), ("when", on_arguments), ("approvers", on_facts)):
            given: Any = getattr(self, option)
            self._set(f"_{option}", None if given is None else compiled(given, option))
            if isinstance(given, Mapping):
                self._set(option, copy_value(given))  # what is shown stays what was compiled
        self._set("where", self.where or _calling_line())
        verdict: Verdict = "ask" if self.allow == "ask" else "allow" if self.allow else "deny"
        said = f"the rule {_shown(self.pattern)} {_VERBS[verdict]}"
        self._set("_plain", Decision(verdict, self, self.reason or said, self.where))
        turned: Verdict = "deny" if verdict == "allow" else "allow"
        self._set("_turned", Decision(turned, self, f"{said}, but its `unless` holds", self.where))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _calling_line() -> str:
    """Where a Rule is written, as "app.py:14"."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():  # the dataclass's __init__, too
        frame = frame.f_back
    return f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else ""


def _shown(pattern: Any) -> str:
    text = repr(pattern)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
