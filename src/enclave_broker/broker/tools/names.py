"""Tool names: the grammar that registered and called names must fit, and which names come near another.

Called when a tool is registered and as the chain's first step. Names are compared exactly, without any normalisation;
`nearest` is for messages only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from enclave_broker.types.errors import ConfigurationError

__all__ = ["MAX_NAME_CHARACTERS", "check_name", "is_name", "nearest"]

MAX_NAME_CHARACTERS = 256
RESERVED_NAMESPACE = "tools:"  # in a script `tools.tools.x` would be ambiguous

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,255}")
_MAX_COMPARED = 2_000  # names that a message's suggestion looks at: 2,000 take a few milliseconds
_MAX_NEAREST = 3
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_TOOLS = re.compile(r"^tools[.:]", re.IGNORECASE | re.ASCII)  # as in tools.users.get
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")  # userId has two


def is_name(name: str) -> bool:
    """Whether `name` is 1 to 256 ASCII letters, digits and `_ . : / @ -`, the first a letter, digit or `_`."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Refuse a name that no tool may be registered under.

    Raises ConfigurationError that says what a name looks like.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(f"a tool's name is a string, not {type(name).__name__}")
    if not is_name(name):
        shown = repr(name if len(name) <= MAX_NAME_CHARACTERS else name[:40] + "…")
        raise ConfigurationError(
            f"{shown} can't be a tool's name: 1 to {MAX_NAME_CHARACTERS} ASCII letters, digits and _ . : / @ -, "
            "the first a letter, digit or _"
        )
    if name.startswith(RESERVED_NAMESPACE):
        raise ConfigurationError(f"{name!r} can't be a tool's name: the namespace {RESERVED_NAMESPACE} is reserved")


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three of `names` that somebody who wrote `name` may have meant, the likeliest first.

    Its cost is bounded whatever `name` is; a name longer than any tool's has no near one.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        return []
    written = _TOOLS.sub("", name)
    wanted, words = written.lower(), _words(written)
    bare = _NOT_WORD.sub("", wanted)
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    found: list[tuple[float, str]] = []
    for candidate, _ in zip(names, range(_MAX_COMPARED), strict=False):
        lowered = candidate.lower()
        matcher.set_seq1(lowered)
        if bare and _NOT_WORD.sub("", lowered) == bare:  # orders.search or ordersSearch for orders:search
            found.append((_SAME_LETTERS, candidate))
        elif (alike := _alike(words, _words(candidate))) is not None:
            found.append((alike, candidate))
        elif matcher.real_quick_ratio() >= _SIMILAR and matcher.quick_ratio() >= _SIMILAR:
            ratio = matcher.ratio()
            if ratio >= _SIMILAR:
                found.append((ratio, candidate))
    best = max((score for score, _ in found), default=0.0)
    if best >= _SAME_WORDS:  # then the others were not meant
        found = [pair for pair in found if pair[0] == best]
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    return [candidate for _, candidate in found[:_MAX_NEAREST]]


def _words(name: str) -> list[str]:
    """Its words in lower case, without a plural's s."""
    return [word.lower().removesuffix("s") for word in _WORD.findall(name)]


def _alike(wanted: list[str], words: list[str]) -> float | None:
    """How much two names share if they share whole words."""
    if not wanted or not words:
        return None
    if set(wanted) == set(words):  # get_user for users:get
        return _SAME_WORDS
    short, long = sorted((wanted, words), key=len)
    if short in (long[: len(short)], long[-len(short) :]):  # get or users for users:get
        return _SAME_END
    return None


_SAME_LETTERS, _SAME_WORDS, _SAME_END = 4.0, 3.0, 2.0  # above any ratio
_SIMILAR = 0.7  # difflib's own 0.6 suggests users:get for orders:get
