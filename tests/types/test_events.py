from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from enclave_broker.types.events import (
    CatalogChangedEvent,
    DeadlineExceededEvent,
    ErrorEvent,
    Event,
    FinalEvent,
    HeartbeatEvent,
    LogEvent,
    PartialResultEvent,
    SessionInitEvent,
    StdoutEvent,
    ToolCallEvent,
    ToolProgressEvent,
    ToolResultAppliedEvent,
)

HEAD: Any = {"session_id": "s_1", "seq": 7}
ERROR = {"message": "m", "code": "C"}

WIRE: list[tuple[Event, str, dict[str, Any]]] = [
    (
        SessionInitEvent(**HEAD, cancel_url="/sessions/s_1/cancel", expires_at="2025-01-01T00:00:00.000Z"),
        "session_init",
        {
            "cancelUrl": "/sessions/s_1/cancel",
            "expiresAt": "2025-01-01T00:00:00.000Z",
            "encryption": {"enabled": False},
        },
    ),
    (
        SessionInitEvent(**HEAD, cancel_url="c", expires_at="e", replay_url="/r", encryption={"enabled": True}),
        "session_init",
        {"cancelUrl": "c", "expiresAt": "e", "encryption": {"enabled": True}, "replayUrl": "/r"},
    ),
    (StdoutEvent(**HEAD, chunk="a\n"), "stdout", {"chunk": "a\n"}),
    (LogEvent(**HEAD, level="warn", message="m"), "log", {"level": "warn", "message": "m"}),
    (
        LogEvent(**HEAD, level="info", message="m", data={"snake_case": 1}),
        "log",
        {"level": "info", "message": "m", "data": {"snake_case": 1}},
    ),
    (
        ToolCallEvent(**HEAD, call_id="c_1", tool_name="t", args={"a_b": None}),
        "tool_call",
        {"callId": "c_1", "toolName": "t", "args": {"a_b": None}},
    ),
    (
        ToolProgressEvent(**HEAD, call_id="c_1", phase="connecting", elapsed_ms=0.0),
        "tool_progress",
        {"callId": "c_1", "phase": "connecting", "elapsedMs": 0.0},
    ),
    (
        ToolProgressEvent(**HEAD, call_id="c_1", phase="receiving", elapsed_ms=1.5, bytes_received=0, total_bytes=0),
        "tool_progress",
        {"callId": "c_1", "phase": "receiving", "elapsedMs": 1.5, "bytesReceived": 0, "totalBytes": 0},
    ),
    (ToolResultAppliedEvent(**HEAD, call_id="c_1"), "tool_result_applied", {"callId": "c_1"}),
    (PartialResultEvent(**HEAD, path=["a"], has_next=False), "partial_result", {"path": ["a"], "hasNext": False}),
    (
        PartialResultEvent(**HEAD, path=[], has_next=True, data=0, error=ERROR),
        "partial_result",
        {"path": [], "hasNext": True, "data": 0, "error": ERROR},
    ),
    (ErrorEvent(**HEAD, message="m"), "error", {"message": "m"}),
    (
        ErrorEvent(**HEAD, message="m", code="C", recoverable=False),
        "error",
        {"message": "m", "code": "C", "recoverable": False},
    ),
    (HeartbeatEvent(**HEAD, ts="2025-01-01T00:00:00Z"), "heartbeat", {"ts": "2025-01-01T00:00:00Z"}),
    (
        DeadlineExceededEvent(**HEAD, elapsed_ms=5.0, budget_ms=4.0),
        "deadline_exceeded",
        {"elapsedMs": 5.0, "budgetMs": 4.0},
    ),
    (
        CatalogChangedEvent(**HEAD, version="2", added_actions=["a"], removed_actions=[]),
        "catalog_changed",
        {"version": "2", "addedActions": ["a"], "removedActions": []},
    ),
    (FinalEvent(**HEAD, ok=True), "final", {"ok": True}),
    (FinalEvent(**HEAD, ok=True, result=None), "final", {"ok": True, "result": None}),
    (
        FinalEvent(**HEAD, ok=False, error=ERROR, errors=[ERROR], stats={"durationMs": 1}),
        "final",
        {"ok": False, "error": ERROR, "errors": [ERROR], "stats": {"durationMs": 1}},
    ),
]


@pytest.mark.parametrize(("event", "type", "payload"), WIRE)
def test_an_event_crosses_the_wire_as_the_protocol_says(event: Event, type: str, payload: dict[str, Any]) -> None:
    wire = event.to_wire()
    assert wire == {"protocolVersion": 2, "sessionId": "s_1", "seq": 7, "type": type, "payload": payload}
    assert json.loads(json.dumps(wire)) == wire
    assert event.type == type


def test_a_null_that_the_script_returned_is_not_a_missing_result() -> None:
    assert "result" in FinalEvent(**HEAD, ok=True, result=None).payload()
    assert "result" not in FinalEvent(**HEAD, ok=True).payload()


def test_data_of_null_is_not_missing_data() -> None:
    assert PartialResultEvent(**HEAD, path=[], has_next=False, data=None).payload()["data"] is None


@pytest.mark.parametrize("event", [item[0] for item in WIRE])
def test_an_event_is_frozen(event: Event) -> None:
    with pytest.raises(AttributeError):
        event.seq = 8  # pyright: ignore[reportAttributeAccessIssue] that is what is tested


def test_events_of_one_kind_do_not_share_their_defaults() -> None:
    first, second = (SessionInitEvent(**HEAD, cancel_url="c", expires_at="e") for _ in range(2))
    first.encryption["enabled"] = True
    assert second.encryption == {"enabled": False}


def test_events_match_by_class_and_field() -> None:
    match msgspec.structs.replace(StdoutEvent(**HEAD, chunk="a"), chunk="b"):
        case StdoutEvent(chunk=chunk, seq=seq):
            assert (chunk, seq) == ("b", 7)
