"""Tool names: the grammar that registered and called names must fit, and which names come near another.

Called when a tool is registered and as the chain's first step. Names are compared exactly, without any normalisation;
`nearest` is for messages only.
"""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from enclave_broker.types.errors import ConfigurationError

__all__ = ["MAX_NAME_CHARACTERS", "check_name", "is_name", "nearest"]

MAX_NAME_CHARACTERS = 256
RESERVED_NAMESPACE = "tools:"  # in a script `tools.tools.x` would be ambiguous

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,255}")
_MAX_COMPARED = 1_000  # names that a message's suggestion looks at: about 2 µs each
_MAX_CHARACTERS = 80  # of a name that is compared
_MAX_MEASURED = 30  # names that are compared well, of those that share most
_MAX_WORK = 24_000  # pairs of characters that this takes: about a millisecond
_MAX_ASKED = 100
_MAX_NEAREST = 3
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


def nearest(name: str, names: Iterable[str], may: Callable[[str], bool] = lambda _: True) -> list[str]:
    """At most three of `names` that somebody who wrote `name` may have meant, the likeliest first.

    `may` says of one whether it may be named; it is asked of a few only. The cost is bounded whatever the names are:
    one that is very long has no near one, and is none.
    """
    if len(name) > _MAX_CHARACTERS:
        return []
    written = _features(_TOOLS.sub("", name))
    found: list[tuple[float, str]] = []
    similar: list[tuple[int, str]] = []
    for candidate, _ in zip(names, range(_MAX_COMPARED), strict=False):
        if len(candidate) > _MAX_CHARACTERS:
            continue
        known = _features(candidate)
        if written.bare and written.bare == known.bare:  # orders.search or ordersSearch for orders:search
            found.append((_SAME_LETTERS, candidate))
        elif not written.word_set.isdisjoint(known.word_set) and (alike := _alike(written, known)) is not None:
            found.append((alike, candidate))
        else:
            similar.append((-len(written.pairs & known.pairs), candidate))
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    found = [pair for pair in found[:_MAX_ASKED] if may(pair[1])]
    best = found[0][0] if found else 0.0
    if best >= _SAME_WORDS:  # then the others were not meant
        return [candidate for score, candidate in found if score == best][:_MAX_NEAREST]
    near = [(ratio, candidate) for ratio, candidate in _similar(written.lowered, similar) if may(candidate)]
    near.sort(key=lambda pair: (-pair[0], pair[1]))
    return [candidate for _, candidate in found + near][:_MAX_NEAREST]


def _similar(wanted: str, candidates: list[tuple[int, str]]) -> Iterator[tuple[float, str]]:
    """Those that are written much like it, of the ones that share most with it: comparing well is slow."""
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    work = 0
    for _, candidate in heapq.nsmallest(_MAX_MEASURED, candidates):
        lowered = candidate.lower()
        work += len(wanted) * len(lowered)
        if work > _MAX_WORK:
            return
        matcher.set_seq1(lowered)
        if matcher.real_quick_ratio() >= _SIMILAR and (ratio := matcher.ratio()) >= _SIMILAR:
            yield ratio, candidate


class _Features(NamedTuple):
    """What two names are first compared by."""

    lowered: str
    bare: str
    """Its letters and digits."""
    words: tuple[str, ...]
    """In lower case, without a plural's s."""
    word_set: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    """Of neighbouring characters."""


@lru_cache(maxsize=4_096)  # each is compared again and again
def _features(name: str) -> _Features:
    lowered = name.lower()
    words = [word.lower() for word in _WORD.findall(name)]
    stems = tuple([word.removesuffix("s") for word in words])
    return _Features(lowered, "".join(words), stems, frozenset(stems), frozenset(pairwise(lowered)))


def _alike(wanted: _Features, known: _Features) -> float | None:
    """How much two names share if they share whole words."""
    if wanted.word_set == known.word_set:  # get_user for users:get
        return _SAME_WORDS
    short, long = wanted.words, known.words
    if len(short) > len(long):
        short, long = long, short
    if short in (long[: len(short)], long[-len(short) :]):  # get or users for users:get
        return _SAME_END
    return None


_SAME_LETTERS, _SAME_WORDS, _SAME_END = 4.0, 3.0, 2.0  # above any ratio
_SIMILAR = 0.7  # difflib's own 0.6 suggests users:get for orders:get
