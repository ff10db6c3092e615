"""Where logs are kept: the one interface, and what each implementation promises.

Called by sessions/committer.py only. One contract suite runs over every implementation (tests/broker/store/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from enclave_broker.broker.store.records import Record

__all__ = ["Appended", "Store"]


class Appended(NamedTuple):
    """New records of one session, dense by index after what the store has of it."""

    session_id: str
    records: Sequence[Record]


class Store(Protocol):
    """Keeps logs. What `append` has returned for survives whatever the implementation promises to survive."""

    async def append(self, batches: Sequence[Appended], owner: str) -> None:
        """Append all of it or none.

        Raises StoreError when it can't, and when somebody else than `owner` has the lease of one of the sessions.
        """
        ...

    async def read(self, session_id: str, from_index: int = 0) -> Sequence[Record]:
        """The records from an index on; none for a session that isn't there."""
        ...

    async def lease(self, session_id: str, owner: str, seconds: float) -> bool:
        """Take or renew the right to append to a session; False while somebody else has it."""
        ...

    async def forget(self, session_id: str) -> None:
        """Keep nothing of a session."""
        ...
