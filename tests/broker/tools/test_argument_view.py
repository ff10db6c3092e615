"""What rules, cost functions and people see of validated arguments, whatever the types say about being written."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    computed_field,
    field_serializer,
    model_serializer,
)
from typing_extensions import TypedDict

from enclave_broker.broker.tools.tool import Tool, tool_from_function


class Colour(Enum):
    RED = "red"


class Money(BaseModel):
    model_config = ConfigDict(validate_by_name=True)
    amount: Decimal = Field(alias="amt")
    fee: int = Field(3, exclude=True)

    @computed_field
    @property
    def total(self) -> int:
        return 99

    @field_serializer("amount")
    def hide(self, _: Decimal) -> str:
        return "much"

    @model_serializer
    def nothing(self) -> dict[str, Any]:
        return {}


class Row(TypedDict):
    id: Annotated[int, Field(validation_alias="rowId", serialization_alias="row", exclude=True)]


@dataclasses.dataclass
class Point:
    x: Annotated[Decimal, Field(validation_alias="ex", exclude=True)]
    y: int = 1


def tool_of(annotation: Any, default: Any = ...) -> Tool:
    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    if default is not ...:
        handler.__defaults__ = (default,)
    return tool_from_function(handler)


VIEWS: list[tuple[Any, Any, Any]] = [
    (Decimal, 1000, Decimal(1000)),
    (Fraction, 3, Fraction(3)),
    (Fraction | Money, {"amt": 1}, {"amt": Decimal(1), "fee": 3}),
    (Annotated[int, Field(exclude=True)], 7, 7),
    (Annotated[int, PlainSerializer(str)], 7, 7),
    (Annotated[int, Field(serialization_alias="other")], 7, 7),
    (Money, {"amt": 5.1}, {"amt": Decimal("5.1"), "fee": 3}),
    (Money, {"amount": 5}, {"amt": Decimal(5), "fee": 3}),
    (list[Money], [{"amt": 1, "fee": 2}], [{"amt": Decimal(1), "fee": 2}]),
    (dict[int, Decimal], {"1": 2}, {"1": Decimal(2)}),
    (Row, {"rowId": 4}, {"rowId": 4}),
    (Row | Money, {"amt": 4}, {"amt": Decimal(4), "fee": 3}),
    (Point, {"ex": 4}, {"ex": Decimal(4), "y": 1}),
    (Colour, "red", "red"),
    (set[int], [1], [1]),
    (tuple[int, Decimal], [1, 2], [1, Decimal(2)]),
    (Path, "/tmp/x", "/tmp/x"),
    (SecretStr, "hunter2", "hunter2"),
    (Annotated[str, AfterValidator(Decimal)], "1.5", Decimal("1.5")),
    (Any, {"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
]


@pytest.mark.parametrize(("annotation", "sent", "seen"), VIEWS, ids=map(str, range(len(VIEWS))))
def test_everything_is_seen_by_the_names_that_are_sent_and_numbers_are_numbers(
    annotation: Any, sent: Any, seen: Any
) -> None:
    tool = tool_of(annotation)
    view = tool.arguments(tool.validate(json.dumps({"value": sent}).encode()))
    assert view == {"value": seen}
    assert repr(view["value"]) == repr(seen)  # True is not 1, and Decimal not a float


@pytest.mark.parametrize(
    ("annotation", "default", "seen"),
    [
        (int, 500, 500),
        (Colour, Colour.RED, "red"),
        (Any, Colour.RED, "red"),
        (list[int], [1], [1]),
        (set[int], {1}, [1]),
    ],
)
def test_defaults_are_seen(annotation: Any, default: Any, seen: Any) -> None:
    tool = tool_of(annotation, default)
    assert tool.arguments(tool.validate(b"{}")) == {"value": seen}


def test_of_several_names_the_one_that_the_schema_shows_is_seen() -> None:
    tool = tool_of(Annotated[int, Field(validation_alias=AliasChoices("count", "n"))])
    assert list(tool.input_schema["properties"]) == ["count"]
    assert tool.arguments(tool.validate(b'{"n": 3}')) == {"count": 3}


def test_a_view_is_a_copy() -> None:
    tool = tool_of(dict[str, Any])
    validated = tool.validate(b'{"value": {"a": [1]}}')
    tool.arguments(validated)["value"]["a"].append(2)
    assert validated["value"] == {"a": [1]}
