from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.stream.patterns import MAX_SET_BYTES, PatternCompiler, Search

EVIL = "(?:[ab]{0,30}){14}x"
REGEXES = ["a", "ab", "a|b", "^b", r"\Aa", r"a\z", "b.?a", "[ab]{3}", "(?i)B", "c", "(?:ab)+c", "a*", r"\bb", EVIL]


def joined(*patterns: str, type: str = "regex", every: bool = False, ignore_case: bool = False) -> Search:
    compiler = PatternCompiler()
    return compiler.join([compiler.compile(type, each, ignore_case=ignore_case) for each in patterns], every=every)


@given(
    st.lists(st.sampled_from(REGEXES[:-1]), max_size=5),
    st.text(st.sampled_from("abcB\n"), max_size=12),
    st.sampled_from([0, MAX_SET_BYTES]),
    st.booleans(),
    st.booleans(),
)
def test_expressions_that_are_searched_together_fit_as_they_do_alone(
    patterns: list[str], text: str, filling: int, every: bool, ignore_case: bool
) -> None:
    text = text + "-" * filling  # beyond what a set is asked for
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    found = [re.search(pattern.replace(r"\z", r"\Z"), text, flags) is not None for pattern in patterns]
    search = joined(*patterns, every=every, ignore_case=ignore_case)
    assert search(text.encode()) is (all if every else any)(found)


@pytest.mark.parametrize("every", [False, True])
def test_a_set_that_runs_out_of_memory_gives_the_answer_of_its_expressions(every: bool) -> None:
    evil = joined(EVIL, "bx", every=every)
    assert evil(b"abx")
    assert evil(b"ab" * 40 + b"x") is True
    assert evil(b"ab" * 100) is False
    assert evil(b"bx" if not every else b"ab" * 5 + b"x")


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*b*", "abc", True),
        ("*b*", "ac", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*ba", "aba", False),
        ("*aa*aa*", "aaa", False),
        ("*aa*aa*", "aaaa", True),
        ("a*b*c", "abbc", True),
        ("a*b*c", "acbc", True),
        ("a*b*c", "acb", False),
        ("*é*", "caf\u00e9s", True),
        ("*" + "a" * 65 + "*", "b" + "a" * 65, True),
        ("*" + "a" * 65 + "*", "b" + "a" * 64, False),
    ],
)
def test_a_glob_finds_its_parts_in_their_order(pattern: str, text: str, fits: bool) -> None:
    assert joined(pattern, type="glob")(text.encode()) is fits
    assert joined(pattern, type="glob", ignore_case=True)(text.encode()) is fits
    assert joined(pattern, type="glob", ignore_case=True)(text.upper().encode()) is fits


def words_over(letters: str, most: int) -> list[str]:
    return ["".join(word) for size in range(most + 1) for word in product(letters, repeat=size)]


def fits_glob(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return fits_glob(glob[1:], text) or (text != "" and fits_glob(glob, text[1:]))
    return text != "" and glob[0] in {"?", text[0]} and fits_glob(glob[1:], text[1:])


@pytest.mark.parametrize("ignore_case", [False, True])
def test_every_short_glob_agrees_with_its_definition(ignore_case: bool) -> None:
    texts = words_over("ab", 4)
    for glob in words_over("ab*?", 4):
        search = joined(glob, type="glob", ignore_case=ignore_case)
        assert [search(text.encode()) for text in texts] == [fits_glob(glob, text) for text in texts], glob


@pytest.mark.parametrize(
    ("type", "pattern", "text", "fits"),
    [
        ("exact", "straße", "STRAßE", True),
        ("exact", "k", "\u212a", True),
        ("exact", "k", "\u212ak", False),
        ("exact", "i\u0307", "\u0130", True),
        ("prefix", "i", "\u0130x", True),
        ("prefix", "ab", "A\u0301b", False),
        ("prefix", "é", "É!", True),
        ("prefix", "é", "e!", False),
        ("prefix", "abc", "AB", False),
        ("glob", "s*k*s", "\u017f-\u212a-S", True),
    ],
)
def test_case_is_ignored_beyond_ascii(type: str, pattern: str, text: str, fits: bool) -> None:
    assert joined(pattern, type=type, ignore_case=True)(text.encode()) is fits


@pytest.mark.parametrize("count", [1, 3, 4, 16])
def test_any_number_of_words_is_found(count: int) -> None:
    words = [f"word{n}" for n in range(count)]
    assert joined(*words)(b"a word0.")
    assert not joined(*words)(b"a sentence without")
    assert joined(*words, every=True)(" ".join(words).encode())
    assert not joined(*words, every=True)(" ".join(words[1:]).encode())


@pytest.mark.parametrize(("type", "pattern"), [("exact", "nothing"), ("prefix", "x"), ("glob", "*b*"), ("regex", "ab")])
def test_a_text_of_five_megabytes_is_searched_for_what_needs_no_expression(type: str, pattern: str) -> None:
    text = b"x" * 5_000_000 + b"ab"
    assert joined(pattern, type=type)(text) is (type != "exact")


def test_more_expressions_than_there_is_time_for_fit_no_text() -> None:
    text = b"x" * 1_000_000 + b"ab"
    assert joined("ab")(text)
    assert not joined(*["ab"] * 9)(text)
    assert not joined("a[b]")(text)


@pytest.mark.parametrize("every", [False, True])
def test_of_no_pattern_at_all_every_one_fits_and_none(every: bool) -> None:
    assert joined(every=every)(b"a") is every
