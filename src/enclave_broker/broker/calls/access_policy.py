"""A policy as it stands at one moment: rules in their order, and what holds where none applies.

Owns how one call is decided. Where the rules come from, and that others may follow, is access.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enclave_broker.broker.calls.access_conditions import RuleError
from enclave_broker.broker.calls.access_index import RuleIndex
from enclave_broker.broker.calls.access_rule import Decision, Rule

__all__ = ["Policy"]

_NO_NAME = Decision("deny", None, "this can't be a tool's name")


class Policy:
    """Immutable: whoever has it sees one policy, whatever is loaded meanwhile. Raises RuleError."""

    def __init__(self, default_policy: Any, rules: Iterable[Rule], *, where: str = "") -> None:
        if default_policy not in ("allow", "deny"):
            hint = '; Rule("*", allow="ask") as the last asks' if default_policy == "ask" else ""
            raise RuleError(f"default_policy is deny or allow, not {default_policy!r}{hint}", ("default_policy",))
        self.default = Decision(default_policy, None, f"no rule applies, and the default is to {default_policy}", where)
        if not isinstance(rules, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise RuleError("rules is a list, even of one")
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, Rule):  # pyright: ignore[reportUnnecessaryIsInstance] input
                raise RuleError(f"each of the rules is made by Rule(...), not {rule!r}")
        self._index = RuleIndex(self.rules)

    def decide(self, name: str, facts: Mapping[str, Any], args: Mapping[str, Any]) -> Decision:
        """What the first rule that applies says."""
        rules = self._index.find(name)
        if rules is None:
            return _NO_NAME
        for rule in rules:
            decision = rule.decide(facts, args)
            if decision is not None:
                return decision
        return self.default

    def decide_name(self, name: str, facts: Mapping[str, Any]) -> Decision | None:
        """The same where it doesn't matter what the arguments are, else None."""
        rules = self._index.find(name)
        if rules is None:
            return _NO_NAME
        depends = False
        for rule in rules:
            decision = rule.decide_for(facts)
            if rule.when is None:
                return decision if not depends or decision.verdict == "deny" else None
            if decision.verdict != "deny":
                return None
            depends = True
        return self.default if not depends or self.default.verdict == "deny" else None
