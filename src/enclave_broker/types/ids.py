"""Ids as the wire writes them: `s_…` a session, `c_…` a call, `a_…` an approval; a generated one is the prefix and a
UUIDv4."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NewType

__all__ = ["CallId", "SessionId", "check_session_id", "new_approval_id", "new_call_id", "new_session_id"]

SessionId = NewType("SessionId", str)
CallId = NewType("CallId", str)

RandomBytes = Callable[[int], bytes]

_SESSION_ID = re.compile(r"s_[A-Za-z0-9_.:@-]{1,126}\Z", re.ASCII)


def _uuid4(random: RandomBytes) -> str:
    # uuid.uuid4() costs five times this; one is made a call.
    h = random(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


def new_session_id(random: RandomBytes) -> SessionId:
    return SessionId("s_" + _uuid4(random))


def new_call_id(random: RandomBytes) -> CallId:
    return CallId("c_" + _uuid4(random))


def new_approval_id(random: RandomBytes) -> str:
    return "a_" + _uuid4(random)


def check_session_id(value: str) -> SessionId:
    """The same id, if a client may choose it.

    Raises ValueError that says what an id looks like.
    """
    if not _SESSION_ID.match(value):
        raise ValueError("a session id is 's_' and 1 to 126 of the characters A-Z a-z 0-9 _ . : @ -")
    return SessionId(value)
