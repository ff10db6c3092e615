"""Who may call what: the access controller, which answers from a policy and, for one in a file, follows its changes.

Rules are access_rule.py's, what the file looks like access_file.py's. The chain asks `decide_name` before the arguments
are validated and `decide` after; the command line and tests ask `check` and `explain`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from enclave_broker.broker.calls.access_file import PolicyFile
from enclave_broker.broker.calls.access_policy import Policy
from enclave_broker.broker.calls.access_rule import Decision, Rule

__all__ = ["AccessController", "Decision", "Rule"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class AccessController:
    """Decides by the first of its rules that applies to a call, or by `default_policy` where none does.

    A name that no tool can have is denied before any rule. The context holds facts of whoever calls; `args` are the
    validated arguments, and none is the same as an empty object. Nothing here waits; every thread may ask.
    Raises ConfigurationError.
    """

    def __init__(self, *, default_policy: Literal["allow", "deny"] = "deny", rules: Iterable[Rule] = ()) -> None:
        self._policy = Policy(default_policy, rules)
        self._file: PolicyFile | None = None

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        reload: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> AccessController:
        """The policy in a YAML file. See access_file.py for what it looks like.

        With `reload` the first question of a second looks whether the file has changed, and what it says then takes the
        place of all rules at once. A file that is broken or gone changes nothing: it is logged with its line, once.
        Raises ConfigurationError that begins with file and line, such as "policy.yaml:12: ".
        """
        file = PolicyFile(path, clock)
        controller = cls()
        controller._policy = file.read()
        controller._file = file if reload else None
        return controller

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._current().rules

    @property
    def default_policy(self) -> str:
        return self._current().default.verdict

    def check(self, name: str, context: Mapping[str, Any] = _NOTHING, args: Mapping[str, Any] | None = None) -> bool:
        """Whether the call is allowed right away: one that a person has to be asked about is not."""
        return self.explain(name, context, args).verdict == "allow"

    def explain(
        self, name: str, context: Mapping[str, Any] = _NOTHING, args: Mapping[str, Any] | None = None
    ) -> Decision:
        """The verdict, the rule that has decided, why, and its file and line."""
        return self.decide(name, context, _NOTHING if args is None else args)

    def decide(self, name: str, facts: Mapping[str, Any], args: Mapping[str, Any]) -> Decision:
        """What `explain` says, for the chain."""
        return self._current().decide(name, facts, args)

    def decide_name(self, name: str, facts: Mapping[str, Any]) -> Decision | None:
        """The decision by the name alone: None if only the arguments can tell.

        What is denied whatever the arguments are is denied here, so that nobody learns a forbidden tool's schema.
        """
        return self._current().decide_name(name, facts)

    def _current(self) -> Policy:
        """One policy, for one question."""
        if self._file is not None:
            changed = self._file.changed()
            if changed is not None:
                self._policy = changed
        return self._policy
