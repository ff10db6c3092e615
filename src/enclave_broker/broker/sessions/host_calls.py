"""A call as the host gives it, read and checked before anything is recorded. Called by sessions/call_table.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from enclave_broker.types.errors import ConfigurationError, ToolValidationError

__all__ = ["call_from_mapping", "json_text"]


def json_text(args: dict[str, Any]) -> bytes:
    """The arguments as a script would have sent them. Raises ToolValidationError for what is no JSON."""
    try:
        return msgspec.json.encode(args)
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolValidationError(f"invalid arguments: they can't be written as JSON: {error}") from error


def call_from_mapping(call: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Id (maybe empty), name and arguments of a call that is given as a mapping."""
    unknown = set(call) - {"id", "name", "args"}
    name, args, id = call.get("name"), call.get("args", {}), call.get("id", "")
    if unknown or not isinstance(name, str) or not isinstance(args, dict) or not isinstance(id, str):
        raise ConfigurationError("a call is {'name': str, 'args': {...}, 'id'?: str}")
    return id, name, cast("dict[str, Any]", args)
