"""The one language of patterns over tool names, for allow-lists, rules, routes and limits.

    *        any run of characters, `:` and `/` included       ?   one character
    [a-z_]   one of these characters      [!a]   one character that is none of these
    {a,b*}   one of these patterns        \\*    the next character itself

Case-sensitive; nothing is normalised; a pattern fits the whole name or not at all. What such a pattern can't mean (`!`
in front, `#`, `+(a)`, blanks, an open bracket) is a ConfigurationError when it is loaded. Matching never backtracks.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from enclave_broker.types.errors import ConfigurationError

__all__ = ["Glob", "Shape", "compile_glob", "compile_globs"]

_MAX_PATTERN_CHARACTERS = 1_024  # four names long; braces with many names fit
_MAX_EXPANDED_CHARACTERS = 8_192  # of all ways through the braces: bounds one match to about a millisecond
_MAX_LISTED_CHARACTERS = 262_144  # of a list: a thousand names of the longest kind, and some
_MAX_LISTED_GLOBS = 50  # of a list, beside names and beginnings such as orders:*
_MAX_LISTED_EXPANDED = 1_024  # characters of those, of all ways through their braces: read in a few milliseconds
_LITERALS = frozenset(string.ascii_letters + string.digits + "_.:/@-")
_ESCAPABLE = frozenset(string.ascii_letters + string.digits + string.punctuation)

_FEW = 4  # patterns that are as quickly tried as looked up
_MAX_SHOWN = 80  # characters of a pattern in a message
_MAX_DEPTH = 8  # braces in braces

Tokens = tuple[str, ...]  # each a piece of regular expression for one character, or _STAR
_STAR = "*"
_ANY = "(?s:.)"
_PLAIN = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.:/@-]*|(?=\*))(\*?)")  # a name, or how names begin and * behind it
_RANGE = re.compile(r"\{[^{},\[\]]*\.\.[^{},\[\]]*\}")  # {1..3}
_NO_BEGINNING = frozenset(".:/@-")


class Shape(NamedTuple):
    """What every name that fits one way through a pattern's braces has: for indexes, no substitute for matching."""

    prefix: str
    """It begins with this; it is this if there are no `runs`."""
    suffix: str
    runs: tuple[str, ...] | None
    """What it contains between them, in order and apart from each other. None: nothing is special in the way."""
    is_open: bool
    """Whether anything may stand between prefix and suffix, so that they decide alone."""


@dataclass(frozen=True)
class Glob:
    """A compiled pattern. Two globs of the same pattern are equal."""

    pattern: str
    literal_prefix: str = field(compare=False)
    """What every name that fits begins with, as far as the pattern says it before its first special character."""
    exact: bool = field(compare=False)
    """Whether only the name `literal_prefix` fits."""
    _regex: re.Pattern[str] | _Listed | None = field(compare=False, repr=False)

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` fits. Any string may be asked; the grammar of names is checked elsewhere."""
        if self.exact:
            return name == self.literal_prefix
        if not name.startswith(self.literal_prefix):
            return False
        return self._regex is None or self._regex.fullmatch(name) is not None

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """One for each way through the braces: a name that fits the pattern has one of these shapes."""
        return tuple(map(_shape, _Parser(self.pattern).parse()))

    @cached_property
    def example(self) -> str:
        """A text that fits."""
        if self.exact:
            return self.literal_prefix
        return "".join(map(_one, _Parser(self.pattern).parse()[0]))

    def __str__(self) -> str:
        return self.pattern


class _Listed(NamedTuple):
    """What fits one of many names or beginnings, found at once."""

    names: frozenset[str]
    beginnings: tuple[str, ...]

    def fullmatch(self, name: str) -> str | None:
        return name if name in self.names or name.startswith(self.beginnings) else None


def compile_glob(pattern: str) -> Glob:
    """The glob of `pattern`.

    Raises ConfigurationError that quotes the pattern and says what is wrong where.
    """
    if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(f"a pattern is a string, not {type(pattern).__name__}")
    return _plain(pattern) or _compile(pattern, _Parser(pattern).parse())


def compile_globs(patterns: Collection[str] | None) -> tuple[Glob, ...] | None:
    """Those of an allow-list, many names as one; None, for no list, stays None.

    A list may come from outside, so that what it costs is bounded as a whole; a thousand names are within that.
    Raises ConfigurationError.
    """
    if patterns is None:
        return None
    if not isinstance(patterns, list | tuple | set | frozenset):
        raise ConfigurationError(f"allowed_tools is a list of names and globs, not {patterns!r}")
    if sum(len(pattern) for pattern in patterns if isinstance(pattern, str)) > _MAX_LISTED_CHARACTERS:  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(f"the patterns have more than {_MAX_LISTED_CHARACTERS:,} characters together")
    globs: list[Glob] = []
    globbing, budget = 0, _MAX_LISTED_EXPANDED
    for pattern in patterns:
        glob = _plain(pattern) if isinstance(pattern, str) else compile_glob(pattern)  # pyright: ignore[reportUnnecessaryIsInstance] input
        if glob is None:
            globbing += 1
            if globbing > _MAX_LISTED_GLOBS:
                raise ConfigurationError(
                    f"more than {_MAX_LISTED_GLOBS} patterns in one list, beside names and such as orders:*"
                )
            ways = _Parser(pattern, budget).parse()
            budget -= max(len(pattern), _size(ways))
            glob = _compile(pattern, ways)
        globs.append(glob)
    return tuple(globs) if len(globs) <= _FEW else _joined(globs)


def _joined(globs: list[Glob]) -> tuple[Glob, ...]:
    """The same with names and beginnings in one, which a call then asks instead of each."""
    plain: list[Glob] = []
    others: list[Glob] = []
    for glob in globs:
        (plain if _plain(glob.pattern) else others).append(glob)
    names = frozenset(glob.literal_prefix for glob in plain if glob.exact)
    beginnings = tuple(dict.fromkeys(glob.literal_prefix for glob in plain if not glob.exact))
    pattern = f"{{{','.join(glob.pattern for glob in plain)}}}"
    return (Glob(pattern, "", exact=False, _regex=_Listed(names, beginnings)), *others)


def _plain(pattern: str) -> Glob | None:
    """The glob of a name, or of how names begin with * behind it: told at a glance. None for every other pattern."""
    found = _PLAIN.fullmatch(pattern)
    if found is None or len(pattern) > _MAX_PATTERN_CHARACTERS:
        return None
    return Glob(pattern, found[1], not found[2], None)


def _compile(pattern: str, ways: list[Tokens]) -> Glob:
    prefix, exact = _literal_prefix(pattern)
    if exact or (len(ways) == 1 and ways[0][-1:] == (_STAR,) and len(ways[0]) == len(prefix) + 1):
        return Glob(pattern, prefix, exact, None)
    return Glob(pattern, prefix, exact, re.compile("|".join(map(_linear, ways)), re.DOTALL))


def _size(ways: list[Tokens]) -> int:
    return len(ways) + sum(map(len, ways))


def _linear(way: Tokens) -> str:
    """A regular expression that never tries a second time: each run between stars is found at its first place and kept.

    That is enough because a run has a fixed length, and leaving more of the name to the rest never hurts.
    """
    runs = [""]
    for token in way:
        if token == _STAR:
            runs.append("")
        else:
            runs[-1] += "." if token == _ANY else token
    if len(runs) == 1:
        return f"(?:{runs[0]}\\Z)"
    first, *middle, last = runs
    found = "".join(f"(?>.*?{run})" for run in middle if run)
    # The last run stands at the end, wherever it might have been found before that.
    end = f"(?>.*?(?={last}\\Z)){last}" if last else ".*"
    return f"(?:{first}{found}{end}\\Z)"


def _literal_prefix(pattern: str) -> tuple[str, bool]:
    prefix: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character in "*?[{":
            return "".join(prefix), False
        prefix.append(next(characters) if character == "\\" else character)
    return "".join(prefix), True


def _one(token: str) -> str:
    """A character that fits the token."""
    if len(token) == 1 or token[0] == "\\":
        return "x" if token == _STAR else token[-1]
    return next(filter(re.compile(token).fullmatch, "x" + string.printable + "é"))


def _shape(way: Tokens) -> Shape:
    runs: list[list[str]] = [[]]
    for token in way:
        if token != _STAR and (len(token) == 1 or token[0] == "\\"):
            runs[-1].append(token[-1])
        else:
            runs.append([])
    first, *middle = map("".join, runs)
    if not middle:
        return Shape(first, "", None, is_open=False)
    is_open = way[len(first) : len(way) - len(middle[-1])] == (_STAR,)
    return Shape(first, middle[-1], tuple(filter(None, middle[:-1])), is_open)


class _Parser:
    """Reads one pattern into all ways through its braces, which have at most `most` characters together."""

    def __init__(self, pattern: str, most: int = _MAX_EXPANDED_CHARACTERS) -> None:
        self.pattern = pattern
        self.most = most
        self.at = 0

    def parse(self) -> list[Tokens]:
        if not self.pattern:
            raise ConfigurationError("a pattern can't be empty; * is every name")
        if len(self.pattern) > _MAX_PATTERN_CHARACTERS:
            raise ConfigurationError(
                f"the pattern {self.pattern[:_MAX_SHOWN] + '…'!r} has {len(self.pattern)} characters; "
                f"{_MAX_PATTERN_CHARACTERS} are the most"
            )
        if self.most < _MAX_EXPANDED_CHARACTERS and len(self.pattern) > self.most:
            raise self.too_large()
        ways = self.sequence(0)
        if self.pattern[0] in _NO_BEGINNING:
            self.at = 0
            raise self.fault(f"it fits no name, since none begins with {self.pattern[0]}")
        if not any(ways):
            raise self.fault("it fits no name")
        return ways

    def fault(self, reason: str) -> ConfigurationError:
        shown = self.pattern if len(self.pattern) <= _MAX_SHOWN else self.pattern[:_MAX_SHOWN] + "…"
        return ConfigurationError(f"the pattern {shown!r}: {reason} (character {self.at + 1})")

    def peek(self) -> str:
        return self.pattern[self.at] if self.at < len(self.pattern) else ""

    def sequence(self, depth: int) -> list[Tokens]:
        ways: list[Tokens] = [()]
        while character := self.peek():
            if depth and character in ",}":
                break
            if character == "{":
                ways = self.product(ways, self.braces(depth + 1))
            else:
                token = self.token(character)
                ways = [way if token == _STAR and way[-1:] == (_STAR,) else (*way, token) for way in ways]
                self.check_size(len(ways), sum(map(len, ways)))
        return ways

    def product(self, left: list[Tokens], right: list[Tokens]) -> list[Tokens]:
        tokens = len(left) * sum(map(len, right)) + len(right) * sum(map(len, left))
        self.check_size(len(left) * len(right), tokens)
        return list(dict.fromkeys(a[:-1] + b if a[-1:] == b[:1] == (_STAR,) else a + b for a in left for b in right))

    def check_size(self, ways: int, tokens: int) -> None:
        if ways + tokens > self.most:
            raise self.too_large()

    def too_large(self) -> ConfigurationError:
        if self.most == _MAX_EXPANDED_CHARACTERS:
            return self.fault("its braces make too many patterns; write several patterns instead")
        most = f"{_MAX_LISTED_EXPANDED:,} characters together, each choice of braces written out"
        return self.fault(f"with it the patterns of one list, beside names and such as orders:*, have more than {most}")

    def braces(self, depth: int) -> list[Tokens]:
        if depth > _MAX_DEPTH:
            raise self.fault("braces are nested too deep")
        opened = self.at
        self.at += 1
        if self.peek() == "}":
            raise self.fault("empty braces")
        if found := _RANGE.match(self.pattern, opened):
            raise self.fault(f"{found[0][:_MAX_SHOWN]} is no range here: write {{1,2,3}} or [1-3]")
        ways: list[Tokens] = []
        while True:
            ways += self.sequence(depth)
            self.check_size(len(ways), sum(map(len, ways)))
            match self.peek():
                case ",":
                    self.at += 1
                case "}":
                    self.at += 1
                    return list(dict.fromkeys(ways))
                case _:
                    self.at = opened
                    raise self.fault("{ without }; a literal brace can't be in a name")

    def token(self, character: str) -> str:
        match character:
            case "*":
                self.at += 1
                return _STAR
            case "?":
                self.at += 1
                return _ANY
            case "[":
                return self.character_class()
            case _:
                return re.escape(self.literal())

    def literal(self) -> str:
        character = self.peek()
        if character == "\\":
            self.at += 1
            character = self.peek()
            if not character or character not in _ESCAPABLE:
                raise self.fault("\\ needs a character after it that can be seen")
        elif character not in _LITERALS:
            raise self.fault(_why_not(character, self.at))
        self.at += 1
        return character

    def character_class(self) -> str:
        opened = self.at
        self.at += 1
        negated = self.peek() == "!"
        self.at += negated
        parts: list[str] = []
        while (character := self.peek()) != "]":
            if not character:
                self.at = opened
                raise self.fault("[ without ]")
            low = high = self.literal()
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in {"", "]"}:
                self.at += 1
                high = self.literal()
                if high < low:
                    raise self.fault(f"the range {low}-{high} is the wrong way round")
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
        if not parts:
            raise self.fault("empty brackets")
        self.at += 1
        return f"[{'^' * negated}{''.join(parts)}]"


def _why_not(character: str, at: int) -> str:
    match character:
        case "!" if at == 0:
            return "! in front is no negation here: write a rule that denies, or [!a] for one character"
        case "#":
            return "# begins no comment here and can't be in a name"
        case "(" | ")" | "|" | "+":
            return "groups such as +(a|b) are not known here: write {a,b}"
        case "^":
            return "^ can't be in a name; brackets are negated by [!a]"
        case "]" | "}" | ",":
            return f"{character} without what opens it"
        case _:
            return f"{character!r} can't be in a name, so this would never fit"
