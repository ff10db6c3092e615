"""What an event costs between the log and a reader: its line, and a filter's check; and the request that begins it all.

python bench/events.py [--quick]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import re2  # type: ignore[import-untyped]
from figures import HEAD, Figure

from enclave_broker.stream.filters import EventFilter
from enclave_broker.types import events
from enclave_broker.types.requests import parse_session_request
from enclave_broker.types.wire import UnknownEvent, encode_event, payload_of_line

CALLS = 100  # of one case in a round; rounds go through all cases, so that what disturbs them disturbs all

_HEAD: dict[str, Any] = {"session_id": "s_1b4e28ba-2fa1-41d2-883f-0016d3cca427", "seq": 47}
_CALL_ID = "c_6fa459ea-ee8a-4ca4-894e-db77e160355e"
_TIME = "2025-01-31T12:00:00.000Z"
_ITEMS = [
    {"sku": f"SKU-{n:04}", "quantity": n, "price": n * 1.25, "note": "a few words of text", "token": None}
    for n in range(1, 11)
]
_STATS = {"durationMs": 13.25, "toolCallCount": 1, "stdoutBytes": 101}
_LOGGED = {"id": 4711, "late": True}

EVENTS: list[events.Event | UnknownEvent] = [
    events.SessionInitEvent(**_HEAD, cancel_url=f"/sessions/{_HEAD['session_id']}/cancel", expires_at=_TIME),
    events.StdoutEvent(
        **_HEAD, chunk="12:00:00 order 4711 of Ann: 25 rows in 13 ms, the first is 0815, the last 0042, ok\n"
    ),
    events.LogEvent(**_HEAD, level="warn", message="the order of Ann is late by three days", data=_LOGGED),
    events.ToolCallEvent(
        **_HEAD, call_id=_CALL_ID, tool_name="orders:search", args={"customer": {"name": "Ann"}, "items": _ITEMS}
    ),
    events.ToolProgressEvent(**_HEAD, call_id=_CALL_ID, phase="receiving", elapsed_ms=12.5, bytes_received=4096),
    events.ToolResultAppliedEvent(**_HEAD, call_id=_CALL_ID),
    events.PartialResultEvent(**_HEAD, path=["rows", "0"], has_next=True, data={"id": 4711, "name": "Ann"}),
    events.ErrorEvent(**_HEAD, message="the upstream is slow", code="UPSTREAM", recoverable=True),
    events.HeartbeatEvent(**_HEAD, ts=_TIME),
    events.DeadlineExceededEvent(**_HEAD, elapsed_ms=5003.5, budget_ms=5000.0),
    events.CatalogChangedEvent(**_HEAD, version="a1b2c3", added_actions=["orders:search"], removed_actions=[]),
    events.FinalEvent(**_HEAD, ok=True, result={"rows": 25, "first": "0815"}, stats=_STATS),
    UnknownEvent(type="enc", **_HEAD, fields={"kid": "k1", "nonceB64": "A" * 16, "ciphertextB64": "A" * 200}),
]

_FIELDS: Mapping[str, list[str | None]] = {
    "stdout": [None, "payload.chunk", "type", "seq"],
    "tool_call": [None, "payload.args", "payload.toolName", "payload.args.customer.name", "payload.args.items.3.price"],
    "final": [None, "payload.ok", "payload.result", "payload.stats.durationMs"],
}
# Of each kind three patterns, that fit nothing or what comes late.
_KINDS: Mapping[str, tuple[str, list[str]]] = {
    "exact": ("exact", ["nothing", "none", '{"chunk":"nothing"}']),
    "prefix": ("prefix", ["nothing", '{"callId":"c_7', "12:00:00 orders"]),
    "glob": ("glob", ["*nowhere*", "*order*nobody*", "orders:*"]),
    "glob with ?": ("glob", ["*n?where*", "*nob?dy*", "order?:*"]),
    "word": ("regex", ["nowhere", "order-", "nobody"]),
    "regex": ("regex", ["[0-9]{6}", r"\bE[A-Z]+\b", "[A-Z]{4}-x"]),
    "regex of words": ("regex", ["error|failure|fatal", "timeout|refused", "denied|forbidden"]),
    "regex that fits": ("regex", ["or?d.*s", "e", "[0-9]"]),
}
_BY_FIND = {"glob", "word"}  # unless case doesn't matter
_ANY_WAY = ((1, "any"), (3, "any"), (3, "all"))

SMALL = b'{"code": "return 1+1"}'
FULL = json.dumps({
    "code": "return 1+1",
    "sessionId": _HEAD["session_id"],
    "config": {"maxExecutionMs": 5000, "maxToolCalls": 3, "heartbeatIntervalMs": 1000},
    "limits": {"sessionTtlMs": 6000, "maxToolCalls": 4},
    "filter": {"mode": "include", "rules": []},
    "encryption": {"mode": "disabled"},
    "protocolVersion": 2,
    "language": "javascript",
    "allowedTools": ["orders:*"],
    "metadata": {"ticket": "4711"},
    "detach": False,
    "stream": True,
}).encode()  # fmt: skip


@dataclass
class Case:
    """One thing to call. `values`: of each round, microseconds of one call."""

    name: str
    call: Callable[[], object]
    values: list[float] = field(default_factory=list[float])

    @property
    def quiet(self) -> list[float]:
        """The better half of the rounds: whatever else the machine does only adds to so short a time."""
        return sorted(self.values)[: len(self.values) // 2 + 1]

    @property
    def median(self) -> float:
        return statistics.median(self.quiet)


def _timed(cases: list[Case], rounds: int) -> None:
    for case in cases:
        case.call()
    for _ in range(rounds):
        for case in cases:
            call, before = case.call, time.perf_counter()
            for _ in range(CALLS):
                call()
            case.values.append((time.perf_counter() - before) / CALLS * 1e6)


def _filter_case(event: events.Event, path: str | None, kind: str, options: tuple[bool, int, str]) -> Case:
    ignore_case, count, match = options
    type, texts = _KINDS[kind]
    where = {} if path is None else {"field": path}
    patterns = [{"type": type, "pattern": text, "caseInsensitive": ignore_case, **where} for text in texts[:count]]
    rules = [{"content": {"patterns": patterns, "match": match}}]
    filter = EventFilter.parse({"mode": "include", "rules": rules, "alwaysAllow": []})
    line = encode_event(event)
    name = f"{event.type} {path or 'whole payload'}: {kind}{', any case' * ignore_case}, {count} {match}"
    return Case(name, partial(filter.passes, event, line))


def _filter_cases() -> tuple[list[Case], list[Case]]:
    """Those that have to meet the bar; and those that read a kilobyte with RE2, or several times over."""
    usual: list[Case] = []
    heavy: list[Case] = []
    for event in EVENTS:
        for path, kind, ignore_case in product(_FIELDS.get(event.type, []), _KINDS, (False, True)):
            assert isinstance(event, events.Event)
            reads = (
                event.type == "tool_call" and path in {None, "payload.args"} and _KINDS[kind][0] in {"glob", "regex"}
            )
            for count, match in _ANY_WAY:
                case = _filter_case(event, path, kind, (ignore_case, count, match))
                once = kind in _BY_FIND and not ignore_case and count == 1
                (heavy if reads and not once else usual).append(case)
    return usual, heavy


def _re2_alone() -> Case:
    """RE2 over the same kilobyte, called as cheaply as it can be."""
    (line,) = (encode_event(event) for event in EVENTS if event.type == "tool_call")
    text = payload_of_line(line)
    found = re2.Set.SearchSet()
    found.Add("[0-9]{6}")
    found.Compile()
    return Case("RE2 alone", partial(found._set.Match, text))


def _figure(name: str, cases: list[Case], bar: float | None, floor: Case | None = None) -> Figure:
    """The worst of the cases."""
    worst = max(cases, key=lambda case: case.median)
    return Figure(
        name=name,
        values=worst.quiet,
        unit="µs",
        bar=bar,
        floor=None if floor is None else floor.median,
        note=f"worst of {len(cases)}: {worst.name}" if len(cases) > 1 else worst.name,
        extra={} if len(cases) > 50 else {case.name: round(case.median, 3) for case in cases},
    )


async def measure(*, quick: bool) -> list[Figure]:
    usual, heavy = _filter_cases()
    alone = _re2_alone()
    lines = [Case(event.type, partial(encode_event, event)) for event in EVENTS]
    small, full = (Case(f"{len(body)} bytes", partial(parse_session_request, body)) for body in (SMALL, FULL))
    _timed([*usual, *heavy, alone, *lines, small, full], 7 if quick else 31)
    return [
        _figure("a filter's check of one event", usual, 2.0),
        _figure("a filter's check that reads 1 KB by RE2, or thrice", heavy, None, alone),
        _figure("encode of one event", lines, 3.0),
        _figure("decode of a POST body", [small], 3.0),
        _figure("decode of a POST body with every field", [full], None),
    ]


if __name__ == "__main__":
    print(HEAD)
    for each in asyncio.run(measure(quick="--quick" in sys.argv)):
        print(each.row())
