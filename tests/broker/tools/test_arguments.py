"""Arguments as scripts send them: strict, closed, and explained in the script's terms."""

from __future__ import annotations

import enum
import json
import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from enclave_broker.broker.tools.tool import Tool, tool_from_function
from enclave_broker.types.errors import FieldError, ToolValidationError


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    product: str
    quantity: int = 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Lax(BaseModel):
    model_config = ConfigDict(extra="ignore")
    a: int = 1


class Keywords(BaseModel):
    """Fields named as the words of schemas are."""

    fields: list[Line] = []
    default: Line | None = None
    metadata: dict[str, Line] = {}
    type: Literal["list"] = "list"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Node(BaseModel):
    value: int
    below: list[Node] = []


class Extra(TypedDict):
    n: int


@dataclass
class Point:
    x: int
    y: int = 0


class Checked(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("only even numbers are sold")
        return value


def tool_of(annotation: Any, default: Any = ...) -> Tool:
    """A tool with one argument `x` of a type."""

    def handler(x: Any) -> None:
        """Take it."""

    handler.__annotations__["x"] = annotation if default is ... else Annotated[annotation, Field(default=default)]
    handler.__annotations__["return"] = None
    return tool_from_function(handler, name="t")


def refusal(tool: Tool, args: Any) -> ToolValidationError:
    raw = args if isinstance(args, bytes) else json.dumps(args).encode()
    with pytest.raises(ToolValidationError) as caught:
        tool.validate(raw)
    assert "invalid" in caught.value.message
    assert caught.value.code == "VALIDATION_ERROR"
    assert caught.value.errors
    told = [{"type": "validation_info", "field": e.field, "reason": e.reason} for e in caught.value.errors]
    assert caught.value.details == told
    assert json.dumps(caught.value.details)
    return caught.value


def outcome_of(tool: Tool, raw: bytes) -> Any:
    try:
        return tool.validate(raw)
    except ToolValidationError as error:
        return error


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (float, 5.5, 5.5),
        (bool, True, True),
        (str | None, None, None),
        (list[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (date, "2025-01-31", date(2025, 1, 31)),
        (datetime, "2025-01-31T12:00:00Z", datetime.fromisoformat("2025-01-31T12:00:00+00:00")),
        (Decimal, "1.10", Decimal("1.10")),
        (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (Colour, "red", Colour.RED),
        (Literal["a", 1], 1, 1),
        (Line, {"product": "p"}, Line(product="p")),
        (Point, {"x": 1}, Point(1)),
        (Extra, {"n": 1}, {"n": 1}),
        (Cat | Dog, {"kind": "dog", "name": "d"}, Dog(kind="dog", name="d")),
        (Node, {"value": 1, "below": [{"value": 2}]}, Node(value=1, below=[Node(value=2)])),
        (Any, {"anything": [1]}, {"anything": [1]}),
        (int, 10**30, 10**30),
    ],
)
def test_json_becomes_what_the_annotation_says(annotation: Any, value: Any, expected: Any) -> None:
    assert tool_of(annotation).validate(json.dumps({"x": value}).encode()) == {"x": expected}


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (int, "5", 'got "5", should be a whole number'),
        (int, 5.5, "got 5.5, should be a whole number"),
        (int, True, "got true, should be a whole number"),
        (int, None, "got null or NaN, should be a whole number"),
        (float, "5", 'got "5", should be a number'),
        (str, 5, "got 5, should be a string"),
        (str, [1, 2], "got an array of 2, should be a string"),
        (bool, 1, "got 1, should be true or false"),
        (bool, "true", 'got "true", should be true or false'),
        (str | None, 5, "got 5, should be a string"),
        (int | str, [], "got [], should be a whole number or a string"),
        (list[int], {}, "got {} (which a promise without await becomes), should be an array of whole numbers"),
        (list[int | str], 1, "got 1, should be an array"),
        (list[Line], '[{"product":"p"}]', "should be an array of objects, not its JSON text"),
        (int, 1e300, "got 1e+300, should be a whole number of at most 21 digits"),
        (dict[str, int], [1], "got an array of 1, should be an object"),
        (Line, "p", 'got "p", should be an object'),
        (Literal["a", "b"], "c", 'got "c", should be "a" or "b"'),
        (Literal["a", True] | None | list[bool], 5, 'got 5, should be "a" or true or an array of booleans'),
        (Colour, "blue", 'got "blue", should be "red"'),
        (date, "31.1.2025", "should be a date such as 2025-01-31"),
        (date, "2025-02-30", "such as 2025-01-31: the day value is outside expected range"),
        (datetime, "noon", "should be a time such as 2025-01-31T12:00:00Z"),
        (uuid.UUID, 5, "got 5, should be a UUID"),
        (Annotated[int, Field(gt=0)], 0, "got 0, should be greater than 0"),
        (Annotated[str, Field(min_length=3)], "ab", 'got "ab", should have at least 3 characters'),
        (Annotated[str, Field(pattern="^a$")], "b", "should match pattern '^a$'"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "should have at most 1 item"),
        (Checked, {"n": 3}, "got 3: only even numbers are sold"),
        (str, "x" * 5_000, ""),
    ],
)
def test_a_wrong_value_is_explained_in_the_scripts_terms(annotation: Any, value: Any, reason: str) -> None:
    tool = tool_of(Annotated[str, Field(max_length=10)] if annotation is str and not reason else annotation)
    error = refusal(tool, {"x": value})
    assert reason in error.errors[0].reason
    assert error.errors[0].field.split(".")[0] == "x"
    assert error.message.startswith("invalid arguments for t: x")
    assert len(error.message) < 500


def test_the_message_names_every_field_by_its_path() -> None:
    error = refusal(tool_of(list[Line]), {"x": [{"product": "a"}, {"product": 5, "quantity": "many"}]})
    assert {e.field for e in error.errors} <= {"x[1].product", "x[1].quantity"}
    assert "x[1].product: got 5, should be a string" in error.message
    error = refusal(tool_of(Point), {"x": {"y": 1}})
    assert error.errors == (FieldError("x.x", "is missing, should be a whole number"),)
    error = refusal(tool_of(dict[str, Line]), {"x": {"key": {"quantity": 1}}})
    assert error.errors == (FieldError("x.key.product", "is missing, should be a string"),)


def test_unknown_names_are_refused_with_the_nearest_known_ones() -> None:
    def search(region: str | None = None, limit: int = 10) -> None:
        """Search."""

    tool = tool_from_function(search, name="orders:search")
    assert "regoin: unknown name; did you mean region?" in refusal(tool, {"regoin": "EU"}).message
    assert "args: unknown name; its region belongs one level up" in refusal(tool, {"args": {"region": 1}}).message
    assert "zz: unknown name; known are region, limit" in refusal(tool, {"zz": 1}).message
    assert "nothing is expected here" in refusal(tool_from_function(lambda: None, name="t"), {"a": 1}).message
    assert "did you mean region" in refusal(tool, {"Region": "EU"}).message, "names are compared exactly"
    for name in ("__proto__", "constructor", "region ", "region\u0000", "\uff52egion"):
        refusal(tool, {name: "EU"})


@pytest.mark.parametrize(
    ("annotation", "value", "field"),
    [
        (Line, {"product": "p", "qantity": 1}, "x.qantity"),
        (list[Line], [{"product": "p"}, {"product": "p", "z": 1}], "x[1].z"),
        (dict[str, Line], {"k": {"product": "p", "z": 1}}, "x.k.z"),
        (Line | None, {"product": "p", "z": 1}, "x.z"),
        (Point, {"x": 1, "z": 1}, "x.z"),
        (Extra, {"n": 1, "z": 1}, "x.z"),
        (Node, {"value": 1, "below": [{"value": 2, "z": 1}]}, "x.below[0].z"),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat", "lives": 9, "z": 1}, "x.z"),
        (Keywords, {"fields": [{"product": "p", "z": 1}]}, "x.fields[0].z"),
        (Keywords, {"default": {"product": "p", "z": 1}}, "x.default.z"),
        (Keywords, {"metadata": {"k": {"product": "p", "z": 1}}}, "x.metadata.k.z"),
    ],
)
def test_unknown_names_are_refused_at_every_depth(annotation: Any, value: Any, field: str) -> None:
    error = refusal(tool_of(annotation), {"x": value})
    assert [e.field for e in error.errors] == [field]
    assert error.errors[0].reason.startswith("unknown name")


def test_a_model_that_says_so_takes_unknown_names() -> None:
    tool = tool_of(Open)
    assert tool.validate(b'{"x": {"b": 2}}')["x"].model_extra == {"b": 2}
    assert tool.input_schema["$defs"]["Open"]["additionalProperties"] is True
    assert tool_of(Lax).validate(b'{"x": {"b": 2}}') == {"x": Lax()}


def test_every_object_of_a_schema_is_closed() -> None:
    schema = tool_of(list[Line] | Node | None).input_schema
    assert schema["additionalProperties"] is False
    assert [d["additionalProperties"] for d in schema["$defs"].values()] == [False, False]
    assert "title" not in json.dumps(schema)


def test_a_recursive_model_as_the_whole_is_an_object_at_the_root() -> None:
    def handler(args: Node) -> None:
        """Take it."""

    tool = tool_from_function(handler)
    assert tool.input_schema["type"] == "object"
    assert set(tool.input_schema["properties"]) == {"value", "below"}
    assert tool.validate(b'{"value": 1, "below": [{"value": 2}]}').below[0].value == 2


def test_a_union_of_models_as_the_whole_is_an_object_at_the_root() -> None:
    def handler(args: Cat | Dog) -> None:
        """Take it."""

    tool = tool_from_function(handler)
    assert tool.input_schema["type"] == "object"
    assert tool.validate(b'{"kind": "cat", "lives": 9}') == Cat(kind="cat", lives=9)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"x": }',
        b'{"x": 1}}',
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b'{"x": 1e999}',
        b'{"x": "\\ud800"}',
        b'{"x": "\xff"}',
        b"[" * 1_000,
        b'{"x": ' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        b'{"x": ' + b"9" * 5_000 + b"}",
        b"[]",
        b"null",
        b'"x"',
        b"5",
        b"true",
    ],
)
def test_what_is_no_json_object_is_a_validation_error(raw: bytes) -> None:
    refusal(tool_of(float), raw)


def test_many_faults_make_a_short_message() -> None:
    tool = tool_of(int)
    assert refusal(tool, {f"name{i}": i for i in range(900)}).message.endswith("and 896 more")
    error = refusal(tool, {f"name{i}": i for i in range(5_000)})
    assert "5,001 things are wrong" in error.message
    assert len(refusal(tool, {"k" * 100_000: 1}).message) < 2_000


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "annotation", [list[int], list[Line], set[int], list[list[int]], list[int | str | None], Node], ids=str
)
def test_a_hostile_megabyte_of_wrong_items_is_refused_as_quickly_as_one(annotation: Any) -> None:
    tool = tool_of(annotation)
    items = ",".join(["{}"] * 1_000_000)
    raw = f'{{"x": {{"value": 1, "below": [{items}]}}}}' if annotation is Node else f'{{"x": [{items}]}}'
    began = time.process_time()
    refusal(tool, raw.encode())
    assert time.process_time() - began < 5  # CPU time; a list of all faults would take five times that


def test_an_error_of_a_validator_that_is_no_value_error_is_not_the_scripts_fault() -> None:
    class Broken(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def _fail(cls, value: int) -> int:
            raise KeyError(f"database {value}")

    with pytest.raises(KeyError):
        tool_of(Broken).validate(b'{"x": {"n": 1}}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def _everything(
    a: int,
    b: list[Line] | None = None,
    c: dict[str, Node] | str = "",
    d: Cat | Dog | None = None,
    e: Decimal = Decimal(1),
) -> None:
    """Take all."""


EVERYTHING = tool_from_function(_everything, name="t")


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "x"]), json_values, max_size=5) | json_values)
def test_any_json_is_taken_or_explained(args: Any) -> None:
    outcome = outcome_of(EVERYTHING, json.dumps(args).encode())
    if isinstance(outcome, ToolValidationError):
        assert outcome.message.startswith("invalid arguments for t: ")
        assert outcome.errors
    else:
        assert set(EVERYTHING.arguments(outcome)) == {"a", "b", "c", "d", "e"}


@given(st.binary(max_size=20))
def test_any_bytes_are_taken_or_explained(raw: bytes) -> None:
    outcome = outcome_of(EVERYTHING, raw)
    assert not isinstance(outcome, ToolValidationError) or "invalid" in outcome.message
