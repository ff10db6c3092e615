"""Logs for tests of the client: made of events, by hand or by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from enclave_broker.client.streams import Reconnection
from enclave_broker.stream.reconnect import BackoffOptions
from enclave_broker.types.events import (
    Event,
    FinalEvent,
    HeartbeatEvent,
    LogEvent,
    SessionInitEvent,
    StdoutEvent,
    ToolCallEvent,
    ToolResultAppliedEvent,
)
from tests.client.server import Log, lines_of

AT_ONCE = Reconnection(backoff=BackoffOptions(initial=1e-6, maximum=1e-5, attempts=5), silence=30.0, random=Random(1))
"""A client that tries again without waiting, so that a test takes no time."""

Make = Callable[[str], Sequence[Event]]


def run_of(*middle: Callable[[str, int], Event], result: Any = 3, error: dict[str, Any] | None = None) -> Make:
    """A run: `session_init`, what is given, `final`."""

    def make(id: str) -> list[Event]:
        init = SessionInitEvent(
            session_id=id, seq=1, cancel_url=f"/sessions/{id}/cancel", expires_at="2025-01-31T12:00:00.000Z"
        )
        between = [build(id, seq) for seq, build in enumerate(middle, 2)]
        stats = {"durationMs": 12.5, "toolCallCount": 1, "stdoutBytes": 4}
        ended: dict[str, Any] = {"ok": False, "error": error} if error is not None else {"ok": True, "result": result}
        return [init, *between, FinalEvent(session_id=id, seq=len(between) + 2, stats=stats, **ended)]

    return make


def logged(make: Make) -> Callable[[str], Log]:
    """The same as what a server has of it."""
    return lambda id: Log(lines_of(*make(id)))


def stdout(text: str) -> Callable[[str, int], Event]:
    return lambda id, seq: StdoutEvent(session_id=id, seq=seq, chunk=text)


def log(text: str) -> Callable[[str, int], Event]:
    return lambda id, seq: LogEvent(session_id=id, seq=seq, level="warn", message=text)


def heartbeat(id: str, seq: int) -> Event:
    return HeartbeatEvent(session_id=id, seq=seq, ts="2025-01-31T12:00:00.000Z")


def call(call_id: str, name: str, **args: Any) -> Callable[[str, int], Event]:
    return lambda id, seq: ToolCallEvent(session_id=id, seq=seq, call_id=call_id, tool_name=name, args=args)


def applied(call_id: str) -> Callable[[str, int], Event]:
    return lambda id, seq: ToolResultAppliedEvent(session_id=id, seq=seq, call_id=call_id)


def runs() -> st.SearchStrategy[Make]:
    """Runs of texts that hold every separator of lines but the protocol's own."""
    text = st.text(st.sampled_from('ab\n\r\u2028\u2029\x85\x0b\x0c\x1c🙂é"\\{}'), max_size=12)
    middle = st.one_of(
        text.map(stdout),
        text.map(log),
        st.just(heartbeat),
        st.integers(1, 3).map(lambda n: call(f"c_{n}", "orders:get", id=n)),
    )
    return st.lists(middle, max_size=12).map(lambda events: run_of(*events))
