"""A tool call that waits for a person's word. Made by broker/calls/asked.py, and by clients from what a server says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from enclave_broker.types.principal import Principal

__all__ = ["Approval"]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: may `requested_by` have this call made, with exactly these `args`?

    `args` are a copy of the call's own, defaults filled in and nothing hidden. `rule` is the rule, or the tool's
    option, that asks. After `expires_at` the call fails with APPROVAL_EXPIRED. `line` is the script's, None where it
    isn't known.
    """

    id: str
    session_id: str
    call_id: str
    tool: str
    args: dict[str, Any]
    requested_by: Principal
    rule: str
    created_at: datetime
    expires_at: datetime
    line: int | None = None
