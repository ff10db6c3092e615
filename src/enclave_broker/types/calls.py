"""A tool call as listeners, middleware and hooks see it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from enclave_broker.types.principal import ANONYMOUS, Principal

__all__ = ["Effect", "ToolCall"]

Effect = Literal["read", "idempotent", "write"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `args` is the argument object as the script sent it; treat it as read-only.

    `attempt` counts the starts of the handler from 1; it is 0 before the first.
    """

    id: str
    name: str
    args: dict[str, Any]
    session_id: str = ""
    principal: Principal = ANONYMOUS
    effect: Effect = "write"
    attempt: int = 0

    def replace(self, *, args: dict[str, Any] | None = None, name: str | None = None) -> ToolCall:
        """The same call with other arguments.

        Raises ValueError for another `name`: a call keeps the name that the policy has judged.
        """
        if name is not None and name != self.name:
            raise ValueError(f"a call can't be renamed ({self.name!r} to {name!r}): call another tool instead")
        return self if args is None else msgspec.structs.replace(self, args=args)
