"""What every test gets without asking: each session that it ran is run again, offline, and compared.

The log is the whole truth, so a fresh engine fed with the recorded inputs has to make the same calls, timers, output
and end. Nobody can forget that: it is automatic.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from enclave_broker import Broker
from enclave_broker.broker.sessions.log import Log
from enclave_broker.broker.sessions.replay import Divergence, replay
from enclave_broker.runtime.memory import MemoryRuntime


@pytest.fixture(autouse=True)
def replays_every_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Log]]:
    logs: list[Log] = []
    make = Log.__init__

    @functools.wraps(make)
    def collect(self: Log, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        logs.append(self)

    monkeypatch.setattr(Log, "__init__", collect)
    yield logs
    recorded = [log for log in logs if log.records]
    if recorded:
        for log, divergence in asyncio.run(_replay_all(recorded)):
            raise AssertionError(f"session {log.session_id} came out differently on replay: {divergence}")


async def _replay_all(logs: list[Log]) -> list[tuple[Log, Divergence]]:
    runtime = MemoryRuntime()
    await runtime.start()
    try:
        found = [(log, await replay(log.records, runtime)) for log in logs]
    finally:
        await runtime.aclose()
    return [(log, divergence) for log, divergence in found if divergence is not None]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """A started broker with real workers and no tools."""
    async with Broker() as started:
        yield started
