"""What is wrong with a call's arguments, in the words of whoever wrote the script.

Makes a ToolValidationError from pydantic's error. Called by `schema` only, when a validation has failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pydantic_core

from enclave_broker.broker.tools.names import nearest
from enclave_broker.types.errors import FieldError, ToolValidationError

__all__ = ["explain", "known_names"]

_MAX_FAULTS = 1_000  # pydantic makes all of its errors' details at once, 3 µs each
_MAX_FIELDS = 5  # a message that names more isn't read
_MAX_VALUE = 60  # characters of a value, a path or a name in a message
_MAX_REASON = 300  # characters that say what is wrong with one field
_MAX_KNOWN = 20  # names that a message lists when none of them is near

Path = tuple[str | int, ...]

# The second of each is a dataclass's.
_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_MISSING = frozenset({"missing", "missing_argument", "missing_keyword_only_argument"})
# pydantic's message where it speaks of Python, or says less than it knows
_SHOULD_BE = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "decimal_type": "a number or a string of digits",
    "bytes_type": "a string",
    "date_type": "a date such as 2025-01-31",
    "date_parsing": "a date such as 2025-01-31",
    "date_from_datetime_parsing": "a date such as 2025-01-31",
    "datetime_type": "a time such as 2025-01-31T12:00:00Z",
    "datetime_parsing": "a time such as 2025-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2025-01-31T12:00:00Z",
    "time_type": "a time of day such as 12:00:00",
    "time_parsing": "a time of day such as 12:00:00",
    "time_delta_type": "a duration such as PT1H30M",
    "time_delta_parsing": "a duration such as PT1H30M",
    "uuid_type": "a UUID",
}
_TYPES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_ITEMS = {
    "string": "strings",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "booleans",
    "array": "arrays",
    "object": "objects",
}
_FORMATS = {
    "date": _SHOULD_BE["date_type"],
    "date-time": _SHOULD_BE["datetime_type"],
    "time": _SHOULD_BE["time_type"],
    "duration": _SHOULD_BE["time_delta_type"],
    "uuid": _SHOULD_BE["uuid_type"],
}
_NUMBERS = frozenset({"int_type", "float_type", "decimal_type"})
_ONE_OF = frozenset({"literal_error", "enum"})
_ARRAYS = frozenset({"list_type", "tuple_type", "set_type", "frozen_set_type"})
_OBJECTS = frozenset({"dict_type", "model_type", "model_attributes_type", "dataclass_type"})
_MAX_EXACT = 1e21  # from here on JavaScript writes numbers with an exponent, as no whole number is written
_SHOULD = re.compile(r"^[A-Z]\w*(?: input)? should (?:be a valid |be an? |be )?")
_BE = re.compile(r"^[A-Z]\w*(?: input)? should be ")


def explain(
    tool_name: str, schema: Mapping[str, Any], args_json: bytes, error: pydantic_core.ValidationError
) -> ToolValidationError:
    """The error for the script. `schema` is the JSON schema of the arguments; its names are the ones suggested."""
    try:
        data: Any = pydantic_core.from_json(args_json)
    except ValueError as fault:
        return _error(tool_name, {"": [f"not JSON: {fault}"]})
    reasons: dict[str, list[str]] = {}
    if error.error_count() > _MAX_FAULTS:
        reasons[""] = [f"{error.error_count():,} things are wrong with them"]
    else:
        _collect(reasons, schema, data, error.errors(include_url=False))
    return _error(tool_name, reasons)


def known_names(schema: Mapping[str, Any], path: Path) -> list[str]:
    """The names of the properties that an object at `path` may have."""
    return list(dict.fromkeys(name for place in _places(schema, path) for name in place.get("properties", {})))


def _collect(
    reasons: dict[str, list[str]], schema: Mapping[str, Any], data: Any, faults: Iterable[pydantic_core.ErrorDetails]
) -> None:
    expected: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for fault in faults:
        kind = fault["type"]
        path = _real_path(data, fault["loc"], absent=kind in _MISSING)
        field = _dotted(path)
        if kind in _UNKNOWN:
            reasons.setdefault(field, []).append(_unknown(path, fault["input"], known_names(schema, path[:-1])))
        elif kind in _MISSING:
            reasons.setdefault(field, []).append(f"is missing{_described(schema, path)}")
        elif _SHOULD.match(fault["msg"]):
            got.setdefault(field, _got(kind, fault["input"]))
            phrase = _phrase(fault, schema, path)
            if phrase not in expected.setdefault(field, []):
                expected[field].append(phrase)
        else:
            message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            reasons.setdefault(field, []).append(f"got {_show(fault['input'])}: {message}")
    for field, phrases in expected.items():
        joined = " or ".join([phrases[0], *(phrase.removeprefix("be ") for phrase in phrases[1:])])
        reasons.setdefault(field, []).append(f"got {got[field]}, should {joined}")


def _described(schema: Mapping[str, Any], path: Path) -> str:
    """What the schema says of the value at `path`."""
    words = [_one_of(place) or _kind(schema, path, place) for place in _places(schema, path)]
    return f", should be {' or '.join(dict.fromkeys(filter(None, words)))}" if any(words) else ""


def _one_of(place: Mapping[str, Any]) -> str:
    """The values that a schema names."""
    values = place.get("enum", [place["const"]] if "const" in place else [])
    return " or ".join(map(_show, values[:_MAX_KNOWN])) + (" or …" if len(values) > _MAX_KNOWN else "")


def _kind(schema: Mapping[str, Any], path: Path, place: Mapping[str, Any]) -> str:
    if place.get("type") == "array":
        return _array(schema, path)
    return _FORMATS.get(place.get("format", ""), "") or _TYPES.get(place.get("type", ""), "")


def _array(schema: Mapping[str, Any], path: Path) -> str:
    """An array, of what if that is one kind."""
    kinds = {str(place["type"]) for place in _places(schema, (*path, 0)) if "type" in place}
    items = _ITEMS.get(kinds.pop(), "") if len(kinds) == 1 else ""
    return f"an array of {items}" if items else "an array"


def _got(kind: str, value: Any) -> str:
    """A value that doesn't fit, with what it may have been in the script."""
    if value is None and kind in _NUMBERS:
        return "null or NaN"
    if value == {} and isinstance(value, dict):
        return "{} (which a promise without await becomes)"
    return _show(value)


def _phrase(fault: pydantic_core.ErrorDetails, schema: Mapping[str, Any], path: Path) -> str:
    kind, message, value = fault["type"], fault["msg"], fault["input"]
    if kind in _ONE_OF and (named := [words for place in _places(schema, path) if (words := _one_of(place))]):
        return f"be {' or '.join(dict.fromkeys(named))}"
    if kind in {"int_type", "int_from_float"} and isinstance(value, float) and abs(value) >= _MAX_EXACT:
        return "be a whole number of at most 21 digits"
    if kind in _ARRAYS | _OBJECTS:
        hint = ", not its JSON text" if isinstance(value, str) and value[:1] in {"[", "{"} else ""
        return f"be {_array(schema, path) if kind in _ARRAYS else 'an object'}{hint}"
    if kind in _SHOULD_BE:
        outside = str(fault.get("ctx", {}).get("error", ""))  # "day value is outside expected range"
        return f"be {_SHOULD_BE[kind]}" + (f": the {outside}" if "outside" in outside else "")
    phrase = _BE.sub("be ", message)
    if phrase == message:  # "String should have at least 3 characters"
        phrase = message.split(" should ", 1)[1]
    return phrase.replace("be a valid ", "be a ")


def _error(tool_name: str, reasons: Mapping[str, list[str]]) -> ToolValidationError:
    errors = [
        FieldError(field, _cut("; ".join(why), _MAX_REASON)) for field, why in list(reasons.items())[:_MAX_FIELDS]
    ]
    parts = [f"{error.field}: {error.reason}" if error.field else error.reason for error in errors]
    if len(reasons) > _MAX_FIELDS:
        parts.append(f"and {len(reasons) - _MAX_FIELDS} more")
    return ToolValidationError(
        f"invalid arguments for {tool_name}: {'; '.join(parts)}",
        errors=errors,
        details=[{"type": "validation_info", "field": error.field, "reason": error.reason} for error in errors],
    )


def _unknown(path: Path, value: Any, known: list[str]) -> str:
    inside = [name for name in known if isinstance(value, dict) and name in value]
    if inside:  # { args: { id: 1 } }
        return f"unknown name; its {', '.join(inside[:_MAX_KNOWN])} belong{'s' * (len(inside) == 1)} one level up"
    near = nearest(str(path[-1]), known)
    if near:
        return f"unknown name; did you mean {' or '.join(near)}?"
    if not known:
        return "unknown name; nothing is expected here"
    listed = ", ".join(known[:_MAX_KNOWN]) + (", …" if len(known) > _MAX_KNOWN else "")
    return f"unknown name; known are {listed}"


def _real_path(data: Any, loc: Path, *, absent: bool) -> Path:
    """`loc` without what pydantic puts in for itself, such as the member of a union that it tried."""
    path: list[str | int] = []
    here = data
    for place, step in enumerate(loc):
        if isinstance(here, dict) and step in here:
            here = cast("dict[str | int, Any]", here)[step]
        elif isinstance(here, list) and isinstance(step, int) and 0 <= step < len(cast("list[Any]", here)):
            here = cast("list[Any]", here)[step]
        elif not (absent and place == len(loc) - 1):
            continue
        path.append(step)
    return tuple(path)


def _dotted(path: Path) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_cut(step, _MAX_VALUE)}" for step in path)
    return _cut(text.removeprefix("."), 4 * _MAX_VALUE)


def _show(value: Any) -> str:
    """A value as JSON, cut; containers only by kind and size, since nobody reads them."""
    if isinstance(value, str):
        value = _cut(value, _MAX_VALUE)
    elif isinstance(value, list):
        return f"an array of {len(cast('list[Any]', value))}" if value else "[]"
    elif isinstance(value, dict):
        return f"an object of {len(cast('dict[str, Any]', value))}" if value else "{}"
    return _cut(pydantic_core.to_json(value, inf_nan_mode="constants", fallback=repr).decode(), _MAX_VALUE + 2)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _places(schema: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    """The schemas that a value at `path` may fit."""
    places = _spread(schema, schema)
    for step in path:
        below: list[Mapping[str, Any]] = []
        for place in places:
            keyword = _step_into(place, step)
            if isinstance(keyword, Mapping):
                below += _spread(schema, cast("Mapping[str, Any]", keyword))
        places = below
    return places


def _spread(root: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """`schema` with what it refers to and what it may be instead."""
    found: list[Mapping[str, Any]] = []
    waiting = [schema]
    while waiting and len(found) < _MAX_FAULTS:
        here = waiting.pop()
        if here in found:
            continue
        found.append(here)
        if (name := str(here.get("$ref", ""))).startswith("#/$defs/"):
            waiting.append(root.get("$defs", {}).get(name.removeprefix("#/$defs/"), {}))
        for keyword in ("anyOf", "oneOf", "allOf"):
            waiting += here.get(keyword, [])
    return found


def _step_into(place: Mapping[str, Any], step: str | int) -> Any:
    if isinstance(step, str):
        return place.get("properties", {}).get(step, place.get("additionalProperties"))
    prefix = place.get("prefixItems", [])
    return prefix[step] if step < len(prefix) else place.get("items")
