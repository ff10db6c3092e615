"""Readers of sessions that the broker has forgotten: they may finish, within a size for all of them together.

A session that was deleted, or had to make room for newer ones, lives on in who still reads it, with its whole log. A
client that never reads would keep it for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Callable

from enclave_broker.broker.sessions.session import Session

__all__ = ["ABORT", "Leftovers"]

ABORT = "enclave_broker.abort"
"""Among a scope's extensions, where the server has it: cuts the connection off, with all that hasn't been sent."""

MAX_BYTES = 64 << 20  # of their logs, beside one that may have any size: as much as is kept for who might come back

Cut = Callable[[], None]
"""Ends a reader, whatever it waits for."""


class Leftovers:
    """`is_kept` says whether the broker still knows a session."""

    def __init__(self, is_kept: Callable[[Session], bool]) -> None:
        self._is_kept = is_kept
        self._readers: dict[Session, set[Cut]] = {}
        """Those of forgotten sessions, the first that was seen to be one first."""

    def look(self, session: Session, cut: Cut) -> None:
        """The reader still reads. Called again and again; cuts those who have had the longest time, if it has to."""
        if self._is_kept(session):
            return
        self._readers.setdefault(session, set()).add(cut)
        size = sum(each.log.size_bytes for each in self._readers)
        while size > MAX_BYTES and len(self._readers) > 1:
            oldest = next(iter(self._readers))
            size -= oldest.log.size_bytes
            for cut_off in self._readers.pop(oldest):
                cut_off()

    def left(self, session: Session, cut: Cut) -> None:
        """The reader has ended."""
        readers = self._readers.get(session)
        if readers is not None:
            readers.discard(cut)
            if not readers:
                del self._readers[session]
