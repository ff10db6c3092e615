"""One JSON object of a request, read strictly: its fields checked one by one, and what is wrong said by name.

Owns how a field is looked at and how a refusal reads; which fields there are is types/requests.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from enclave_broker.types.bounded_json import WireError, decode_json, mend_text
from enclave_broker.types.errors import EnclaveError

__all__ = [
    "InvalidRequestError",
    "flag_field",
    "kind_of",
    "object_field",
    "optional",
    "read_object",
    "shown",
    "spellings_of",
    "text_field",
]

T = TypeVar("T")

_MAX_SHOWN = 80  # characters of a name that isn't ours


class InvalidRequestError(EnclaveError):
    """A request is malformed. `field` is a path such as `limits.maxToolCalls`, empty for the whole body."""

    default_code = "INVALID_REQUEST"

    def __init__(self, field: str, reason: str) -> None:
        details = [{"type": "validation_info", "field": field, "reason": reason}]
        super().__init__(f"{field or 'the body'} {reason}", details=details)
        self.args = (field, reason)
        self.field = field
        self.reason = reason


class _Name(str):
    """The name of a field as a key: no two are equal, so that one that stands twice in an object is seen."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def _name(_: type[_Name], text: str) -> _Name:
    return _Name(text)


_decode_object = msgspec.json.Decoder(dict[_Name, Any], dec_hook=_name).decode


def _decode_slowly(body: bytes) -> dict[_Name, Any]:
    """An object with halves of surrogate pairs, or what is wrong with the body."""
    try:
        value = decode_json(body)
    except WireError as error:
        raise InvalidRequestError("", f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("", f"must be a JSON object, not {kind_of(value)}")
    names = [mend_text(name) for name, _ in json.loads(body, object_pairs_hook=list)]
    return {_Name(name): value[name] for name in names}


def read_object(body: bytes, spellings: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a body, those that aren't known among them.

    `spellings` is what `spellings_of` made of those that are. Raises InvalidRequestError for what is no object, for a
    name that stands in it twice, and for one that is a known one but for its spelling.
    """
    try:
        found = _decode_object(body)
    except (ValueError, RecursionError):
        found = _decode_slowly(body)
    fields: dict[str, Any] = {}
    for key, value in found.items():
        name = str(key)
        if name not in spellings and (right := spellings.get(_spelled(name))) is not None:
            raise InvalidRequestError(shown(name), f"isn't known: did you mean {right}?")
        if name in fields:
            raise InvalidRequestError(shown(name), "is there twice, and only one can be meant")
        fields[name] = value
    return fields


def _spelled(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def spellings_of(names: Iterable[str]) -> dict[str, str]:
    """Of the fields that are known, each as it is and as it would be mistaken."""
    return {spelling: name for name in names for spelling in (_spelled(name), name)}


def kind_of(value: Any) -> str:
    """What a value of JSON is called in a refusal."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def shown(value: str) -> str:
    """A client's text, short and plain enough for a refusal."""
    return value if len(value) <= _MAX_SHOWN and value.isascii() and value.isprintable() else ascii(value[:_MAX_SHOWN])


# What one field holds, checked. `name` is its path, for the refusal; all raise InvalidRequestError.


def text_field(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(name, f"must be a text, not {kind_of(value)}")
    return value


def flag_field(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(name, f"must be true or false, not {kind_of(value)}")
    return value


def object_field(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(name, f"must be an object, not {kind_of(value)}")
    return cast("dict[str, Any]", value)


def optional(fields: Mapping[str, Any], name: str, check: Callable[[Any, str], T], where: str = "") -> T | None:
    """The field checked, None when it isn't there or null. `where` goes before its name."""
    value = fields.get(name)
    return None if value is None else check(value, where + name)
