"""The content patterns of an event filter: exact, prefix, glob and regex, over UTF-8.

Owns what each kind means and what one search may cost; where the text comes from is stream/filters.py's. Regular
expressions are google-re2's, in linear time, but linear in text times pattern: both are bounded.
Its globs are for contents: `*` is any run of characters and `?` one, line ends and `/` included; `\\` takes the next
character literally. Those over tool names are broker/tools/globs.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs] it has none

__all__ = ["PATTERN_TYPES", "PatternCompiler", "PatternError", "Search"]

PATTERN_TYPES = ("exact", "prefix", "regex", "glob")

MAX_PATTERN_CHARACTERS = 1_000
MAX_EXPRESSIONS = 16  # each may hold its memory twice over, for each reader
MAX_INSTRUCTIONS = 1_000  # of all expressions of a filter, as RE2 compiles them
MAX_WORK = 2_000_000  # instructions times bytes: the worst takes some 7 ns each, so that a check stays below 15 ms
_MEMORY_BYTES = 1 << 17  # what RE2 may hold for one expression

_re2 = cast("Any", re2)
_UNICODE_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)  # JavaScript's; RE2 writes \x{…}

Search = Callable[[bytes], bool]
"""Whether a text, as UTF-8, fits a pattern."""


class PatternError(ValueError):
    """A pattern can't be compiled. The message says why."""


class PatternCompiler:
    """Compiles the patterns of one filter, which share what a check may cost."""

    def __init__(self) -> None:
        self._expressions = 0
        self._instructions = 0

    def compile(self, type: str, pattern: str, *, ignore_case: bool) -> Search:
        """The search for one pattern; `type` is one of PATTERN_TYPES.

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
            return self._regex(_UNICODE_ESCAPE.sub(_unescape, pattern), ignore_case=ignore_case, whole=False)
        return _literal(pattern, prefix=type == "prefix", ignore_case=ignore_case)

    def _glob(self, pattern: str, *, ignore_case: bool) -> Search:
        tokens = _glob_tokens(pattern)
        if tokens[-1:] == [_ANY_RUN] and not {_ANY_RUN, _ANY_ONE} & set(tokens[:-1]):
            return _literal("".join(tokens[:-1]), prefix=True, ignore_case=ignore_case)
        if not {_ANY_RUN, _ANY_ONE} & set(tokens):
            return _literal("".join(tokens), prefix=False, ignore_case=ignore_case)
        words = {_ANY_RUN: ".*", _ANY_ONE: "."}
        expression = "".join(words.get(token) or cast("str", _re2.escape(token)) for token in tokens)
        return self._regex(expression, ignore_case=ignore_case, whole=True)

    def _regex(self, expression: str, *, ignore_case: bool, whole: bool) -> Search:
        self._expressions += 1
        if self._expressions > MAX_EXPRESSIONS:
            raise PatternError(f"a filter may have {MAX_EXPRESSIONS} regex and glob patterns at most")
        options = _re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.log_errors = False  # they are the client's
        options.never_capture = True
        options.case_sensitive = not ignore_case
        options.dot_nl = whole
        try:
            compiled = _re2.compile(expression, options)
        except _re2.error as error:
            raise PatternError(f"RE2 doesn't know this regular expression: {_reason(error)}") from None
        self._instructions += compiled.programsize
        if self._instructions > MAX_INSTRUCTIONS:
            raise PatternError("the regex and glob patterns of this filter are too large together")
        find = compiled.fullmatch if whole else compiled.search

        def search(text: bytes) -> bool:
            return len(text) * self._instructions <= MAX_WORK and find(text) is not None

        return search


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _unescape(found: re.Match[str]) -> str:
    return f"\\x{{{found[1]}}}" if found[1] else found[0]


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


def _literal(pattern: str, *, prefix: bool, ignore_case: bool) -> Search:
    wanted = pattern.encode()
    if ignore_case:
        return _literal_ignoring_case(pattern.lower(), prefix=prefix)
    if prefix:
        return lambda text: text.startswith(wanted)
    return lambda text: text == wanted


def _literal_ignoring_case(lowered: str, *, prefix: bool) -> Search:
    # A character has at most four bytes, and lowering makes at most three characters of one.
    enough = 4 * len(lowered) + 4

    def search(text: bytes) -> bool:
        if prefix:
            return text[:enough].decode("utf-8", "ignore").lower().startswith(lowered)
        return len(text) <= enough and text.decode("utf-8", "replace").lower() == lowered

    return search
