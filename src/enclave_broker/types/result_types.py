"""`result_type`: what the value of a script has to be, checked when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.results import ExecutionResult, ScriptError

__all__ = ["typed"]

Check = Callable[[ExecutionResult[Any]], ExecutionResult[Any]]
MAX_REASONS = 3


def typed(result_type: Any) -> Check:
    """A function that gives a completed result's value its type, or makes it a failed result with VALIDATION_ERROR.

    Raises ConfigurationError for what is no type.
    """
    if result_type is Any:
        return _as_it_is
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(result_type)
        if not adapter.pydantic_complete:
            raise TypeError("it names a type that isn't there")
    except Exception as error:
        raise ConfigurationError(
            f"result_type {result_type!r} is nothing that a value can be checked against"
        ) from error

    def check(result: ExecutionResult[Any]) -> ExecutionResult[Any]:
        if not result.ok:
            return result
        try:
            return replace(result, value=adapter.validate_json(msgspec.json.encode(result.value), strict=True))
        except ValidationError as error:
            reasons = [_reason(item) for item in error.errors(include_url=False)[:MAX_REASONS]]
            message = f"the script's value is invalid: {'; '.join(reasons)}"
            return replace(
                result,
                ok=False,
                status="failed",
                value=None,
                error=ScriptError(code="VALIDATION_ERROR", message=message),
            )

    return check


def _as_it_is(result: ExecutionResult[Any]) -> ExecutionResult[Any]:
    return result


def _reason(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    return f"{where}: {item['msg']}" if where else str(item["msg"])
