"""Tools that the client of a session executes: the same schema and policy, but no handler of the host's."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from enclave_broker.broker.tools.tool import Tool, tool_from_function

__all__ = ["client_tool"]


def client_tool(name: str, *, args: Any, result: Any, timeout: float | timedelta, description: str) -> Tool:
    """The tool. Its call waits until somebody answers it or `timeout` is over. Raises ConfigurationError."""

    async def handler(args: Any) -> Any:  # noqa: ARG001 its signature is what counts
        raise AssertionError("a client's tool has no handler")

    handler.__annotations__ = {"args": args, "return": result}
    handler.__doc__ = description
    tool = tool_from_function(handler, name=name, effect="write", timeout=timeout)
    return dataclasses.replace(tool, is_client=True)
