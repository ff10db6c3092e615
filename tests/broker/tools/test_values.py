"""Results as JSON text: what is written how, what is refused, and that nothing grows on the way."""

from __future__ import annotations

import enum
import itertools
import json
import traceback
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, computed_field, field_serializer
from typing_extensions import TypedDict

from enclave_broker.broker.tools.values import InvalidResultError, check_size, dump_result
from enclave_broker.types.errors import ToolResultTooLargeError

LIMIT = 5 << 20


class Pair(NamedTuple):
    left: int
    right: int


class Colour(enum.StrEnum):
    RED = "red"


class Line(BaseModel):
    product: str
    amount: Decimal = Decimal("1.10")


class Special(Line):
    hidden: str = "hidden"


class Aliased(BaseModel):
    from_: int = Field(serialization_alias="from")


class WithNan(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float


class Area(BaseModel):
    side: int

    @computed_field
    @property
    def area(self) -> int:
        return self.side**2


class Entry(TypedDict):
    n: int


@dataclass
class Point:
    x: int
    below: list[Point] = field(default_factory=list["Point"])


@dataclass(slots=True)
class Slotted:
    x: int


def dump(result: Any, annotation: Any = Any, limit: int = LIMIT) -> Any:
    return json.loads(dump_result(TypeAdapter(annotation), result, limit, "t"), parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


WRITTEN: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (5, 5),
    (5.5, 5.5),
    ("a\u2028b\x00", "a\u2028b\x00"),
    (float("nan"), None),
    ([float("inf"), {"x": -float("inf")}], [None, {"x": None}]),
    (10**300, 10**300),
    (-(10**40), -(10**40)),
    (datetime(2025, 1, 31, 12, tzinfo=UTC), "2025-01-31T12:00:00Z"),
    (date(2025, 1, 31), "2025-01-31"),
    (timedelta(minutes=90), "PT1H30M"),
    (Decimal("1.10"), "1.10"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Colour.RED, "red"),
    (Path("/a"), "/a"),
    ({3}, [3]),
    (frozenset({3}), [3]),
    ((1, "a"), [1, "a"]),
    (deque([1]), [1]),
    (Pair(1, 2), [1, 2]),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
    (b"bytes", "bytes"),
    (Line(product="p"), {"product": "p", "amount": "1.10"}),
    ([Point(1, [Point(2)])], [{"x": 1, "below": [{"x": 2, "below": []}]}]),
    (Slotted(1), {"x": 1}),
    (Aliased(from_=1), {"from": 1}),
    (Area(side=3), {"side": 3, "area": 9}),
    (RootModel[list[int]]([1]), [1]),
    (WithNan(value=float("nan")), {"value": None}),
    ({"text": "NaN and Infinity", "n": 1.0}, {"text": "NaN and Infinity", "n": 1.0}),
]


@pytest.mark.parametrize(("result", "expected"), WRITTEN)
def test_a_result_of_any_type_is_written_as_pydantic_does(result: Any, expected: Any) -> None:
    assert dump(result) == expected


@pytest.mark.parametrize(
    ("annotation", "result", "expected"),
    [
        (list[Line], [Special(product="p")], [{"product": "p", "amount": "1.10"}]),
        (Line | None, None, None),
        (Sequence[int], (1, 2), [1, 2]),
        (float, 1, 1.0),
        (Entry, {"n": 1}, {"n": 1}),
        (dict[str, Line], {"a": Line(product="p")}, {"a": {"product": "p", "amount": "1.10"}}),
        (None, None, None),
        (list[WithNan], [WithNan(value=1)], [{"value": 1.0}]),
    ],
)
def test_the_annotation_decides_what_is_written(annotation: Any, result: Any, expected: Any) -> None:
    assert dump(result, annotation) == expected


OF_ANOTHER_TYPE: list[tuple[Any, Any]] = [
    (Line, {"product": "p"}),
    (list[Line], [Line(product="p"), {}]),
    (int, "5"),
    (str, 5),
    (None, 5),
    (int | str, 3.5),
    (dict[str, int], {"a": "b"}),
    (Entry, [1]),
]


@pytest.mark.parametrize(("annotation", "result"), OF_ANOTHER_TYPE)
def test_a_result_that_is_not_what_its_annotation_says_is_an_invalid_result(annotation: Any, result: Any) -> None:
    with pytest.raises(InvalidResultError):
        dump(result, annotation)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (object(), "object"),
        ([Path, 1], "type"),
        (b"\xff", "utf-8"),
        ("\ud800", "surrogates"),
        (10**400, "return it as text"),
        ({"a": [-(10**309)]}, "return it as text"),
        ((n for n in range(3)), "return a list"),
        (itertools.count(), "return a list"),
        ({"rows": iter([1])}, "return a list"),
        (range(3), "range"),
    ],
)
def test_what_can_not_be_written_is_an_invalid_result(result: Any, reason: str) -> None:
    with pytest.raises(InvalidResultError, match=reason):
        dump(result)


def cycle() -> Any:
    here: list[Any] = []
    here.append(here)
    return here


def cycle_of_dicts() -> Any:
    here: dict[str, Any] = {}
    here["a"] = {"b": here}
    return here


def cycle_of_points() -> Any:
    here = Point(1)
    here.below.append(here)
    return here


def deep() -> Any:
    here: Any = 1
    for _ in range(100_000):
        here = [here]
    return here


@pytest.mark.parametrize("make", [cycle, cycle_of_dicts, cycle_of_points, deep])
def test_what_contains_itself_or_is_too_deep_is_an_invalid_result(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidResultError, match="contains itself"):
        dump(make())


def test_two_hundred_levels_are_written() -> None:
    here: Any = 1
    for _ in range(190):
        here = [here]
    assert dump(here) == here


def doubled() -> Any:
    here: Any = "x"
    for _ in range(45):
        here = [here, here]
    return here


def doubled_dicts() -> Any:
    here: Any = "x"
    for _ in range(45):
        here = {"a": here, "b": here}
    return here


def doubled_models() -> Any:
    here: Any = Point(1)
    for _ in range(45):
        here = Point(1, [here, here])
    return here


def one_long_text() -> Any:
    return ["x" * 1_000_000] * 1_000_000


def one_long_key() -> Any:
    return [{"x" * 1_000_000: 1}] * 1_000_000


def one_long_binary() -> Any:
    return [b"x" * 1_000_000] * 1_000_000


def one_long_number() -> Any:
    return [10**300] * 1_000_000


def nested_text() -> Any:
    return MappingProxyType({"rows": tuple(Line(product="x" * 1_000_000) for _ in range(10))})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make",
    [
        doubled,
        doubled_dicts,
        doubled_models,
        one_long_text,
        one_long_key,
        one_long_binary,
        one_long_number,
        nested_text,
    ],
)
def test_shared_structure_is_refused_before_it_is_written(make: Callable[[], Any]) -> None:
    result = make()
    with pytest.raises(ToolResultTooLargeError, match="ask for less"):
        check_size(result, LIMIT, "orders:list")
    with pytest.raises(ToolResultTooLargeError, match="orders:list has more than 5,242,880"):
        dump_result(TypeAdapter(Any), result, LIMIT, "orders:list")


def test_the_limit_is_of_the_text_to_the_byte() -> None:
    assert dump("x" * 98, limit=100) == "x" * 98
    with pytest.raises(ToolResultTooLargeError):
        dump("x" * 99, limit=100)
    with pytest.raises(ToolResultTooLargeError) as caught:
        dump("\n" * 60, limit=100)
    assert caught.value.details == {"limit": 100}
    assert caught.value.code == "TOOL_RESULT_TOO_LARGE"


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
        | st.builds(tuple, st.lists(inner, max_size=3))
    ),
    max_leaves=20,
)


@given(values)
def test_a_size_is_never_taken_for_more_than_it_is(value: Any) -> None:
    text = TypeAdapter(Any).dump_json(value)
    check_size(value, len(text), "t")


@given(values, st.integers(1, 100))
def test_a_result_is_written_within_the_limit_or_refused(value: Any, limit: int) -> None:
    text = TypeAdapter(Any).dump_json(value)
    try:
        assert dump_result(TypeAdapter(Any), value, limit, "t") == text
    except ToolResultTooLargeError:
        assert len(text) > limit


class Order(BaseModel):
    id: int
    lines: list[int] = []


class Strict(BaseModel):
    text: str

    @field_serializer("text")
    def write(self, text: str) -> int:
        return Order.model_validate({"id": text}).id


CANARY = "canary" * 50


@pytest.mark.parametrize(
    ("kind", "result", "reason"),
    [
        (int, CANARY, "str instead of int"),
        (list[int], [CANARY, 1], "str instead of int"),
        (Order, Order.model_construct(id=CANARY), "str instead of int in the field 'id'"),  # type: ignore[arg-type]
        (int | list[str], f"{CANARY}, input_type=x])", "str instead of int; str instead of list[str]"),
        (Strict, Strict(text=CANARY), "what writes it refuses a value"),
    ],
)
def test_a_result_that_does_not_fit_is_told_by_types_and_place_and_never_by_a_part_of_the_value(
    kind: Any, result: Any, reason: str
) -> None:
    with pytest.raises(InvalidResultError) as caught:
        dump_result(TypeAdapter(kind), result, 1_000, "get")
    shown = "".join(traceback.format_exception(caught.value))
    assert str(caught.value) == f"the result of get: {reason}"
    assert "canary" not in shown
    assert caught.value.__cause__ is caught.value.__context__ is None
