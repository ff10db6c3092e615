from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.calls.access import AccessController, Rule
from enclave_broker.broker.calls.access_values import is_same
from enclave_broker.types.errors import ConfigurationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.sampled_from(["", "1", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def applies(when: Any, args: dict[str, Any]) -> bool:
    return AccessController(rules=[Rule("t", allow=True, when=when)]).check("t", {}, args)


def holds(unless: Any, facts: dict[str, Any]) -> bool:
    return AccessController(rules=[Rule("t", allow=False, unless=unless)]).check("t", facts)


# --- Arguments -------------------------------------------------------------------------------------------------------

DEEP = {"a": {"b": {"c": 1}}, "a.b": {"c": 2}, "list": [{"c": 1}], "nothing": None}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"a.b.c": 1}, True),
        ({"a.b.c": 2}, False),  # a name with a dot is no way to pass for what lies deeper
        ({"a.b": {"eq": {"c": 1}}}, True),
        ({"a.b": {"eq": {"c": 1, "d": 1}}}, False),
        ({"a.b.c.d": 1}, False),
        ({"a.c": None}, False),
        ({"nothing": None}, True),
        ({"missing": None}, False),
        ({"list.0.c": 1}, False),
        ({"list": [{"c": 1}]}, True),
        ({"list": {"eq": [{"c": True}]}}, False),
        ({"a.b.c": 1, "nothing": None}, True),
        ({"a.b.c": 1, "missing": 1}, False),
    ],
)
def test_a_path_leads_through_objects_to_a_value(when: Any, expected: bool) -> None:
    assert applies(when, DEEP) is expected


WORDS: list[tuple[Any, list[Any], list[Any]]] = [
    ({"eq": 1}, [1, 1.0], [2, True, "1", [1], None]),
    ({"eq": True}, [True], [1, "true", False]),
    ({"ne": 1}, [0, 1.5, -1], [1, 1.0, True, False, "1", None, [1], {}, math.nan]),
    ({"ne": "a"}, ["b", ""], ["a", 1, None, ["b"]]),
    ({"lt": 5}, [4, 4.9, -math.inf], [5, 6, True, "4", None, [4], math.nan]),
    ({"le": 5}, [5, 5.0, 4], [5.1, False, "5"]),
    ({"gt": 5}, [5.1, 10**400], [5, True, "6"]),
    ({"ge": 5}, [5, 6], [4.9, True, "6"]),
    ({"gt": 0, "le": 100}, [1, 100], [0, 101, True]),
    ({"lt": "b"}, ["a", "B", ""], ["b", "c", 1, None]),
    ({"in": [1, "a", None]}, [1, 1.0, "a", None], [True, "1", 2, "b", [1]]),
    ({"in": [[1]]}, [[1]], [1, [True], []]),
    ({"not_in": [1, "a"]}, [2, "b", 0.5], [1, "a", True, None, [2]]),
    ({"pattern": "^ab+$"}, ["ab", "abbb"], ["xab", "ab\n", "abx", 1, None, ["ab"]]),
    ({"pattern": "b"}, ["abc", "b"], ["", "ac"]),
    ({"pattern": "é{2}$"}, ["éé"], ["é"]),
    ({"min_length": 2}, ["ab", "éé", [1, 2], {"a": 1, "b": 2}], ["a", [1], {}, 22, None, True]),
    ({"max_length": 1}, ["", "é", [], [1], {}], ["ab", [1, 2], 1, None]),
    ({"eq": [1, {"a": "b"}]}, [[1, {"a": "b"}]], [[1], [True, {"a": "b"}], [1, {"a": "b", "c": 1}]]),
]


@pytest.mark.parametrize(("words", "fitting", "others"), WORDS)
def test_words_hold_for_values_of_their_kind_only(words: Any, fitting: list[Any], others: list[Any]) -> None:
    assert [value for value in fitting if not applies({"x": words}, {"x": value})] == []
    assert [value for value in others if applies({"x": words}, {"x": value})] == []
    assert not applies({"x": words}, {})
    assert not applies({"x": words}, {"y": fitting[0]})


@pytest.mark.parametrize("value", [Decimal("nan"), b"a", {1, 2}, object(), math.nan])
def test_what_is_no_json_value_satisfies_nothing(value: Any) -> None:
    for words in ({"eq": 1}, {"ne": 1}, {"in": [1]}, {"not_in": [1, "a"]}, {"le": 5}, {"min_length": 0}):
        assert not applies({"x": words}, {"x": value})
    assert not holds({"x": 1}, {"x": 1j})


@given(JSON, JSON)
def test_equality_is_that_of_json_texts(left: Any, right: Any) -> None:
    def canonical(value: Any) -> Any:
        if isinstance(value, bool | str) or value is None:
            return [type(value).__name__, value]
        if isinstance(value, list):
            return [canonical(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, dict):
            return {name: canonical(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        return ["number", float(value)]

    assert is_same(left, right) is (canonical(left) == canonical(right))
    assert is_same(left, left)


@given(JSON, JSON)
def test_a_word_and_its_opposite_never_both_hold(value: Any, wanted: Any) -> None:
    pairs: list[tuple[Any, Any]] = [({"in": [wanted]}, {"not_in": [wanted, 0]}), ({"eq": wanted}, {"ne": wanted})]
    if isinstance(wanted, str | int | float) and not isinstance(wanted, bool):
        pairs += [({"lt": wanted}, {"ge": wanted}), ({"le": wanted}, {"gt": wanted})]
    for one, other in pairs if wanted is not None else pairs[:1]:
        assert not (applies({"x": one}, {"x": value}) and applies({"x": other}, {"x": value}))


def test_a_text_too_long_for_a_pattern_is_denied_by_the_rule_that_would_look_at_it() -> None:
    rules = [Rule("sql", allow=False, when={"text": {"pattern": "(?i)drop[a-z ]{0,50}table"}}), Rule("*", allow=True)]
    access = AccessController(rules=rules)
    assert access.check("sql", {}, {"text": "select"}) is True
    assert access.check("sql", {}, {"text": "x" * 10_000}) is True
    decision = access.explain("sql", {}, {"text": " " * 10_000_000})
    assert (decision.verdict, decision.rule) == ("deny", rules[0])
    assert access.explain("sql", {}, {"text": "\ud800"}).verdict == "deny"


# --- Facts -----------------------------------------------------------------------------------------------------------


FACTS: list[tuple[Any, list[Any], list[Any]]] = [
    (
        "admin",
        ["admin", ["user", "admin"], ("admin",), {"admin"}, frozenset({"admin", "user"})],
        ["administrator", "Admin", "", None, True, [], [["admin"]], {"admin": True}, frozenset[str]()],
    ),
    (["admin", "root"], ["admin", "root", {"user", "root"}, ["root"], ["admin", "root"]], ["user", [], {"user"}, None]),
    (7, [7, 7.0, [1, 7], {7}], ["7", 8, True, [True], ["7"], None]),
    (1, [1, [1]], [True, [True], {True}]),
    (True, [True], [1, "True", [True], {True}, None, False]),
    (None, [None], [False, 0, "", [None]]),
    ([True, None], [True, None, [True, None]], [1, [True], [None], 0]),
]


@pytest.mark.parametrize(("wanted", "holding", "others"), FACTS)
def test_a_fact_is_the_value_or_holds_it_among_others(wanted: Any, holding: list[Any], others: list[Any]) -> None:
    assert [fact for fact in holding if not holds({"f": wanted}, {"f": fact})] == []
    assert [fact for fact in others if holds({"f": wanted}, {"f": fact})] == []
    assert not holds({"f": wanted}, {})


def test_a_fact_is_named_as_it_is_called() -> None:
    assert holds({"https://example.com/plan": "pro"}, {"https://example.com/plan": "pro"})
    assert not holds({"user.plan": "pro"}, {"user": {"plan": "pro"}})


def test_facts_and_arguments_are_not_mixed_up() -> None:
    access = AccessController(rules=[Rule("t", allow=True, when={"role": "admin"})])
    assert access.check("t", {"role": "admin"}, {}) is False
    access = AccessController(rules=[Rule("t", allow=False, unless={"role": "admin"})])
    assert access.check("t", {}, {"role": "admin"}) is False


# --- What can't be loaded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"amount": {"lte": 1}}, "when.amount: unknown word 'lte'; did you mean le"),
        ({"amount": {"minlength": 1}}, "when.amount: unknown word 'minlength'; did you mean min_length?"),
        ({"address": {"city": "Bern"}}, "when.address: unknown word 'city'; they are eq, ne, "),
        ({"amount": {}}, "when.amount says nothing; its words are eq, "),
        ({"amount": {"le": None}}, "when.amount.le: a number or a string, not None"),
        ({"amount": {"le": True}}, "when.amount.le: a number or a string, not True"),
        ({"amount": {"le": [1]}}, "when.amount.le: a number or a string, not [1]"),
        ({"amount": {"le": math.nan}}, "when.amount.le: nan is no JSON value"),
        ({"amount": {"le": math.inf}}, "when.amount.le: inf is no JSON value"),
        ({"amount": {"ne": None}}, "when.amount.ne: null has no other value of its kind, so this would never hold"),
        ({"amount": {"not_in": [None]}}, "when.amount.not_in: null has no other"),
        ({"amount": {"in": "abc"}}, "when.amount.in: a list that isn't empty, not 'abc'"),
        ({"amount": {"in": []}}, "when.amount.in: a list that isn't empty, not []"),
        ({"name": {"min_length": -1}}, "when.name.min_length: a whole number"),
        ({"name": {"max_length": True}}, "when.name.max_length: a whole number"),
        ({"name": {"max_length": 1.0}}, "when.name.max_length: a whole number"),
        ({"name": {"pattern": 5}}, "when.name.pattern: a regular expression as a string, not 5"),
        ({"name": {"pattern": "(a"}}, "when.name.pattern: RE2 doesn't know this regular expression: missing )"),
        ({"name": {"pattern": r"(a)\1"}}, "when.name.pattern: RE2 doesn't know this regular expression: "),
        ({"name": {"pattern": "\ud800"}}, "when.name.pattern: RE2 doesn't know this regular expression: "),
        ({"items[0].price": 1}, "when.items[0].price: a path is names with dots between"),
        ({"a..b": 1}, "when.a..b: a path is names with dots between"),
        ({"": 1}, "when: a name is a string that isn't empty"),
        ({"a": {1, 2}}, "when.a: {1, 2} is no JSON value"),
        ({"a": {"eq": {1: 2}}}, "when.a.eq: the names in an object are strings"),
    ],
)  # fmt: skip
def test_a_condition_that_can_not_be_meant_is_refused_with_what_could_be(when: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rule("t", allow=True, when=when)
    assert str(caught.value).startswith(f"rule 't': {message}")


@pytest.mark.parametrize(
    ("unless", "message"),
    [
        ({"level": {"ge": 5}}, "unless.level is a value or a list of values; for anything else write a function"),
        ({"role": []}, "unless.role is an empty list, which no fact is in"),
        ({"role": {"admin"}}, "unless.role: {'admin'} is no JSON value"),
        ({"since": Decimal(1)}, "unless.since: Decimal('1') is no JSON value"),
    ],
)
def test_a_demand_on_facts_that_none_could_meet_is_refused(unless: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rule("t", allow=False, unless=unless)
    assert str(caught.value).startswith(f"rule 't': {message}")
