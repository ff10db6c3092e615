"""A policy in a YAML file: read into rules, and read again when the file has changed.

default_policy: deny
rules:
  - pattern: "refunds:*"
    allow: ask                        # true, false or ask
    when: {amount: {le: 100}}
    approvers: {role: supervisor}
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from enclave_broker.broker.calls.access_conditions import RuleError
from enclave_broker.broker.calls.access_policy import Policy
from enclave_broker.broker.calls.access_rule import Rule
from enclave_broker.broker.calls.access_yaml import LineError, Node, read_yaml
from enclave_broker.broker.tools.names import nearest
from enclave_broker.types.errors import ConfigurationError

__all__ = ["PolicyFile"]

log = logging.getLogger("enclave_broker.access")

CHECK_SECONDS = 1.0
_MAX_BYTES = 16 * 1024 * 1024  # some 100,000 rules
_RULE_KEYS = ("pattern", "allow", "unless", "when", "approvers", "expires_in", "reason")
_POLICY_KEYS = ("default_policy", "rules")


class PolicyFile:
    """One file, and what was seen of it last. `clock` tells seconds, since whenever."""

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float]) -> None:
        self._name = os.fspath(path)
        self._path = Path(path).absolute()
        self._clock = clock
        self._seen: tuple[int, ...] | None = None
        self._due = 0.0
        self._looking = threading.Lock()

    def read(self) -> Policy:
        """Raises ConfigurationError that begins with the file and, where there is one, the line."""
        self._due = self._clock() + CHECK_SECONDS
        try:
            with self._path.open("rb") as file:
                self._seen = _signature(os.fstat(file.fileno()))
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"{self._name}: {error.strerror or error}") from None
        if len(data) > _MAX_BYTES:
            raise ConfigurationError(f"{self._name}: a policy has at most {_MAX_BYTES >> 20} MiB")
        try:
            return _policy(read_yaml(data), self._name)
        except LineError as error:
            raise ConfigurationError(f"{self._name}:{error.line}: {error.message}") from None

    def changed(self) -> Policy | None:
        """What it says now, if it has changed. It is looked at once a second at most, by one thread at a time.

        Whoever writes it should do so in one step, by renaming: half a file may be a policy, too. One that is broken or
        gone is logged, once, and is None.
        """
        if self._clock() < self._due or not self._looking.acquire(blocking=False):
            return None
        try:
            return self._look()
        except ConfigurationError as error:
            log.error("the policy isn't loaded again, the rules before stay: %s", error.message)
            return None
        finally:
            self._looking.release()

    def _look(self) -> Policy | None:
        self._due = self._clock() + CHECK_SECONDS
        try:
            signature = _signature(self._path.stat())
        except OSError:
            signature = None
        if signature == self._seen:
            return None
        self._seen = signature
        policy = self.read()
        log.info("%s is loaded again: %d rules", self._name, len(policy.rules))
        return policy


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def _policy(root: Node, name: str) -> Policy:
    fields = _fields(root, "a policy", _POLICY_KEYS, needed=("rules",))
    listed = fields["rules"]
    if not isinstance(listed.value, list):
        raise LineError(listed.line, "rules is a list, each rule with a - in front")
    rules = [_rule(node, name) for node in listed.value]
    default = fields.get("default_policy", Node("deny", root.line))
    try:
        return Policy(default.plain(), rules, where=f"{name}:{default.line}")
    except RuleError as error:
        raise LineError(default.line, error.message) from None


def _rule(node: Node, name: str) -> Rule:
    fields = _fields(node, "a rule", _RULE_KEYS, needed=("pattern", "allow"))
    options: dict[str, Any] = {key: value.plain() for key, value in fields.items()}
    pattern = options.pop("pattern")
    if not isinstance(pattern, str):
        raise LineError(
            fields["pattern"].line, "pattern is a string; one that begins with {, [, ! or * stands in quotes"
        )
    try:
        return Rule(pattern, **options, where=f"{name}:{node.line}")
    except RuleError as error:
        raise LineError(_line(node, error.path), error.message) from None


def _fields(node: Node, what: str, known: Collection[str], *, needed: Collection[str]) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise LineError(node.line, f"{what} has {', '.join(known)}, each with a : behind its name")
    fields = node.value
    for key, value in fields.items():
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"{what} has {', '.join(known)}"
            raise LineError(value.line, f"unknown key {key!r}; {hint}")
        if value.value is None:
            raise LineError(value.line, f"{key} is empty; write its value, or leave it out")
    for key in needed:
        if key not in fields:
            raise LineError(node.line, f"{what} needs {' and '.join(needed)}; {key} is missing")
    return fields


def _line(node: Node, path: tuple[str, ...]) -> int:
    """Of what a path leads to, as far as it leads."""
    for step in path:
        if not isinstance(node.value, dict) or step not in node.value:
            break
        node = node.value[step]
    return node.line
