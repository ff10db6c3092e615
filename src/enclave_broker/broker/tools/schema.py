"""A type as a schema: what arguments must look like, and the check that they do.

pydantic does the work. Added here: every object is closed unless its own configuration says otherwise, JSON is taken
strictly, and a hostile megabyte of wrong items costs what one wrong item costs. Called by `tool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pydantic_core
from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaWarningKind
from typing_extensions import TypedDict

from enclave_broker.broker.tools.argument_view import NO_SCHEMA, ArgumentView
from enclave_broker.broker.tools.faults import explain
from enclave_broker.types.errors import ConfigurationError

__all__ = ["ArgumentSchema", "adapter_of", "arguments_type", "json_schema_of"]

_NO_TYPE = (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError, NameError)
_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_COLLECTIONS = frozenset({"list", "deque", "tuple", "set", "frozenset", "dict"})
_OBJECTS = frozenset({"model-fields", "typed-dict", "dataclass-args"})


def adapter_of(type_: Any, subject: str) -> TypeAdapter[Any]:
    """pydantic's adapter for a type.

    Raises ConfigurationError that begins with `subject`, such as "tool orders:get: the result".
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(type_)
        adapter.rebuild()
        _ = adapter.core_schema
    except (
        PydanticUserError,
        PydanticSchemaGenerationError,
        PydanticUndefinedAnnotation,
        TypeError,
        NameError,
    ) as error:
        reason = str(error).split("\n\nFor further", 1)[0]
        raise ConfigurationError(f"{subject}: {reason}") from error
    return adapter


def json_schema_of(adapter: TypeAdapter[Any], mode: JsonSchemaMode, subject: str) -> dict[str, Any]:
    """The JSON schema of a type, without the titles that only repeat names.

    Raises ConfigurationError that begins with `subject`.
    """
    try:
        schema = adapter.json_schema(schema_generator=_Generator, mode=mode)
    except PydanticUserError as error:
        reason = str(error).split("\n\nFor further", 1)[0]
        raise ConfigurationError(f"{subject}: {reason}") from error
    for definition in schema.get("$defs", {}).values():
        definition.pop("title", None)
    schema.pop("title", None)
    return schema


def arguments_type(parameters: Mapping[str, Any]) -> Any:
    """A type whose JSON is the object of these parameters, any names: to their annotations, with defaults in them."""
    # Made by a call, since the names are only known now; a model would reserve names such as `json`.
    made: Any = cast("Any", TypedDict)("Arguments", dict(parameters))
    made.__pydantic_config__ = _CONFIG
    return made


class ArgumentSchema:
    """What the arguments of one tool must look like. `json_schema` is of type object, with `$defs` beside it."""

    def __init__(self, type_: Any, subject: str) -> None:
        self._adapter = adapter_of(type_, subject)
        self.json_schema = _object_schema(json_schema_of(self._adapter, "validation", subject), subject)
        core = _harden(self._adapter.core_schema, open_=False)
        # Not the validators that models bring along: they are what was hardened.
        self._validator = pydantic_core.SchemaValidator(core, _use_prebuilt=False)
        self._view = ArgumentView(self._adapter.core_schema)

    def validate(self, args_json: bytes, tool_name: str) -> Any:
        """What a handler gets.

        Raises ToolValidationError; what a validator of the tool's author raises besides ValueError and AssertionError
        passes through.
        """
        try:
            return self._validator.validate_json(args_json, strict=True)
        except pydantic_core.ValidationError as error:
            raise explain(tool_name, self.json_schema, args_json, error) from None

    def view(self, validated: Any) -> dict[str, Any]:
        """What a handler gets, as argument_view.py shows it."""
        return self._view(validated)


class _Generator(GenerateJsonSchema):
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _object_schema(schema: dict[str, Any], subject: str) -> dict[str, Any]:
    """A JSON schema as the root that clients want: an object, closed all the way down."""
    definitions: dict[str, Any] = schema.get("$defs", {})
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name:  # a recursive model is only a reference to itself
        schema = {**definitions[name], "$defs": definitions}
    if not _is_object(schema, definitions):
        raise ConfigurationError(
            f"{subject}: a parameter named args is the whole argument object: a dict, a model or a TypedDict. "
            "Give it another name if it is one argument"
        )
    schema = {"type": "object", **schema}
    _close(schema)
    return schema


def _is_object(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    if "$ref" in schema:
        return _is_object(definitions[str(schema["$ref"]).removeprefix("#/$defs/")], {})
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return all(_is_object(branch, definitions) for branch in branches)
    return schema.get("type") == "object"


def _close(schema: Any) -> None:
    """Say of every object with known properties that it has no others."""
    if not isinstance(schema, dict):
        return
    here = cast("dict[str, Any]", schema)
    if "properties" in here:
        here.setdefault("additionalProperties", False)
    for keyword in ("properties", "patternProperties", "$defs"):
        for below in here.get(keyword, {}).values():
            _close(below)
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for below in here.get(keyword, ()):
            _close(below)
    for keyword in ("items", "additionalProperties"):
        _close(here.get(keyword))


def _harden(schema: Any, *, open_: bool) -> Any:
    """A copy of a core schema: objects closed, infinities refused, collections given up at their first wrong item.

    `open_`: the next object below has a configuration that decides what becomes of unknown names.
    """
    if isinstance(schema, list | tuple):
        copies = [_harden(item, open_=open_) for item in cast("list[Any]", schema)]
        return copies if isinstance(schema, list) else tuple(copies)
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    kind = node.get("type")
    open_ = open_ or "extra_fields_behavior" in (node.get("config") or {})
    below_open = open_ and kind not in _OBJECTS
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in NO_SCHEMA:
            made[key] = value
        elif key in {"fields", "choices"} and isinstance(value, dict):  # by name or tag: these keys are no keywords
            named = cast("dict[str, Any]", value)
            made[key] = {name: _harden(field, open_=below_open) for name, field in named.items()}
        else:
            made[key] = _harden(value, open_=below_open)
    if kind in _COLLECTIONS:
        made["fail_fast"] = True
    elif kind in _OBJECTS and not open_:
        # pydantic itself writes "ignore" for a TypedDict; a choice of its author's stands in its configuration.
        if kind != "typed-dict" or "extra_fields_behavior" not in cast("dict[str, Any]", node.get("config") or {}):
            made["extra_behavior"] = "forbid"
    elif kind == "float":
        made.setdefault("allow_inf_nan", False)
    return made
