"""What a broker is made of, and how a start puts it together: runtime, chain, log and host of one event loop.

Called by broker.py at each start; lifecycle.py ends what it makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from enclave_broker.broker.calls.approvals import Approvals
from enclave_broker.broker.calls.chain import compose
from enclave_broker.broker.calls.middleware.compose import Middleware
from enclave_broker.broker.calls.policy import Policy
from enclave_broker.broker.calls.runner import CallRunner
from enclave_broker.broker.calls.secrets import Secrets
from enclave_broker.broker.calls.shown_arguments import ShownArguments
from enclave_broker.broker.lifecycle import Running
from enclave_broker.broker.observers import Observers
from enclave_broker.broker.sessions.host import Host
from enclave_broker.broker.sessions.log import Log
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.broker.store.committer import Committer
from enclave_broker.broker.store.store import Store
from enclave_broker.broker.telemetry.telemetry import Telemetry
from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.wheel import Wheel
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.runtime.runtime import Runtime

__all__ = ["Parts", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What outlives a start."""

    catalog: Catalog
    middleware: tuple[Middleware, ...]
    secrets: Secrets
    threads: HandlerThreads
    runtimes: Sequence[Runtime]
    store: Store | None
    owner_id: str
    telemetry: Telemetry
    approvals: Approvals


async def assemble(parts: Parts, policy: Policy, sessions: SessionManager, *, weak_sandbox: bool) -> Running:
    """Start the runtime and build what calls and sessions need, in the running loop. Raises what the runtime raises."""
    loop = asyncio.get_running_loop()
    runtime = parts.runtimes[0] if parts.runtimes else ProcessPool(weak_sandbox=weak_sandbox)
    try:
        await runtime.start()
    except BaseException:
        await runtime.aclose()
        raise
    wheel = Wheel(loop)
    chain = compose(parts.catalog, wheel, parts.threads, policy, parts.middleware, parts.secrets)
    shown = ShownArguments(parts.catalog, parts.middleware)
    committer = None if parts.store is None else Committer(parts.store, parts.owner_id)
    host = Host(
        loop=loop,
        wheel=wheel,
        runtime=runtime,
        runner=CallRunner(chain),
        observers=Observers(),
        telemetry=parts.telemetry,
        shown=shown,
        make_log=partial(Log, committer=committer),
    )
    parts.approvals.attach(wheel, host.observers.tell)
    parts.telemetry.workers = lambda: runtime.pids if isinstance(runtime, ProcessPool) else ()
    running = Running(host, runtime, sessions, committer)
    running.on_end(parts.approvals.detach)
    running.on_end(shown.close)
    return running
