from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.tools.names import check_name, is_name, nearest
from enclave_broker.types.errors import ConfigurationError

GOOD = ["a", "A", "0", "_", "users:get", "orders:get-by-id", "a.b/c@d-e_f:9", "__proto__", "x" * 256]
BAD = [
    "",
    " ",
    "-a",
    ":a",
    ".a",
    "@a",
    "/a",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "a\t",
    "a*",
    "a?",
    "a[b]",
    "a{b}",
    "a\\b",
    "a!",
    "a#",
    "ä",
    "\uff50ublic:x",
    "users:g\u0435t",
    "a\u200b",
    "\ud800",
    "a\ud800",
    "x" * 257,
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_the_grammar_is_taken(name: str) -> None:
    assert is_name(name)
    check_name(name)


@pytest.mark.parametrize("name", BAD)
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ConfigurationError, match="can't be a tool's name"):
        check_name(name)


def test_the_reserved_namespace_is_refused_for_tools_only() -> None:
    assert is_name("tools:x")
    with pytest.raises(ConfigurationError, match="reserved"):
        check_name("tools:x")
    check_name("toolsx")


@pytest.mark.parametrize("name", [None, 5, b"a", ["a"]])
def test_a_name_that_is_no_string_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match="a string"):
        check_name(name)  # pyright: ignore[reportArgumentType] what untyped code may do


@given(st.text(max_size=6))
def test_the_grammar_takes_ascii_only(name: str) -> None:
    allowed = all(c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-" for c in name)
    assert is_name(name) == (allowed and name[:1] not in {"", ".", ":", "/", "@", "-"})


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("orders.search", "orders:search"),
        ("ordersSearch", "orders:search"),
        ("Orders:Search", "orders:search"),
        ("orders:serach", "orders:search"),
        ("notes:ad", "notes:add"),
        ("customer:list", "customers:list"),
        ("search", "orders:search"),
        ("tools.notes.add", "notes:add"),
        ("getOrder", "orders:get"),
        ("list_customers", "customers:list"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(name: str, first: str) -> None:
    assert nearest(name, ["orders:search", "orders:get", "customers:list", "notes:add"])[0] == first


def test_a_name_that_has_the_words_of_another_is_that_one_alone() -> None:
    names = ["users:get", "users:list", "users:find"]
    assert nearest("Users:Get", names) == ["users:get"]
    assert nearest("get_user", names) == ["users:get"]
    assert nearest("userId", ["id", "name"]) == ["id"]


def test_nothing_is_near_what_resembles_nothing() -> None:
    assert nearest("weather", ["orders:search", "notes:add"]) == []
    assert nearest("x", []) == []


@given(st.text(max_size=40), st.lists(st.from_regex(re.compile(r"[a-z]{1,5}:[a-z]{1,5}", re.ASCII), fullmatch=True)))
def test_nearest_names_are_at_most_three_of_those_given(name: str, names: list[str]) -> None:
    found = nearest(name, names)
    assert len(found) <= 3
    assert set(found) <= set(names)


def test_a_near_name_is_found_among_many() -> None:
    names = [f"{space}:{verb}_item_{at}" for at in range(40) for space in ("stock", "order") for verb in ("get", "put")]
    assert nearest("ordre:gte_item_7", names)[0] == "order:get_item_7"


def test_a_near_name_that_may_not_be_told_makes_room_for_others() -> None:
    names = ["orders:search", "orders:searchAll", "orders:serch"]
    assert nearest("orders:sarch", names, lambda name: name != "orders:search") == ["orders:serch", "orders:searchAll"]
    assert nearest("Orders:Search", names) == ["orders:search"]
    assert nearest("Orders:Search", names, lambda name: name != "orders:search") == ["orders:searchAll", "orders:serch"]
    assert nearest("orders:sarch", names, lambda _: False) == []


def test_only_so_many_characters_are_compared_whatever_names_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    wanted = ""

    class Counting(difflib.SequenceMatcher[str]):
        def set_seq1(self, a: Sequence[str]) -> None:
            compared.append(len(a) * len(wanted))
            super().set_seq1(a)

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    for size in (8, 31, 80, 232):
        compared.clear()
        wanted = ("ba" * size)[:size]
        nearest(wanted, [f"{'ab' * size}"[: size - 4] + f"{at:04}" for at in range(2_000)])
        assert sum(compared) <= 24_000
        assert any(compared) == (size <= 80)


def test_a_name_is_not_asked_about_unless_it_is_near() -> None:
    asked: list[str] = []
    names = [f"n{at}:list" for at in range(2_000)]
    nearest("weather", names, lambda name: bool(asked.append(name)))
    assert asked == []
    nearest("list", names, lambda name: bool(asked.append(name)))
    assert len(asked) <= 130


@pytest.mark.timeout(10)
def test_a_huge_name_is_looked_up_at_once() -> None:
    names = [f"namespace{i}:tool{i}" for i in range(5_000)]
    for _ in range(20):
        assert nearest("x" * 1_000_000, names) == []
        nearest("namespace:tool" * 18, names)
