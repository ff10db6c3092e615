"""The content patterns of an event filter: exact, prefix, glob and regex, over UTF-8.

Owns what each kind means, how several are searched in one text, and what a search may cost; where the text comes from
is stream/fields.py's. Regular expressions are google-re2's, in linear time, but linear in text times pattern: both are
bounded. What needs none is done by methods of bytes.
Its globs are for contents: `*` is any run of characters and `?` one, line ends and `/` included; `\\` takes the next
character literally. Those over tool names are broker/tools/globs.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any, NamedTuple, cast

import re2  # pyright: ignore[reportMissingTypeStubs] it has none

__all__ = ["PATTERN_TYPES", "Pattern", "PatternCompiler", "PatternError", "Search"]

PATTERN_TYPES = ("exact", "prefix", "regex", "glob")

MAX_PATTERN_CHARACTERS = 1_000
MAX_EXPRESSIONS = 16  # each may hold its memory three times over, for each reader
MAX_INSTRUCTIONS = 1_000  # of all expressions of a filter, as RE2 compiles them
MAX_WORK = 2_000_000  # instructions times bytes: the worst takes some 7 ns each, so that a check stays below 15 ms
MAX_SET_BYTES = MAX_WORK // MAX_INSTRUCTIONS  # longer texts often end a search early, which a set can't
MAX_SET_WORK = 250_000  # instructions times bytes: the worst takes some 50 ns each, since a set has no other way
MAX_FIND_WORK = 6_000_000  # expressions times bytes: the worst takes some 3.5 ns each
MAX_FINDS = 3  # one after the other; a set finds more of them sooner
MAX_FOUND_BYTES = 64  # of what bytes.find looks for: longer ones may take it text times literal
_MEMORY_BYTES = 1 << 17  # what RE2 may hold for one expression

_re2 = cast("Any", re2)
_UNANCHORED = _re2._Anchor.UNANCHORED  # noqa: SLF001 as below
_PLAIN = re.compile(r"[\w /:=,;@%&!<>'\"~`#-]+")  # means itself in a regular expression
_UNICODE_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)  # JavaScript's; RE2 writes \x{…}

Search = Callable[[bytes], bool]
"""Whether a text, as UTF-8, fits."""


class PatternError(ValueError):
    """A pattern can't be compiled. The message says why."""


class _Expression(NamedTuple):
    """A pattern that can be searched alone, or with others in a set."""

    search: Search
    text: str
    """As a set takes it: its flags stand in front."""
    instructions: int
    find: Search | None
    """The same by bytes.find, where it can, for texts of any length."""


Pattern = Search | _Expression


class PatternCompiler:
    """Compiles the patterns of one filter, which share what a check may cost."""

    def __init__(self) -> None:
        self._expressions = 0
        self._instructions = 0
        self._max_bytes = MAX_WORK

    def compile(self, type: str, pattern: str, *, ignore_case: bool) -> Pattern:
        """One pattern, for `join`; `type` is one of PATTERN_TYPES.

        A regex fits where it is found anywhere in the text, the others fit the whole text or its beginning. A text that
        is too long for the expressions of this filter fits none of them.
        Raises PatternError.
        """
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise PatternError(f"it has {len(pattern)} characters; {MAX_PATTERN_CHARACTERS} are the most")
        try:
            pattern.encode()
        except UnicodeEncodeError:
            raise PatternError("it holds half of a surrogate pair, which is no character") from None
        if type == "glob":
            return self._glob(pattern, ignore_case=ignore_case)
        if type == "regex":
            return self._regex(pattern, ignore_case=ignore_case)
        return _literal(pattern, prefix=type == "prefix", ignore_case=ignore_case)

    def join(self, patterns: Sequence[Pattern], *, every: bool) -> Search:
        """One search for several patterns over the same text: whether all of them fit it, or any."""
        expressions = [pattern for pattern in patterns if isinstance(pattern, _Expression)]
        searches = [pattern for pattern in patterns if not isinstance(pattern, _Expression)]
        finds = [expression.find for expression in expressions if expression.find is not None]
        if len(finds) < len(expressions) or len(finds) > MAX_FINDS:
            searches.append(_set(expressions, every=every))
        elif finds:
            searches.append(self._finding(finds, every=every))
        return _together(searches, every=every)

    def _glob(self, pattern: str, *, ignore_case: bool) -> Pattern:
        tokens = _glob_tokens(pattern)
        search = None
        if _ANY_ONE not in tokens:
            first, *others = _between_runs(tokens)
            if others in ([], [""]):
                return _literal(first, prefix=others == [""], ignore_case=ignore_case)
            *middle, last = (part.encode() for part in others)
            if not ignore_case and all(len(part) <= MAX_FOUND_BYTES for part in middle):
                search = _parts(first.encode(), middle, last)
        return self._expression(_glob_expression(tokens), search, ignore_case=ignore_case)

    def _regex(self, pattern: str, *, ignore_case: bool) -> Pattern:
        if not ignore_case and _PLAIN.fullmatch(pattern) and len(word := pattern.encode()) <= MAX_FOUND_BYTES:
            return self._expression(pattern, lambda text: text.find(word) >= 0, ignore_case=False)
        return self._expression(_UNICODE_ESCAPE.sub(_unescape, pattern), None, ignore_case=ignore_case)

    def _expression(self, expression: str, find: Search | None, *, ignore_case: bool) -> _Expression:
        """What RE2 searches, unless bytes.find can."""
        self._expressions += 1
        if self._expressions > MAX_EXPRESSIONS:
            raise PatternError(f"a filter may have {MAX_EXPRESSIONS} regex and glob patterns at most")
        try:
            compiled = _re2.compile(expression, _options(_MEMORY_BYTES, ignore_case=ignore_case))
        except _re2.error as error:
            raise PatternError(f"RE2 doesn't know this regular expression: {_reason(error)}") from None
        size: int = compiled.programsize
        self._instructions += size
        if self._instructions > MAX_INSTRUCTIONS:
            raise PatternError("the regex and glob patterns of this filter are too large together")
        self._max_bytes = MAX_WORK // self._instructions
        search = self._matching(compiled) if find is None else self._finding([find], every=True)
        text = "(?i)" + expression if ignore_case else expression
        return _Expression(search, text, size, find)

    def _matching(self, compiled: Any) -> Search:
        match = compiled._regexp.Match  # noqa: SLF001 what is around it costs as much as the search

        def search(text: bytes) -> bool:
            size = len(text)
            return size <= self._max_bytes and match(_UNANCHORED, text, 0, size)[0][0] >= 0

        return search

    def _finding(self, finds: Sequence[Search], *, every: bool) -> Search:
        def search(text: bytes) -> bool:
            if len(text) * self._expressions > MAX_FIND_WORK:
                return False
            for find in finds:
                if find(text) is not every:
                    return not every
            return every

        return search


# --- Regular expressions ---------------------------------------------------------------------------------------------


def _options(memory_bytes: int, *, ignore_case: bool) -> Any:
    options = _re2.Options()
    options.max_mem = memory_bytes
    options.log_errors = False  # they are the client's
    options.never_capture = True
    options.case_sensitive = not ignore_case
    return options


def _set(expressions: Sequence[_Expression], *, every: bool) -> Search:
    """Goes once through a text for all expressions, if it is short, and else for one after the other."""
    one_by_one = _together([expression.search for expression in expressions], every=every)
    together = _re2.Set.SearchSet(_options(_MEMORY_BYTES * len(expressions), ignore_case=False))
    try:
        together.Add(r"\z")  # fits every text: a set that ran out of memory says that nothing fits
        for expression in expressions:
            together.Add(expression.text)
        together.Compile()
    except _re2.error:
        return one_by_one
    match = together._set.Match  # noqa: SLF001 as above
    enough = 1 + (len(expressions) if every else 1)
    longest = min(MAX_SET_BYTES, MAX_SET_WORK // sum(expression.instructions for expression in expressions))

    def search(text: bytes) -> bool:
        if len(text) <= longest and (fitting := match(text)):
            return len(fitting) >= enough
        return one_by_one(text)

    return search


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _unescape(found: re.Match[str]) -> str:
    return f"\\x{{{found[1]}}}" if found[1] else found[0]


# --- Globs -----------------------------------------------------------------------------------------------------------

_ANY_RUN, _ANY_ONE = "**", "??"  # longer than any token of one character


def _glob_tokens(pattern: str) -> list[str]:
    """The characters of a glob, with what stands for others replaced by names."""
    tokens: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            if tokens[-1:] != [_ANY_RUN]:
                tokens.append(_ANY_RUN)
        elif character == "?":
            tokens.append(_ANY_ONE)
        elif character == "\\":
            literal = next(characters, None)
            if literal is None:
                raise PatternError("a glob can't end in \\: it takes the next character literally")
            tokens.append(literal)
        else:
            tokens.append(character)
    return tokens


def _between_runs(tokens: Sequence[str]) -> list[str]:
    """The literals between the runs of a glob without `?`: one more than there are runs."""
    parts = [""]
    for token in tokens:
        if token == _ANY_RUN:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _glob_expression(tokens: Sequence[str]) -> str:
    # Without .* around it, a search ends with what it looks for.
    begins, ends = tokens[0] != _ANY_RUN, tokens[-1] != _ANY_RUN
    words = {_ANY_RUN: ".*", _ANY_ONE: "."}
    inner = tokens[0 if begins else 1 : None if ends else -1]
    body = "".join(words.get(token) or cast("str", _re2.escape(token)) for token in inner)
    return "(?s)" + r"\A" * begins + body + r"\z" * ends


def _parts(first: bytes, middle: Sequence[bytes], last: bytes) -> Search:
    """Whether a text begins and ends with two literals and has others between them in this order."""
    if len(middle) == 1 and not first and not last:
        (part,) = middle
        return lambda text: text.find(part) >= 0
    least = len(first) + len(last)

    def search(text: bytes) -> bool:
        if len(text) < least or (first and not text.startswith(first)) or (last and not text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return search


# --- Literals, and several at once -----------------------------------------------------------------------------------


def _literal(pattern: str, *, prefix: bool, ignore_case: bool) -> Search:
    wanted = pattern.encode()
    if ignore_case:
        return _literal_ignoring_case(pattern.lower(), prefix=prefix)
    return methodcaller("startswith", wanted) if prefix else wanted.__eq__


def _literal_ignoring_case(lowered: str, *, prefix: bool) -> Search:
    wanted = lowered.encode()
    size = len(wanted)
    # A character has at most four bytes, and lowering makes at most three characters of one.
    enough = 4 * len(lowered) + 4

    def is_prefix(text: bytes) -> bool:
        head = text[:size]
        if head.isascii():
            return head.lower() == wanted
        return text[:enough].decode("utf-8", "ignore").lower().startswith(lowered)

    def is_whole(text: bytes) -> bool:
        if len(text) > enough:
            return False
        return text.lower() == wanted if text.isascii() else text.decode("utf-8", "replace").lower() == lowered

    return is_prefix if prefix else is_whole


def _together(searches: Sequence[Search], *, every: bool) -> Search:
    if len(searches) == 1:
        return searches[0]

    def search(text: bytes) -> bool:
        for each in searches:
            if each(text) is not every:
                return not every
        return every

    return search
