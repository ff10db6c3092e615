from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.calls.access_index import RuleIndex
from enclave_broker.broker.calls.access_rule import Rule
from enclave_broker.broker.tools.globs import compile_glob

PIECES = [
    "*",
    "?",
    "a",
    "b",
    ":",
    "ab",
    "bab",
    "[ab]",
    "[!a]",
    "{a,b*}",
    "{ab,b:}",
    "{a,{b,:}*}",
    "\\a",
    "\\*",
    "[\\]a]",
]
patterns = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join).filter(lambda pattern: pattern[0] != ":")
)
names = st.text("ab:", min_size=1, max_size=8).map(lambda text: "a" + text)


@given(
    st.lists(st.tuples(patterns, st.booleans()), max_size=12),
    st.lists(names, min_size=1, max_size=6),
)
def test_the_rules_that_are_found_are_those_that_trying_each_finds(
    written: list[tuple[str, bool]], asked: list[str]
) -> None:
    rules = [
        Rule(pattern, allow=True, when={"n": 1} if is_conditional else None) for pattern, is_conditional in written
    ]
    index = RuleIndex(rules)
    for name in asked * 2:
        expected: list[Rule] = []
        for rule in rules:
            if compile_glob(rule.pattern).matches(name):
                expected.append(rule)
                if rule.when is None:
                    break
        assert index.find(name) == tuple(expected)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("*ab*", ["ab", "xab", "abx", "xabx"], ["ba", "a-b"]),
        ("*abcdef*", ["abcdef", "xabcdef", "abcdefx"], ["abcde", "bcdef"]),
        ("*a?bcd*", ["a-bcd", "xaxbcd"], ["abcd", "a-bc"]),
        ("ab*ba", ["abba", "abxba"], ["aba", "ab", "ba"]),
        ("x{a,{b,c}*,}y", ["xay", "xby", "xb-y", "xc-y", "xy"], ["xa-y", "x"]),
        ("[ab]*", ["a", "b1"], ["c"]),
        ("{a\\}b,c}*", ["c", "cx"], ["ab", "b"]),
        ("a\\,b", [], ["a", "b", "a,b"]),
    ],
)
def test_a_pattern_is_found_under_whatever_literal_it_has(pattern: str, fitting: list[str], others: list[str]) -> None:
    index = RuleIndex([Rule(pattern, allow=True)])
    assert [name for name in fitting if not index.find(name)] == []
    assert [name for name in others if index.find(name)] == []


MIX = ["svc#:get", "team#:*", "org#:*:read", "user:*:act#", "*:op#", "*-x#-*", "{a#,b#}:?*", "[ab]#:*"]


def mixed(count: int) -> list[Rule]:
    return [Rule(MIX[place % len(MIX)].replace("#", str(place)), allow=True) for place in range(count)]


def test_a_name_is_held_against_a_handful_of_ten_thousand_rules() -> None:
    rules = mixed(10_000)
    index = RuleIndex(rules)
    for place, rule in enumerate(rules[4_000:4_080], 4_000):
        name = re.sub(r"\{a(\d+),.*\}", r"b\1", rule.pattern).replace("[ab]", "a").replace("*", "q").replace("?", "z")
        near = index.near(name)
        assert place in near
        assert len(near) <= 8, (name, near)
        assert index.find(name) == (rule,)
    assert len(index.near("nobody:knows:this-one")) <= 8


def test_a_rule_behind_one_of_the_same_pattern_that_always_applies_costs_nothing() -> None:
    rules = [Rule("a:*", allow=True, when={"n": 1}), *(Rule("a:*", allow=True) for _ in range(1_000))]
    index = RuleIndex(rules)
    assert index.near("a:b") == [0, 1]
    assert index.find("a:b") == tuple(rules[:2])


@pytest.mark.parametrize("prefix", ["", "a:"])
def test_what_is_remembered_is_bounded_however_many_names_are_asked_for(prefix: str) -> None:
    conditional = [Rule("a:*", allow=True, when={"n": n}) for n in range(40)]
    index = RuleIndex(conditional)
    for number in range(60_000):
        assert index.find(f"{prefix}n{number}") == tuple(conditional if prefix else ())
    remembered = index._remembered  # pyright: ignore[reportPrivateUsage] nothing else shows it
    assert sum(1 + len(found) for found in remembered.values()) <= 1 << 14


def test_more_rules_for_a_name_than_are_remembered_are_found_all_the_same() -> None:
    rules = [Rule("*", allow=True, when={"n": 1}) for _ in range(20_000)]
    index = RuleIndex(rules)
    for _ in range(2):
        assert index.find("a") == tuple(rules)
    assert index.find("b") == tuple(rules)
    assert index._remembered == {}  # pyright: ignore[reportPrivateUsage] as above
