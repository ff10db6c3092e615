"""Which rules' patterns fit a name, in the rules' order, at a cost that hardly grows with their number.

Each pattern is filed under one literal that every name that fits has: the whole name, its beginning, its end, or up to
four characters within; the one that fewest other patterns have. A name is held only against what is filed under
something that it has, and Glob.matches has the last word. What was found is remembered, within a bound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from enclave_broker.broker.calls.access_rule import Rule
from enclave_broker.broker.tools.names import is_name

__all__ = ["RuleIndex"]

_MAX_REMEMBERED = 1 << 14  # names and the rules found for them, together: some 7 MB of the longest names
_GRAM = 4  # characters that are looked for anywhere: longer ones would be rarer, but each length costs a pass
_GAP = "\0"  # stands for what a pattern leaves open; neither names nor patterns have it
_TOKEN = re.compile(r"\\(?P<literal>.)|\[(?:\\.|[^\]\\])*\]|.")

_WHOLE, _PREFIX, _SUFFIX, _WITHIN, _ANY = range(5)  # the first is the cheapest to look up


class _Key(NamedTuple):
    kind: int
    literal: str


class RuleIndex:
    """Never changes but for what it remembers; several threads may use it."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._filed: tuple[dict[str, list[int]], ...] = tuple({} for _ in range(5))
        self._file()
        _, prefixes, suffixes, within, _ = self._filed
        self._prefixes = _Lengths(prefixes)
        self._suffixes = _Lengths(literal[::-1] for literal in suffixes)
        self._grams = sorted({len(literal) for literal in within})
        self._remembered: dict[str, tuple[Rule, ...]] = {}
        self._room = _MAX_REMEMBERED

    def find(self, name: str) -> tuple[Rule, ...] | None:
        """The rules whose patterns fit, up to the first without `when`: none behind it applies. None for no name."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] a host's code may not be typed
            return None
        known = self._remembered.get(name)
        if known is None and is_name(name):
            known = tuple(self._fitting(name))
            self._remember(name, known)
        return known

    def near(self, name: str) -> list[int]:
        """The places of the rules that `name` has to be held against, in order."""
        whole, prefixes, suffixes, within, anything = self._filed
        found = [*whole.get(name, ()), *anything.get("", ())]
        for length in self._prefixes.of(name):
            found += prefixes.get(name[:length], ())
        for length in self._suffixes.of(name[::-1]):
            found += suffixes.get(name[-length:], ())
        for length in self._grams:
            for start in range(len(name) - length + 1):
                found += within.get(name[start : start + length], ())
        return sorted(set(found))  # a rule with braces may be found twice

    def _fitting(self, name: str) -> Iterator[Rule]:
        for place in self.near(name):
            rule = self._rules[place]
            if rule.glob.matches(name):
                yield rule
                if rule.when is None:
                    return

    def _remember(self, name: str, rules: tuple[Rule, ...]) -> None:
        self._room -= 1 + len(rules)
        if self._room < 0:  # a script may ask for a million names; those in use are soon found again
            self._remembered.clear()
            self._room = _MAX_REMEMBERED - 1 - len(rules)
        if self._room >= 0:
            self._remembered[name] = rules

    def _file(self) -> None:
        shapes = [_shapes(rule.pattern) for rule in self._rules]
        usual = Counter(key for ways in shapes for way in ways for key in _keys(way))
        settled: set[str] = set()
        for place, (rule, ways) in enumerate(zip(self._rules, shapes, strict=True)):
            if rule.pattern in settled:
                continue  # behind one that applies to the same names, whatever the arguments
            if rule.when is None:
                settled.add(rule.pattern)
            for way in ways:
                key = min(_keys(way), key=lambda key: (usual[key], key.kind, -len(key.literal)))
                self._filed[key.kind].setdefault(key.literal, []).append(place)


class _Lengths:
    """How long the literals are that a name may begin with, told by as many characters as the shortest of them has."""

    def __init__(self, literals: Iterable[str]) -> None:
        literals = list(literals)
        self._head = min(map(len, literals), default=0)
        found: dict[str, set[int]] = {}
        for literal in literals:
            found.setdefault(literal[: self._head], set()).add(len(literal))
        self._lengths = {head: tuple(sorted(lengths)) for head, lengths in found.items()}

    def of(self, name: str) -> tuple[int, ...]:
        return self._lengths.get(name[: self._head], ())


def _keys(way: str) -> list[_Key]:
    """All that the way could be filed under; never none."""
    first, *others = way.split(_GAP)
    if not others:
        return [_Key(_WHOLE, first)]
    *middle, last = others
    keys = [_Key(_PREFIX, first)] * bool(first) + [_Key(_SUFFIX, last)] * bool(last)
    for run in filter(None, middle):
        keys += [_Key(_WITHIN, run[start : start + _GRAM]) for start in range(max(1, len(run) - _GRAM + 1))]
    return keys or [_Key(_ANY, "")]


def _shapes(pattern: str) -> list[str]:
    """All ways through the braces of a pattern that is known to be right, a gap for each thing that isn't a literal."""
    tokens: list[str] = []
    for token in _TOKEN.finditer(pattern):
        text, literal = token[0], token["literal"]
        if literal is not None:
            tokens.append(_GAP if literal in "{,}" else literal)  # braces are in no name
        else:
            tokens.append(_GAP if text in "*?" or text.startswith("[") else text)
    return _ways(tokens[::-1])


def _ways(left: list[str]) -> list[str]:
    """Takes from the end of `left` what belongs to one pair of braces."""
    done: list[str] = []
    ways = [""]
    while left and (token := left.pop()) != "}":
        match token:
            case "{":
                inner = _ways(left)
                ways = [way + choice for way in ways for choice in inner]
            case ",":
                done += ways
                ways = [""]
            case _:
                ways = [way + token for way in ways]
    return list(dict.fromkeys(done + ways))
