"""Validated arguments as rules, cost functions and people see them: under the script's names, and nothing hidden.

What a tool's author says about writing its types as JSON (serializers, what they leave out, names for it) is no word
about what the handler gets, so none of it counts here. Numbers stay numbers. Called by `schema`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, cast

import pydantic_core
from pydantic import SecretBytes, SecretStr

__all__ = ["NO_SCHEMA", "ArgumentView"]

# Of a core schema: what is no schema itself, so that a default of {"type": "list"} isn't taken for one.
NO_SCHEMA = frozenset({"cls", "config", "ctx", "default", "expected", "members", "metadata", "serialization"})
_FIELDS = frozenset({"model-field", "typed-dict-field", "dataclass-field"})
_FOR_WRITING = frozenset(
    {
        "serialization",
        "serialization_alias",
        "serialization_exclude",
        "serialization_exclude_if",
        "computed_fields",
    }
)
_JSON_TYPES = frozenset({str, int, float, bool, type(None)})
_JSON_SCHEMAS = _FIELDS | {
    "any",
    "bool",
    "dataclass",
    "dataclass-args",
    "default",
    "definition-ref",
    "definitions",
    "dict",
    "float",
    "int",
    "list",
    "literal",
    "model",
    "model-fields",
    "none",
    "nullable",
    "str",
    "tagged-union",
    "typed-dict",
    "union",
}
"""What these let through from JSON is JSON again; of others something else may come."""


class ArgumentView:
    """The view on what one core schema validates."""

    def __init__(self, schema: Any) -> None:
        # Not the serializers that models bring along: they are what is left out.
        self._serializer = pydantic_core.SchemaSerializer(_bare(schema), _use_prebuilt=False)
        self._is_json = _gives_json(schema)

    def __call__(self, validated: Any) -> dict[str, Any]:
        """A copy, defaults filled in. Decimal and Fraction are left as they are, since no float is as exact."""
        found = self._serializer.to_python(validated, mode="python", by_alias=True, warnings=False)
        return cast("dict[str, Any]", found if self._is_json else _plain(found))


class _Kept:
    """What pydantic passes on as it is."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, Fraction):
            raise pydantic_core.PydanticSerializationUnexpectedValue("no Fraction")  # of a union, another choice
        self.value = value


def _bare(schema: Any) -> Any:
    """A copy of a core schema that writes everything, by the names that validation reads."""
    if isinstance(schema, list | tuple):
        copies = [_bare(item) for item in cast("list[Any]", schema)]
        return copies if isinstance(schema, list) else tuple(copies)
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in _FOR_WRITING:
            continue
        if key in NO_SCHEMA:
            made[key] = value
        elif key in {"fields", "choices"} and isinstance(value, dict):  # by name or tag: these keys are no keywords
            made[key] = {name: _bare(field) for name, field in cast("dict[str, Any]", value).items()}
        else:
            made[key] = _bare(value)
    if node.get("type") == "fraction":  # which pydantic writes as text even for Python
        made["serialization"] = {"type": "function-plain", "function": _Kept}
    if node.get("type") in _FIELDS and (name := _read_name(node.get("validation_alias"))):
        made["serialization_alias"] = name
    return made


def _read_name(alias: Any) -> str:
    """The name that the JSON schema shows; empty if it is the field's own."""
    if isinstance(alias, str):
        return alias
    for path in alias or ():
        if isinstance(path, list) and len(cast("list[Any]", path)) == 1 and isinstance(path[0], str):
            return path[0]
    return ""


def _gives_json(schema: Any) -> bool:
    """Whether every value that it lets through, and every default, is of JSON's own types."""
    if isinstance(schema, list | tuple):
        return all(map(_gives_json, cast("list[Any]", schema)))
    if not isinstance(schema, Mapping):
        return True
    node = cast("Mapping[str, Any]", schema)
    kind = node.get("type")
    if kind not in _JSON_SCHEMAS or "default_factory" in node or not _is_json(node.get("default")):
        return False
    if kind == "literal" and not all(type(each) in _JSON_TYPES for each in node["expected"]):
        return False
    if kind == "dict" and node.get("keys_schema", {"type": "any"})["type"] not in {"any", "str"}:
        return False
    for key, value in node.items():
        if key in {"fields", "choices"} and isinstance(value, dict):
            if not all(map(_gives_json, cast("dict[str, Any]", value).values())):
                return False
        elif key not in NO_SCHEMA | _FOR_WRITING | {"discriminator"} and not _gives_json(value):
            return False
    return True


def _is_json(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_json, cast("list[Any]", value)))
    if type(value) is dict:
        fields = cast("dict[Any, Any]", value)
        return all(type(name) is str for name in fields) and all(map(_is_json, fields.values()))
    return type(value) in _JSON_TYPES


def _plain(value: Any) -> Any:
    """What isn't JSON as JSON would have it, but for exact numbers."""
    kind = cast("type[Any]", type(value))
    if kind in _JSON_TYPES:
        return value
    if kind is dict:
        fields = cast("dict[Any, Any]", value)
        return {(name if type(name) is str else _name(name)): _plain(item) for name, item in fields.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, Enum | _Kept):
        return _plain(value.value)
    if isinstance(value, str | int | float | Decimal | Fraction):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return _plain(value.get_secret_value())
    return pydantic_core.to_jsonable_python(value, fallback=repr)


def _name(key: Any) -> str:
    """Of an object's field, as JSON would have it."""
    written: dict[str, None] = pydantic_core.to_jsonable_python({key: None}, fallback=repr)
    return next(iter(written))
