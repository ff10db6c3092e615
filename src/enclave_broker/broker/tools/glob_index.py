"""Many patterns, compiled once, asked about one name: which of them fit, without trying each.

Exact names are looked up. A pattern is found by how the names that fit it begin; many that agree in that by how they
end; many that agree in both by a few characters from between. Only what is found is tried, so that ten thousand
patterns cost little more than ten; a bounded number of answers is kept, too. Used for routes, rules and limits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol, TypeVar

from enclave_broker.broker.tools.globs import Glob
from enclave_broker.broker.tools.names import MAX_NAME_CHARACTERS

__all__ = ["GlobIndex"]

T = TypeVar("T")

_FEW = 6  # patterns that are as quickly tried as told apart
_MANY = 100  # patterns from which on answers are worth keeping
_RECENT_NAMES = 1_024  # of at most 256 characters: less than half a megabyte an index


class GlobIndex(Generic[T]):
    """Immutable. The order of `entries` is the order of answers; a pattern may come more than once."""

    def __init__(self, entries: Sequence[tuple[Glob, T]]) -> None:
        self._globs = [glob for glob, _ in entries]
        self._values = [value for _, value in entries]
        exact: defaultdict[str, list[int]] = defaultdict(list)
        shaped: defaultdict[str, list[_Candidate]] = defaultdict(list)
        for place, glob in enumerate(self._globs):
            for shape in glob.shapes:
                if shape.runs is None:
                    exact[shape.prefix].append(place)
                else:
                    run = None if shape.is_open else max(shape.runs, key=len, default="")
                    size = len(shape.prefix) + len(shape.suffix)
                    shaped[shape.prefix].append(_Candidate(place, shape.suffix, size, run))
        self._recent: dict[str, tuple[T, ...]] = {}
        self._exact = dict(exact)
        self._beginnings = _Beginnings(
            {prefix: (_Few if len(group) <= _FEW else _ByEnd)(group) for prefix, group in shaped.items()}
        )

    def matching(self, name: str) -> list[T]:
        """The values of all patterns that fit `name`, which may be any string, in order."""
        return list(self._matching(name))

    def first(self, name: str) -> T | None:
        """The first of `matching(name)`, None if there is none."""
        found = self._matching(name)
        return found[0] if found else None

    def _matching(self, name: str) -> tuple[T, ...]:
        found = self._recent.get(name)
        if found is None:
            fitting, possible = self._find(name)
            if possible:
                fitting += [place for place in set(possible) if self._globs[place].matches(name)]
            places = sorted(set(fitting)) if len(fitting) > 1 else fitting
            found = tuple([self._values[place] for place in places])
            if len(self._globs) > _MANY and len(found) <= _FEW and len(name) <= MAX_NAME_CHARACTERS:
                if len(self._recent) >= _RECENT_NAMES:
                    self._recent.clear()
                self._recent[name] = found
        return found

    def _find(self, name: str) -> tuple[list[int], list[int]]:
        """The places of patterns that fit, and of those that have to be tried."""
        fitting = list(self._exact.get(name, ()))
        possible: list[int] = []
        for finder in self._beginnings.of(name):
            finder.find(name, fitting, possible)
        return fitting, possible


class _Candidate(NamedTuple):
    """One shape of the pattern at `place`, in short."""

    place: int
    suffix: str
    size: int
    """Characters that a name has at least."""
    run: str | None
    """What a name contains beside that; None if nothing else counts."""


class _Finder(Protocol):
    def find(self, name: str, fitting: list[int], possible: list[int]) -> None:
        """Add the places of patterns that fit, and of those that have to be tried."""
        ...


class _Key(NamedTuple):
    text: str
    finder: _Finder
    shorter: _Key | None
    """The longest other key that this one begins with."""


class _Beginnings:
    """Finders by text: those that a name begins with are one chain, whose longest is found by bisection."""

    def __init__(self, finders: Mapping[str, _Finder]) -> None:
        self._texts = sorted(finders)
        self._keys: list[_Key] = []
        key: _Key | None = None
        for text in self._texts:
            while key is not None and not text.startswith(key.text):
                key = key.shorter
            key = _Key(text, finders[text], key)
            self._keys.append(key)

    def of(self, text: str) -> list[_Finder]:
        found: list[_Finder] = []
        # Every key that the text begins with is the last key up to it, or begins that key.
        place = bisect_right(self._texts, text)
        key = self._keys[place - 1] if place else None
        while key is not None:
            if text.startswith(key.text):
                found.append(key.finder)
            key = key.shorter
        return found


class _Few:
    """Looks at each."""

    def __init__(self, candidates: Sequence[_Candidate]) -> None:
        self._candidates = candidates

    def find(self, name: str, fitting: list[int], possible: list[int]) -> None:
        for place, suffix, size, run in self._candidates:
            if name.endswith(suffix) and len(name) >= size:
                if run is None:
                    fitting.append(place)
                elif run in name:
                    possible.append(place)


class _ByEnd:
    """Many that agree in how names begin."""

    def __init__(self, candidates: Sequence[_Candidate]) -> None:
        ends: defaultdict[str, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            ends[candidate.suffix[::-1]].append(candidate)
        finders = {end: (_Few if len(group) <= _FEW else _ByMiddle)(group) for end, group in ends.items()}
        self._ends = _Beginnings(finders)

    def find(self, name: str, fitting: list[int], possible: list[int]) -> None:
        for finder in self._ends.of(name[::-1]):
            finder.find(name, fitting, possible)


class _ByMiddle:
    """Many that agree in how names begin and end: each is kept by the gram of its run that the fewest others have."""

    def __init__(self, candidates: Sequence[_Candidate]) -> None:
        rest: list[_Candidate] = []
        by_size: defaultdict[int, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            by_size[min(len(candidate.run or ""), max(_GRAMS))].append(candidate)
        self._grams: list[tuple[_GramsOf, frozenset[Gram], dict[Gram, list[tuple[int, str]]]]] = []
        for size, group in by_size.items():
            if size == 0 or len(group) <= _FEW:
                rest += group
            else:
                held = _by_rarest_gram(size, group)
                self._grams.append((_GRAMS[size], frozenset(held), held))
        self._rest = _Few(rest)
        self._size = candidates[0].size

    def find(self, name: str, fitting: list[int], possible: list[int]) -> None:
        self._rest.find(name, fitting, possible)
        if len(name) >= self._size:
            for grams_of, known, held in self._grams:
                for gram in known.intersection(grams_of(name)):
                    for place, run in held[gram]:
                        if run in name:
                            possible.append(place)


Gram = tuple[str, ...]
"""A few characters that stand side by side; a tuple is made more quickly than a string."""

_GramsOf = Callable[[str], Iterable[Gram]]
_GRAMS: Mapping[int, _GramsOf] = {
    1: zip,
    2: pairwise,
    3: lambda text: zip(text, text[1:], text[2:], strict=False),
    4: lambda text: zip(text, text[1:], text[2:], text[3:], strict=False),
}


def _by_rarest_gram(size: int, candidates: Sequence[_Candidate]) -> dict[Gram, list[tuple[int, str]]]:
    """Place and run of each, by the gram of this size in its run that the fewest others have."""
    grams = [(candidate.place, run, tuple(_GRAMS[size](run))) for candidate in candidates if (run := candidate.run)]
    uses = Counter(gram for _, _, of_run in grams for gram in of_run)
    found: defaultdict[Gram, list[tuple[int, str]]] = defaultdict(list)
    for place, run, of_run in grams:
        found[min(of_run, key=uses.__getitem__)].append((place, run))
    return dict(found)
