"""Tells the readers of runs which tools have come or gone, each of those that its session may call by their names.

Owns the tasks that wait for a host's facts. What an allow-list has is the session's, what rules say calls/policy.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from enclave_broker.broker.calls.access import AccessController
from enclave_broker.broker.calls.policy import ContextResolver, facts_about, may_call
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.tools.names import is_name
from enclave_broker.broker.tools.router import RoutesChanged

__all__ = ["CatalogNews"]

log = logging.getLogger("enclave_broker.tools")


class CatalogNews:
    """One for each start of a broker, in its loop."""

    def __init__(self, access: AccessController | None, context: ContextResolver | None) -> None:
        self._access = access
        self._context = context
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, sessions: Iterable[Session], version: Callable[[], str], told: RoutesChanged) -> None:
        """A pattern is no tool that anybody could list. Where there are rules, sessions are told a little later."""
        if not any(map(is_name, told.added + told.removed)):
            return
        for session in sessions:
            if session.execution is None or session.execution.over:
                continue
            if self._access is None:
                self._tell(session, None, version(), told)
            else:
                task = asyncio.create_task(self._ask_and_tell(session, version(), told))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _ask_and_tell(self, session: Session, version: str, told: RoutesChanged) -> None:
        try:
            facts = await facts_about(self._context, session.principal, session.context)
        except Exception:  # the host's own function
            log.exception("session %s: no facts for its rules, so it isn't told of tools", session.id)
        else:
            self._tell(session, facts, version, told)

    def _tell(self, session: Session, facts: Mapping[str, Any] | None, version: str, told: RoutesChanged) -> None:
        def may_know(name: str) -> bool:
            needs_auth = name in told.need_auth
            return is_name(name) and may_call(self._access, facts, session.principal, name, requires_auth=needs_auth)

        session.catalog_changed(version, list(filter(may_know, told.added)), list(filter(may_know, told.removed)))

    def end(self) -> None:
        """Nobody listens any more. Its loop may have ended, too."""
        for task in self._telling:
            if not task.get_loop().is_closed():
                task.cancel()
