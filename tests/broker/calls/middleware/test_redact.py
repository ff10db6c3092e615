from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from enclave_broker import ConfigurationError, RateLimitError, ToolError
from enclave_broker.broker.calls.middleware.redact import REDACTED, Redact
from enclave_broker.types.errors import FieldError, ToolValidationError
from tests.broker.calls.middleware.support import Handler, a_call, around, error_of, spawn
from tests.broker.sessions.support import turns

SSN = r"\b\d{3}-\d{2}-\d{4}\b"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"ssn": "1", "name": "A"}, {"ssn": REDACTED, "name": "A"}),
        ({"SSN": 1, "Ssn": None, "PASSWORD": {"a": [1]}}, {"SSN": REDACTED, "Ssn": REDACTED, "PASSWORD": REDACTED}),
        ({"ssn_hash": 1, "my ssn": 2, "ss": 3, " ssn": 4}, {"ssn_hash": 1, "my ssn": 2, "ss": 3, " ssn": 4}),
        ([[{"a": [{"ssn": 1}, {"ssn": 2}]}]], [[{"a": [{"ssn": REDACTED}, {"ssn": REDACTED}]}]]),
        ({"a": {"ssn": {"ssn": 1}}}, {"a": {"ssn": REDACTED}}),
        ({"text": "ssn: 1"}, {"text": "ssn: 1"}),
        ('{"ssn": "1"}', '{"ssn": "1"}'),
        (None, None),
        ([1, 1.5, True, False, None, "x"], [1, 1.5, True, False, None, "x"]),
        ({}, {}),
        ([], []),
    ],
)
async def test_what_stands_under_a_key_goes_at_every_level(value: Any, expected: Any) -> None:
    redact = Redact(keys={"ssn", "Password"})
    assert repr(await around(Handler(value), redact)(a_call())) == repr(expected)
    assert repr(redact.value(value)) == repr(expected)


@pytest.mark.parametrize(
    ("patterns", "text", "expected"),
    [
        ([SSN], "is 123-45-6789.", "is [redacted]."),
        ([SSN], "123-45-6789 and 987-65-4321", "[redacted] and [redacted]"),
        ([SSN], "1234-45-67890", "1234-45-67890"),
        ([SSN], "né 123-45-6789 né", "né [redacted] né"),
        (["(?i)sk-[a-z0-9]+"], "SK-Abc1", "[redacted]"),
        (["^secret$"], "secret", "[redacted]"),
        (["^secret$"], "secrets", "secrets"),
        (["abcd", "cdef"], "xabcdefx", "x[redacted]x"),
        (["cdef", "abcd"], "xabcdefx", "x[redacted]x"),
        (["ab", "cd"], "xabcdx", "x[redacted]x"),
        (["a"], "aXa", "[redacted]X[redacted]"),
        (["redacted"], "[redacted]", "[[redacted]]"),
        ([r"\b"], "two words", "two words"),
        (["é+"], "ééé", "[redacted]"),
        (["."], "é\n", "[redacted]\n"),
        (["x"], "\ud800x", "\ufffd[redacted]"),
    ],
)
async def test_what_a_pattern_finds_goes_and_nothing_else(patterns: list[str], text: str, expected: str) -> None:
    redact = Redact(patterns=patterns)
    assert redact.text(text) == expected
    assert await around(Handler([text]), redact)(a_call()) == [expected]


async def test_each_text_is_searched_by_itself_and_never_the_json_of_all() -> None:
    redact = Redact(patterns=[r"^a", r'","', r"\[", r"\d+"])
    value = {"k": ["ba", "a", "x"], "n": [12, 1.5]}
    assert await around(Handler(value), redact)(a_call()) == {"k": ["ba", REDACTED, "x"], "n": [12, 1.5]}


async def test_names_in_objects_are_texts_too_and_none_is_lost() -> None:
    redact = Redact(keys={"pin"}, patterns=[SSN])
    value = {"123-45-6789": 1, "987-65-4321": 2, REDACTED: 3, "pin": 4, "x": {"of 123-45-6789": {"pin": 5}}}
    copy = redact.value(value)
    assert list(copy.values()) == [1, 2, 3, REDACTED, {"of [redacted]": {"pin": REDACTED}}]
    assert next(iter(copy)) == REDACTED
    assert len(copy) == 5
    assert not re.search(r"\d{3}-", json.dumps(copy))


def test_many_names_that_become_equal_stay_apart() -> None:
    copy = Redact(patterns=[r"^\d+$"]).value({str(number): number for number in range(50_000)})
    assert sorted(copy.values()) == list(range(50_000))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab-1é\n", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abk", max_size=3), inner, max_size=4),
    max_leaves=20,
)


def model(value: Any) -> Any:
    """The same by Python's own means."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: REDACTED if name.lower() == "ab" else model(item) for name, item in items}
    if isinstance(value, list):
        return [model(item) for item in cast("list[Any]", value)]
    return re.sub("b1+", REDACTED, value) if isinstance(value, str) else value


@given(PLAIN)
def test_it_agrees_with_a_plain_model_and_leaves_the_original_alone(value: Any) -> None:
    before = repr(value)
    assert repr(Redact(keys=["AB"], patterns=["b1+"]).value(value)) == repr(model(value))
    assert repr(value) == before


@given(
    text=st.text("abc", max_size=30),
    patterns=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_every_character_that_a_pattern_finds_is_gone(text: str, patterns: list[str]) -> None:
    found = [False] * len(text)
    for pattern in patterns:
        for match in re.finditer(pattern, text):
            found[match.start() : match.end()] = [True] * (match.end() - match.start())
    expected = "".join("\0" if hit else letter for hit, letter in zip(found, text, strict=True))
    assert Redact(patterns=patterns).text(text) == re.sub("\0+", REDACTED, expected)


# --- Values that are hard to go through ------------------------------------------------------------------------------


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


def test_levels_beyond_two_hundred_are_replaced_as_a_whole() -> None:
    redact = Redact(keys={"ssn"})
    assert redact.value(nested(199, {"ssn": 1, "a": 2})) == nested(199, {"ssn": REDACTED, "a": 2})
    assert redact.value(nested(200, {"ssn": 1})) == nested(200, REDACTED)
    assert redact.value(nested(100_000, 1)) == nested(200, REDACTED)


def test_shared_structure_is_looked_at_once() -> None:
    shared: Any = {"ssn": 1, "a": 2}
    for _ in range(60):
        shared = [shared, shared]
    copy = Redact(keys={"ssn"}).value(shared)
    for _ in range(60):
        assert copy[0] is copy[1]
        copy = copy[0]
    assert copy == {"ssn": REDACTED, "a": 2}


def test_what_contains_itself_does_so_in_its_copy() -> None:
    looped: dict[str, Any] = {"ssn": 1}
    looped["me"] = [looped]
    copy = Redact(keys={"ssn"}).value(looped)
    assert copy["ssn"] == REDACTED
    assert copy["me"][0] is copy


class Pair(NamedTuple):
    a: str
    b: Any


class User(BaseModel):
    name: str
    ssn: str
    born: dt.date


async def test_models_and_the_like_are_seen_through() -> None:
    user = User(name="A 123-45-6789", ssn="1", born=dt.date(2000, 1, 2))
    pair = Pair("123-45-6789", user)
    value = {"user": user, "pair": pair, "set": {"123-45-6789"}, "bytes": b"123-45-6789"}
    seen = {"name": "A [redacted]", "ssn": REDACTED, "born": "2000-01-02"}
    copy = await around(Handler(value), Redact(keys={"ssn"}, patterns=[SSN]))(a_call())
    assert copy == {"user": seen, "pair": [REDACTED, seen], "set": [REDACTED], "bytes": REDACTED}


async def test_what_can_not_be_seen_through_does_not_pass() -> None:
    error = await error_of(around(Handler({"a": object()}), Redact(keys={"ssn"}))(a_call()))
    assert isinstance(error, ValueError)


def test_a_text_with_too_many_finds_is_replaced_as_a_whole() -> None:
    redact = Redact(patterns=[r"\d"])
    assert redact.text("1 " * 10_000) == "[redacted] " * 10_000
    assert redact.text("1 " * 10_001) == REDACTED


async def test_a_long_result_lets_others_run_in_between() -> None:
    value = [f"{number} 123-45-6789" for number in range(50_000)]
    task = await spawn(around(Handler(value), Redact(patterns=[SSN])), a_call())
    assert not task.done(), "ten turns of the loop were not enough"
    passed = 0
    while not task.done():
        await asyncio.sleep(0)
        passed += 1
    assert passed > 10
    assert (await task)[-1] == "49999 [redacted]"


async def test_a_short_result_costs_no_turn() -> None:
    task = asyncio.ensure_future(around(Handler({"a": ["x"] * 100}), Redact(patterns=[SSN]))(a_call()))
    await turns(1)
    assert task.done()


# --- Errors ----------------------------------------------------------------------------------------------------------


async def test_messages_and_details_of_errors_are_redacted() -> None:
    fault = ToolError("user 123-45-6789 is locked", code="LOCKED", details={"ssn": 1, "ids": ["987-65-4321"]})
    error = await error_of(around(Handler(fault), Redact(keys={"ssn"}, patterns=[SSN]))(a_call()))
    assert isinstance(error, ToolError)
    assert (error.message, str(error), error.args) == ("user [redacted] is locked",) * 2 + (
        ("user [redacted] is locked",),
    )
    assert error.code == "LOCKED"
    assert error.details == {"ssn": REDACTED, "ids": [REDACTED]}


async def test_an_error_stays_of_its_kind() -> None:
    limit = RateLimitError("of 123-45-6789", retry_after=3.0)
    error = await error_of(around(Handler(limit), Redact(patterns=[SSN]))(a_call()))
    assert isinstance(error, RateLimitError)
    assert (error.message, error.retry_after) == ("of [redacted]", 3.0)


async def test_what_is_wrong_with_a_field_is_redacted_too() -> None:
    fault = ToolValidationError("invalid", errors=[FieldError("a[123-45-6789]", "got '123-45-6789'")])
    error = await error_of(around(Handler(fault), Redact(patterns=[SSN]))(a_call()))
    assert isinstance(error, ToolValidationError)
    assert error.errors == (FieldError("a[[redacted]]", "got '[redacted]'"),)


async def test_other_exceptions_pass_as_they_are() -> None:
    fault = KeyError("123-45-6789")
    assert await error_of(around(Handler(fault), Redact(patterns=[SSN]))(a_call())) is fault


# --- Options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "keys, patterns or both"),
        ({"keys": "ssn"}, "collection"),
        ({"keys": [""]}, "collection"),
        ({"keys": [1]}, "collection"),
        ({"patterns": SSN}, "collection"),
        ({"patterns": [re.compile(SSN)]}, "collection"),
        ({"patterns": ["(a"]}, "missing"),
        ({"patterns": ["(?=a)"]}, "RE2 doesn't know"),
        ({"patterns": [r"(a)\1"]}, "RE2 doesn't know"),
        ({"patterns": ["\ud800"]}, "RE2 doesn't know"),
        ({"patterns": ["a*"]}, "empty text"),
        ({"patterns": ["a|"]}, "empty text"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Redact(**options)
