"""From a handler's result to JSON text, never larger than it may be, not even on the way.

pydantic writes the text, by the handler's return annotation where there is one. Before that `check_size` looks at what
the result holds: shared structure (45 levels of `[x, x]`, one long text a thousand times) is small in memory only.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

import msgspec
import pydantic_core
from pydantic import BaseModel, TypeAdapter

from enclave_broker.types.errors import ToolResultTooLargeError

__all__ = ["InvalidResultError", "check_length", "check_size", "dump_result"]

_MAX_DEPTH = 200  # both pydantic and the engine read 200 levels of JSON
_WORTH_COUNTING = 1_000  # values below which looking at each is quicker
_SCALARS = frozenset({str, int, float, bool, type(None)})
QUICK_TYPES = frozenset({int, bool, str})
"""Annotations whose values are written without pydantic when they are plain."""
_SHORT_TEXT = 1_000
_SMALL_BITS = 64
_MAX_BITS = 1_023  # what a script's number can hold is just above 2**1023; beyond it is Infinity
_SMALL = 1 << _SMALL_BITS
_SHOWS_VALUE = "input_value="
_EXPECTED = re.compile(r"Expected `([^`]+)`")
_FIELD = re.compile(r"^[^\[]*\[field_name='(\w+)'")
_KIND = re.compile(r", input_type=(\w+)\]\)\s*$")
_PLAIN = frozenset({bool, float, type(None)})  # always short, always writable


class InvalidResultError(Exception):
    """A handler's result can't be written as JSON, or isn't what its annotation promises.

    For the log: a script learns only that the tool failed.
    """


def dump_result(
    adapter: TypeAdapter[Any], result: Any, max_bytes: int, tool_name: str, quick: type | None = None
) -> bytes:
    """The JSON text of `result`, by pydantic's rules.

    Datetimes are ISO 8601, Decimals strings, sets arrays, bytes UTF-8 text, NaN and infinities null. Whole numbers are
    exact, though a script sees those beyond 2**53 rounded.
    Raises ToolResultTooLargeError beyond `max_bytes` (of all that the result holds, what a model excludes too), and
    InvalidResultError.
    """
    if quick is not None and type(result) is quick and (text := _written_quickly(result)) is not None:
        if len(text) > max_bytes:
            raise _too_large(tool_name, f"{len(text):,}", max_bytes)
        return text
    if type(result) not in _PLAIN and not (type(result) is int and -_SMALL < result < _SMALL):
        check_size(result, max_bytes, tool_name)
    text = _written(adapter, result, tool_name)
    if len(text) > max_bytes:
        raise _too_large(tool_name, f"{len(text):,}", max_bytes)
    return text


def _written(adapter: TypeAdapter[Any], result: Any, tool_name: str) -> bytes:
    try:
        text = adapter.serializer.to_json(result, by_alias=True, warnings="error")
        if (b"NaN" in text or b"Infinity" in text) and not _is_json(text):  # a model's own configuration may allow them
            text = pydantic_core.to_json(pydantic_core.from_json(text), inf_nan_mode="null")
    except (ValueError, TypeError, RecursionError) as error:
        fault = str(error)
        if _SHOWS_VALUE not in fault:
            raise InvalidResultError(f"the result of {tool_name}: {fault}") from error
    else:
        return text
    # Raised out here: the error isn't its context.
    raise InvalidResultError(f"the result of {tool_name}: {_without_values(fault)}")


def _without_values(fault: str) -> str:
    """What pydantic says, but for the values, which it cuts: half a secret is found by nobody."""
    misfits: list[str] = []
    for part in fault.split("PydanticSerializationUnexpectedValue(")[1:]:
        expected, field, kind = _EXPECTED.match(part), _FIELD.search(part), _KIND.search(part)
        if expected is None or kind is None:
            continue
        place = f" in the field {field[1]!r}" if field else ""
        misfits.append(f"{kind[1]} instead of {expected[1]}{place}")
    return "; ".join(misfits) or "what writes it refuses a value"


def check_length(text: bytes, max_bytes: int, tool_name: str) -> None:
    """Raises ToolResultTooLargeError for a result whose text is too long."""
    if len(text) > max_bytes:
        raise _too_large(tool_name, f"{len(text):,}", max_bytes)


def _written_quickly(result: Any) -> bytes | None:
    """What pydantic would write of a small number, a truth value or a short text; None if it has to be asked."""
    if type(result) is int:
        return b"%d" % result if -_SMALL < result < _SMALL else None
    if type(result) is bool:
        return b"true" if result else b"false"
    return msgspec.json.encode(result) if result.isascii() and len(result) <= _SHORT_TEXT else None


def check_size(result: Any, max_bytes: int, tool_name: str) -> None:
    """Refuse what can't fit before the first byte is written.

    Goes down level by level and counts at least one byte a value, one a separator, and the length of every text. What
    occurs often is looked at once, so that the cost is that of what is really there.
    Raises ToolResultTooLargeError and InvalidResultError.
    """
    size = 1
    level: list[tuple[int, list[Any]]] = [(1, [result])]  # how often each of these values occurs
    for _ in range(_MAX_DEPTH):
        below: list[tuple[int, list[Any]]] = []
        for times, values in level:
            text, containers = _sort_out(values)
            size += times * text
            for often, distinct in _group(times, containers):
                inside, held = _open(distinct, (max_bytes - size) // often)
                size += often * (inside + 2 * len(held))
                below.append((often, held))
            if size > max_bytes:
                raise _too_large(tool_name, f"more than {max_bytes:,}", max_bytes)
        if not below:
            return
        level = below
    raise InvalidResultError(f"the result of {tool_name} contains itself or is nested deeper than {_MAX_DEPTH} levels")


def _open(containers: list[Any], room: int) -> tuple[int, list[Any]]:
    """The bytes that the containers have beside what they hold, and what they hold; not all of it if beyond `room`."""
    size, names, held = 0, list[Any](), list[Any]()
    for container in containers:
        kind = cast("type[Any]", type(container))
        if kind is dict:
            held += container.values()
            names += container
        elif kind is list:
            held += container
        else:
            size += _MEASURES[_kind_of(kind)](container, held)
        if size + 2 * len(held) > room:
            break
    if set(map(type, names)) <= {str}:
        size += sum(map(len, names)) + 3 * len(names)  # quotes and colon
    else:
        held += names  # written as text, at least as long
    return size, held


def _sort_out(values: list[Any]) -> tuple[int, list[Any]]:
    """How long the texts and large numbers among the values are, and what else there is to look into.

    Comprehensions and builtins only: a result of 10,000 rows has 100,000 values.
    """
    size = 0
    kinds = set(map(type, values))
    if str in kinds:
        size += sum(map(len, [value for value in values if type(value) is str]))
    if int in kinds:
        bits = list(map(int.bit_length, [value for value in values if type(value) is int]))
        longest = max(bits)
        if longest > _MAX_BITS:
            raise InvalidResultError("a whole number beyond 1e308 can't reach a script: return it as text")
        if longest > _SMALL_BITS:
            size += sum(each // 4 for each in bits if each > _SMALL_BITS)  # a decimal digit holds less than four bits
    if kinds <= _SCALARS:
        return size, []
    return size, [value for value in values if type(value) not in _SCALARS]


def _group(times: int, containers: list[Any]) -> Iterable[tuple[int, list[Any]]]:
    """Containers that each occur `times` times; those that are the same object only once."""
    if len(containers) < _WORTH_COUNTING:
        return [(times, containers)] if containers else []
    counts = Counter(map(id, containers))
    if 2 * len(counts) > len(containers):
        return [(times, containers)]
    groups: dict[int, list[Any]] = {}
    for key, container in {id(container): container for container in containers}.items():
        groups.setdefault(times * counts[key], []).append(container)
    return groups.items()


def _measure_mapping(value: Mapping[Any, Any], held: list[Any]) -> int:
    held.extend(value.values())
    held.extend(value.keys())
    return 0


def _measure_items(value: Iterable[Any], held: list[Any]) -> int:
    held.extend(value)
    return 0


def _measure_model(value: BaseModel, held: list[Any]) -> int:
    held.extend(value.__dict__.values())
    held.extend((value.__pydantic_extra__ or {}).values())
    return 0


def _measure_dataclass(value: Any, held: list[Any]) -> int:
    held.extend(getattr(value, entry.name, None) for entry in dataclasses.fields(value))
    return 0


def _refuse_iterator(value: Any, _: list[Any]) -> int:
    raise InvalidResultError(f"a {type(value).__name__} may never end: return a list")


# Each adds what a value holds to the list and returns the bytes that it has beside that.
_MEASURES: dict[str, Callable[[Any, list[Any]], int]] = {
    "text": lambda value, _: len(value),
    "mapping": _measure_mapping,
    "items": _measure_items,
    "model": _measure_model,
    "dataclass": _measure_dataclass,
    "iterator": _refuse_iterator,
    "other": lambda _, __: 0,
}


@lru_cache(maxsize=512)  # one a type; an application returns a few dozen
def _kind_of(kind: type[Any]) -> str:
    if issubclass(kind, (str, bytes, bytearray)):
        return "text"
    if issubclass(kind, Mapping):
        return "mapping"
    if issubclass(kind, (list, tuple, set, frozenset, deque)):
        return "items"
    if issubclass(kind, BaseModel):
        return "model"
    if dataclasses.is_dataclass(kind):
        return "dataclass"
    return "iterator" if issubclass(kind, Iterator) else "other"


def _is_json(text: bytes) -> bool:
    try:
        pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _too_large(tool_name: str, size: str, max_bytes: int) -> ToolResultTooLargeError:
    return ToolResultTooLargeError(
        f"the result of {tool_name} has {size} bytes as JSON; at most {max_bytes:,} are allowed: ask for less at once",
        details={"limit": max_bytes},
    )
