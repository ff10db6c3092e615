"""The conditions of access rules, `when` over arguments and `unless` and `approvers` over facts, compiled from what was
written.

A condition is a function of a mapping. True and False are its answers; it raises if it can't tell, and the rule denies
then. What is missing, or of another kind, makes it False, whatever the word: also for `ne` and `not_in`.
Owns the words and how facts hold a value. Rules are access_rule.py's.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs] it has none

from enclave_broker.broker.calls.access_values import Kind, copy_value, exact, is_same, kind_of
from enclave_broker.broker.tools.names import nearest
from enclave_broker.broker.tools.signature import underlying
from enclave_broker.types.errors import ConfigurationError

__all__ = ["Condition", "RuleError", "on_arguments", "on_facts"]

Condition = Callable[[Mapping[str, Any]], bool]
Test = Callable[[Any], bool]
"""Of one value that is there."""

MAX_SEARCH_WORK = 10_000_000  # instructions of a pattern times bytes of a text: some 70 ms at the very worst

_re2 = cast("Any", re2)


class RuleError(ConfigurationError):
    """A rule is wrong. `path` leads to where, such as ("when", "amount", "le")."""

    def __init__(self, message: str, path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


def on_arguments(given: Any, option: str) -> Condition:
    """A condition on a call's arguments: paths to tests, all of which must hold, or a function. Raises RuleError."""
    return _function(given, option) if callable(given) else _every(given, option, _argument)


def on_facts(given: Any, option: str) -> Condition:
    """A condition on the context: facts to values, all of which must hold, or a function. Raises RuleError."""
    return _function(given, option) if callable(given) else _every(given, option, _fact)


def _every(given: Any, option: str, compiled: Callable[[str, Any, tuple[str, str]], Condition]) -> Condition:
    if not isinstance(given, Mapping):
        raise RuleError(f"{option} is an object or a function, not {_shown(given)}", (option,))
    if not given:
        raise RuleError(f"{option} is empty, so it would always hold; leave it out", (option,))
    conditions: list[Condition] = []
    for name, wanted in cast("Mapping[Any, Any]", given).items():
        if not isinstance(name, str) or not name:
            raise RuleError(f"{option}: a name is a string that isn't empty, not {name!r}", (option,))
        conditions.append(compiled(name, wanted, (option, name)))
    if len(conditions) == 1:
        return conditions[0]
    return lambda subject: all(condition(subject) for condition in conditions)


# --- Functions -------------------------------------------------------------------------------------------------------


def _function(function: Callable[..., Any], option: str) -> Condition:
    """One that the host has written. It is called on the event loop, so it can't wait for anything."""
    called = underlying(function)
    if inspect.isclass(function):
        raise RuleError(f"{option} is the class {function.__name__}, not a function", (option,))
    if any(map(inspect.iscoroutinefunction, (function, called))) or inspect.isasyncgenfunction(called):
        raise RuleError(
            f"{option} is async; a rule is decided at once: look facts up before, in the context", (option,)
        )
    if inspect.isgeneratorfunction(called):
        raise RuleError(f"{option} yields; it has to return True or False", (option,))
    _check_takes_one(function, option)

    def ask(subject: Mapping[str, Any]) -> bool:
        answer = function(subject)
        if answer is True or answer is False:
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{option} returned {type(answer).__name__}, not True or False")

    return ask


def _check_takes_one(function: Callable[..., Any], option: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some that are written in C have none
    try:
        signature.bind(object())
    except TypeError:
        what = "the arguments" if option == "when" else "the context"
        raise RuleError(f"{option} has to take one argument, {what}, not {signature}", (option,)) from None


# --- Facts -----------------------------------------------------------------------------------------------------------


def _fact(name: str, wanted: Any, path: tuple[str, ...]) -> Condition:
    wanted = _copy(wanted, path)
    if isinstance(wanted, dict):
        raise RuleError(f"{'.'.join(path)} is a value or a list of values; for anything else write a function", path)
    if wanted == []:
        raise RuleError(f"{'.'.join(path)} is an empty list, which no fact is in", path)
    holds = _any_of(cast("list[Any]", wanted)) if isinstance(wanted, list) else _holding(wanted)

    def condition(facts: Mapping[str, Any]) -> bool:
        return name in facts and holds(facts[name])

    return condition


def _any_of(values: list[Any]) -> Test:
    tests = [_holding(value) for value in values]
    return lambda fact: any(test(fact) for test in tests) or is_same(fact, values)


def _holding(value: Any) -> Test:
    """Whether a fact is this value or, for a string or a number, a list or set that it is in.

    A flag is in nothing: [True] is not True.
    """
    kind = kind_of(value)
    if kind not in {"string", "number"}:
        return lambda fact: is_same(fact, value)

    def holds(fact: Any) -> bool:
        if not isinstance(fact, frozenset | set | list | tuple):
            return is_same(fact, value)
        if kind == "string":
            return value in fact  # nothing else is equal to a string
        return any(is_same(item, value) for item in cast("Collection[Any]", fact))

    return holds


# --- Arguments -------------------------------------------------------------------------------------------------------


def _argument(name: str, given: Any, path: tuple[str, ...]) -> Condition:
    steps = name.split(".")
    if not all(steps) or "[" in name:
        raise RuleError(
            f"{'.'.join(path)}: a path is names with dots between, through objects only; "
            "for the items of a list write a function",
            path,
        )
    tests = _tests(given, path)

    def condition(args: Mapping[str, Any]) -> bool:
        value: Any = args
        for step in steps:
            # A dict first: asking an abstract class costs as much as a test.
            if (type(value) is not dict and not isinstance(value, Mapping)) or step not in value:
                return False
            value = cast("Any", value[step])
        for test in tests:  # noqa: SIM110 all() costs as much as several tests
            if not test(value):
                return False
        return True

    return condition


def _tests(given: Any, path: tuple[str, ...]) -> list[Test]:
    if not isinstance(given, Mapping):
        return [_equal(_copy(given, path))]
    if not given:
        raise RuleError(f"{'.'.join(path)} says nothing; its words are {', '.join(_WORDS)}", path)
    tests: list[Test] = []
    for word, operand in cast("Mapping[Any, Any]", given).items():
        here = (*path, str(word))
        if word not in _WORDS:
            near = nearest(str(word), _WORDS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(_WORDS)}"
            raise RuleError(f"{'.'.join(path)}: unknown word {word!r}; {hint}", here)
        try:
            tests.append(_WORDS[word](copy_value(operand)))
        except ValueError as error:
            raise RuleError(f"{'.'.join(here)}: {error}", here) from None
    return tests


def _equal(wanted: Any) -> Test:
    return lambda value: is_same(value, wanted)


def _not_equal(wanted: Any) -> Test:
    if wanted is None:
        raise ValueError("null has no other value of its kind, so this would never hold")
    return _not_in([wanted])


def _in(wanted: Any) -> Test:
    values = _list(wanted)
    return lambda value: any(is_same(value, each) for each in values)


def _not_in(wanted: Any) -> Test:
    values = _list(wanted)
    kinds: set[Kind | None] = {kind_of(each) for each in values}
    if kinds == {"null"}:
        raise ValueError("null has no other value of its kind, so this would never hold")
    return lambda value: kind_of(value) in kinds and not any(is_same(value, each) for each in values)


def _list(wanted: Any) -> list[Any]:
    if not isinstance(wanted, list) or not wanted:
        raise ValueError(f"a list that isn't empty, not {_shown(wanted)}")
    return cast("list[Any]", wanted)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Test]:
    def compiled(bound: Any) -> Test:
        kind = kind_of(bound)
        if kind not in {"number", "string"}:
            raise ValueError(f"a number or a string, not {_shown(bound)}")
        decimal = exact(bound)
        return lambda value: kind_of(value) == kind and compare(value, decimal if type(value) is Decimal else bound)

    return compiled


def _long(compare: Callable[[int, int], bool]) -> Callable[[Any], Test]:
    def compiled(bound: Any) -> Test:
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
            raise ValueError(f"a whole number of characters, items or fields, not {_shown(bound)}")
        return lambda value: kind_of(value) in {"string", "list", "object"} and compare(len(value), bound)

    return compiled


def _pattern(expression: Any) -> Test:
    """Found anywhere in a string, as by pydantic. In linear time; a text that is too long for it can't be judged."""
    if kind_of(expression) != "string":
        raise ValueError(f"a regular expression as a string, not {_shown(expression)}")
    options = _re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = _re2.compile(expression, options)
    except (_re2.error, UnicodeError) as error:
        reason: Any = error.args[0] if isinstance(error, _re2.error) and error.args else "it isn't Unicode"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"RE2 doesn't know this regular expression: {reason}") from None
    longest = MAX_SEARCH_WORK // max(1, compiled.programsize)

    def search(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        text = value.encode()
        if len(text) > longest:
            raise ValueError(f"a text of {len(text)} bytes is too long for the pattern {expression!r}")
        return compiled.search(text) is not None

    return search


_WORDS: Mapping[str, Callable[[Any], Test]] = {
    "eq": _equal,
    "ne": _not_equal,
    "lt": _ordered(operator.lt),
    "le": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "ge": _ordered(operator.ge),
    "in": _in,
    "not_in": _not_in,
    "pattern": _pattern,
    "min_length": _long(operator.ge),
    "max_length": _long(operator.le),
}


def _copy(value: Any, path: tuple[str, ...]) -> Any:
    try:
        return copy_value(value)
    except ValueError as error:
        raise RuleError(f"{'.'.join(path)}: {error}", path) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
