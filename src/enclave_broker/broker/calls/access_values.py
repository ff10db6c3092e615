"""JSON values as access rules compare them: by kind first, then by value.

A boolean is no number: 1 is not True. Whole numbers and fractions are one kind, as in JSON: 1 is 1.0. So are Decimal
and Fraction, which a tool may have for them; to a Decimal a float is what it is written as, 0.1. NaN is of no kind.
Owns what a rule may be compared with, and nothing about rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, cast

__all__ = ["Kind", "copy_value", "exact", "is_same", "kind_of"]

Kind = Literal["null", "boolean", "number", "string", "list", "object"]

_MAX_DEPTH = 16  # of lists and objects in a rule


def kind_of(value: Any) -> Kind | None:
    """None for what is no JSON value."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return None if value != value else "number"  # noqa: PLR0124 NaN alone differs from itself
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, Decimal | Fraction):
        return None if isinstance(value, Decimal) and value.is_nan() else "number"
    return "object" if isinstance(value, Mapping) else None


def is_same(left: Any, right: Any) -> bool:
    """Whether both are the same JSON value; what is none is not even the same as itself."""
    kind = kind_of(left)
    if kind is None or kind != kind_of(right):
        return False
    if kind == "list":
        return len(left) == len(right) and all(map(is_same, left, right))
    if kind == "object":
        return left.keys() == right.keys() and all(is_same(left[name], right[name]) for name in left)
    if isinstance(left, Decimal):
        return bool(left == exact(right))
    return bool(exact(left) == right if isinstance(right, Decimal) else left == right)


def exact(number: Any) -> Any:
    """A number for comparing it with a Decimal: a float is the decimal number that it is written as."""
    return Decimal(repr(number)) if type(number) is float else number


def copy_value(value: Any, depth: int = 0) -> Any:
    """A copy that nobody can change behind a rule's back. Raises ValueError for what is no JSON value."""
    if depth > _MAX_DEPTH:
        raise ValueError("lists and objects are nested too deep")
    match kind_of(value):
        case None:
            raise ValueError(f"{value!r} is no JSON value: a string, a number, true, false, null, a list or an object")
        case "number" if isinstance(value, Decimal | Fraction) or (isinstance(value, float) and math.isinf(value)):
            raise ValueError(f"{value!r} is no JSON value")
        case "list":
            return [copy_value(item, depth + 1) for item in cast("Sequence[Any]", value)]
        case "object":
            fields = cast("Mapping[Any, Any]", value)
            if not all(isinstance(name, str) for name in fields):
                raise ValueError("the names in an object are strings")
            return {name: copy_value(item, depth + 1) for name, item in fields.items()}
        case _:
            return value
