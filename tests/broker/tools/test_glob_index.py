from __future__ import annotations

import functools
import random
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.tools.glob_index import GlobIndex
from enclave_broker.broker.tools.globs import Glob, compile_glob
from enclave_broker.types.errors import ConfigurationError


def compiled(patterns: Sequence[str]) -> list[tuple[Glob, int]]:
    return [(compile_glob(pattern), place) for place, pattern in enumerate(patterns)]


def trying_each(entries: Sequence[tuple[Glob, int]], name: str) -> list[int]:
    return [place for glob, place in entries if glob.matches(name)]


# --- It answers what trying each pattern would -----------------------------------------------------------------------


def is_pattern(text: str) -> bool:
    try:
        compile_glob(text)
    except ConfigurationError:
        return False
    return True


pieces = st.sampled_from(
    ["*", "**", "?", "a", "b", "ab", ":", "aba:", "[ab]", "[!a]", "\\a", "{a,b}", "{,a:}", "{*a,b}", "{a*b,?}", "{ab}"]
)
sequences = st.lists(pieces, min_size=1, max_size=5).map("".join)
patterns = (sequences | sequences.map("*{0}*".format)).filter(is_pattern)
names = st.text("ab:", max_size=9) | st.text("ab:A*\n\ud800ä", max_size=5)


@given(st.lists(patterns, max_size=60), st.lists(names, min_size=1, max_size=8))
def test_an_index_finds_what_trying_each_pattern_finds(given_patterns: list[str], given_names: list[str]) -> None:
    entries = compiled(given_patterns)
    index = GlobIndex(entries)
    for name in given_names * 2:
        expected = trying_each(entries, name)
        assert index.matching(name) == expected
        assert index.first(name) == (expected[0] if expected else None)


KINDS: list[Callable[[int], str]] = [
    lambda i: f"service{i}:tool{i % 7}",
    lambda i: f"service{i}:*",
    lambda i: f"service{i % 50}:item{i}:*",
    lambda i: f"*:operation{i}",
    lambda i: f"user{i % 20}:*:read{i}",
    lambda i: f"*middle{i}*",
    lambda i: f"v[0-9]:a{i}:*:?",
    lambda i: f"service{i}:{{get,list{i}*}}",
    lambda i: f"?{i}:x*",
    lambda i: f"user:*:key{i}:*",
]
FITTING: list[Callable[[int], str]] = [
    lambda i: f"service{i}:tool{i % 7}",
    lambda i: f"service{i}:anything",
    lambda i: f"service{i % 50}:item{i}:x",
    lambda i: f"any:operation{i}",
    lambda i: f"user{i % 20}:any:read{i}",
    lambda i: f"amiddle{i}b",
    lambda i: f"v5:a{i}:any:x",
    lambda i: f"service{i}:list{i}all",
    lambda i: f"a{i}:xyz",
    lambda i: f"user:any:key{i}:any",
    lambda i: f"nothing:like:it{i}",
    lambda i: f"services{i}:",
]


@functools.cache
def mixed(count: int) -> list[tuple[Glob, int]]:
    return compiled([KINDS[place % len(KINDS)](place) for place in range(count)])


@functools.cache
def index_of(count: int) -> GlobIndex[int]:
    return GlobIndex(mixed(count))


def names_for(count: int, of: int, seed: int = 5) -> list[str]:
    """Most fit a pattern of `mixed(count)`; the last two kinds fit none."""
    chance = random.Random(seed)
    kinds = [chance.randrange(len(FITTING)) for _ in range(of)]
    return [FITTING[kind](chance.randrange(count // len(KINDS)) * len(KINDS) + kind % len(KINDS)) for kind in kinds]


def test_ten_thousand_mixed_patterns_find_what_trying_each_finds() -> None:
    entries = mixed(10_000)
    index = index_of(10_000)
    expected = {name: trying_each(entries, name) for name in names_for(10_000, of=60)}
    for name in [*expected, *expected]:
        assert index.matching(name) == expected[name], name
    assert sum(map(bool, expected.values())) > 30


@pytest.mark.parametrize("pattern", ["*", "?*", "[ab]*", "*a*", "a*", "*a", "a*a", "{a,*}"])
def test_one_pattern_many_times_is_found_each_time(pattern: str) -> None:
    index = GlobIndex(compiled([pattern] * 20))
    assert index.matching("aba") == list(range(20))
    assert index.first("aba") == 0
    assert index.matching("") == ([*range(20)] if pattern in {"*", "{a,*}"} else [])


def test_beginning_and_end_may_not_share_a_character() -> None:
    index = GlobIndex(compiled(["ab*ba", *(f"ab*{i}ba" for i in range(20))]))
    assert index.matching("aba") == []
    assert index.matching("abba") == [0]
    assert index.matching("ab7ba") == [0, 8]


def test_an_index_of_nothing_finds_nothing() -> None:
    index: GlobIndex[int] = GlobIndex([])
    assert index.matching("a") == []
    assert index.first("") is None


def test_an_answer_belongs_to_whoever_asked() -> None:
    index = GlobIndex(mixed(1_000))
    index.matching("service1:anything").clear()
    assert index.matching("service1:anything") == [1]


# --- What it costs, counted and not timed ----------------------------------------------------------------------------


def calls_made(ask: Callable[[str], object], asked: Sequence[str]) -> int:
    """Functions that are called, those written in C as well."""
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for name in asked:
            ask(name)
    finally:
        sys.setprofile(before)
    return count


def test_ten_thousand_patterns_cost_at_most_three_times_ten() -> None:
    few, many = index_of(10), index_of(10_000)
    asked_few, asked_many = names_for(10, of=500), names_for(10_000, of=500)
    few_cost, many_cost = calls_made(few.first, asked_few), calls_made(many.first, asked_many)
    assert many_cost <= 3 * few_cost, f"{few_cost / 500:.0f} and {many_cost / 500:.0f} calls a name"


def test_a_name_that_is_asked_again_costs_next_to_nothing() -> None:
    index = index_of(10_000)
    first = calls_made(index.first, ["service3:anything"])
    assert calls_made(index.first, ["service3:anything"]) * 3 < first


def test_a_million_different_names_leave_nothing_behind() -> None:
    index = GlobIndex(mixed(1_000))
    tracemalloc.start()
    try:
        for i in range(20_000):  # some of the million: each is forgotten by the same rule, and tracing is slow
            index.first(f"a{i}:" + "x" * 240)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
