"""The client's validator itself: it drops what a client would, so that the other tests can fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.protocol.schema import Refusal
from tests.protocol.streams import Run, event_of, lines_of

ID = "s_1"
CALL = "c_123e4567-e89b-42d3-a456-426614174000"
INIT = {"cancelUrl": "/sessions/s_1/cancel", "expiresAt": "2026-01-31T12:00:00.000Z", "encryption": {"enabled": False}}
STATS = {"durationMs": 1.5, "toolCallCount": 0, "stdoutBytes": 0}
END: dict[str, Any] = {"ok": True, "stats": STATS}
CALLED: dict[str, Any] = {"callId": CALL, "toolName": "a", "args": {}}


def event(number: int, type: str, payload: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"protocolVersion": 2, "sessionId": ID, "seq": number, "type": type, "payload": payload, **fields}


def progress(seq: int, phase: str) -> dict[str, Any]:
    return event(seq, "tool_progress", {"callId": CALL, "phase": phase, "elapsedMs": 0})


@pytest.mark.parametrize(
    "sent",
    [
        event(1, "session_init", INIT),
        event(2, "stdout", {"chunk": "a\n"}),
        event(2, "log", {"level": "warn", "message": "", "data": {}}),
        event(2, "tool_call", CALLED),
        event(2, "tool_progress", {"callId": CALL, "phase": "sending", "elapsedMs": 0.5, "totalBytes": 1}),
        event(2, "heartbeat", {"ts": "2026-01-31T12:00:00Z"}),
        event(2, "final", {"ok": True, "result": None, "stats": STATS}),
        event(2, "final", {"ok": False, "error": {"message": ""}}),
    ],
)
def test_what_the_protocol_has_is_taken(sent: dict[str, Any]) -> None:
    assert event_of(json.dumps(sent).encode()) == sent


@pytest.mark.parametrize(
    "sent",
    [
        event(0, "session_init", INIT),
        event(1, "session_init", INIT, seq=1.5),
        event(1, "session_init", INIT, seq="1"),
        event(1, "session_init", INIT, protocolVersion=1),
        event(1, "session_init", INIT, sessionId="s_"),
        event(1, "session_init", INIT, more=1),
        event(1, "session_init", {**INIT, "expiresAt": "2026-01-31T12:00:00+00:00"}),
        event(1, "session_init", {**INIT, "expiresAt": 1_700_000_000_000}),
        event(1, "session_init", {**INIT, "replayUrl": None}),
        event(1, "session_init", {**INIT, "encryption": {}}),
        event(2, "surprise", {}),
        event(2, "stdout", {"chunk": ""}),
        event(2, "stdout", {"chunk": None}),
        event(2, "log", {"level": "info", "message": "m", "data": None}),
        event(2, "log", {"level": "info", "message": "m", "data": [1]}),
        event(2, "log", {"level": "loud", "message": "m"}),
        event(2, "tool_call", {**CALLED, "callId": "c_1"}),
        event(2, "tool_call", {**CALLED, "args": None}),
        event(2, "tool_progress", {"callId": CALL, "phase": "waiting", "elapsedMs": 0}),
        event(2, "tool_progress", {"callId": CALL, "phase": "sending", "elapsedMs": -1}),
        event(2, "tool_progress", {"callId": CALL, "phase": "sending", "elapsedMs": 0, "totalBytes": 1.5}),
        event(2, "heartbeat", {"ts": "2026-01-31 12:00:00"}),
        event(2, "deadline_exceeded", {"elapsedMs": 1, "budgetMs": 0}),
        event(2, "final", {"ok": 1}),
        event(2, "final", {"ok": True, "error": {"message": "m"}}),
        event(2, "final", {"ok": False}),
        event(2, "final", {"ok": False, "error": {"message": "m", "code": None}}),
        event(2, "final", {"ok": False, "error": {"message": "m", "name": "Error"}}),
        event(2, "final", {"ok": True, "stats": {**STATS, "toolCallCount": 1.0}}),
    ],
)
def test_what_a_client_would_drop_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        event_of(json.dumps(sent).encode())


@pytest.mark.parametrize("type", ["partial_result", "error", "enc"])
def test_events_that_nothing_makes_today_are_refused(type: str) -> None:
    payloads: dict[str, dict[str, Any]] = {
        "partial_result": {"path": ["a"], "data": 1, "hasNext": False},
        "error": {"message": "m", "recoverable": True},
        "enc": {"kid": "k", "nonceB64": "AA==", "ciphertextB64": "AA=="},
    }
    with pytest.raises(AssertionError):
        event_of(json.dumps(event(2, type, payloads[type])).encode())


FIRST, LAST = event(1, "session_init", INIT), event(2, "final", END)


def test_a_whole_stream_is_taken() -> None:
    steps = [progress(3, "connecting"), progress(4, "processing"), progress(5, "receiving")]
    called = [event(2, "tool_call", CALLED), *steps, event(6, "tool_result_applied", {"callId": CALL})]
    assert Run([FIRST, *called, event(7, "final", END)]).result is None


@pytest.mark.parametrize(
    "events",
    [
        [FIRST],
        [LAST],
        [FIRST, event(3, "final", END)],
        [FIRST, LAST, LAST],
        [FIRST, LAST, event(3, "final", END)],
        [FIRST, event(2, "session_init", INIT), event(3, "final", END)],
        [event(1, "stdout", {"chunk": "\n"}), LAST],
        [FIRST, event(2, "final", END, sessionId="s_2")],
        [FIRST, event(2, "stdout", {"chunk": "without its newline"}), event(3, "final", END)],
        [FIRST, progress(2, "connecting"), event(3, "final", END)],
        [FIRST, event(2, "tool_call", CALLED), event(3, "tool_call", CALLED), event(4, "final", END)],
        [FIRST, event(2, "tool_call", CALLED), progress(3, "processing"), event(4, "final", END)],
        [
            FIRST,
            event(2, "tool_call", CALLED),
            progress(3, "connecting"),
            progress(4, "processing"),
            event(5, "final", END),
        ],
        [FIRST, event(2, "deadline_exceeded", {"elapsedMs": 1, "budgetMs": 1}), event(3, "final", END)],
    ],
)
def test_a_stream_that_breaks_the_order_is_refused(events: list[dict[str, Any]]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        Run(events)


def test_a_last_line_without_its_newline_is_refused() -> None:
    with pytest.raises(AssertionError):
        list(lines_of([b'{"a":1}\n{"b"', b":2}"]))


@pytest.mark.parametrize(
    "body",
    [
        {"code": "bad_request", "message": "m"},
        {"code": "A", "message": ""},
        {"code": "A", "message": "m", "detail": "m"},
        {"code": "A", "message": "m", "details": {"type": "validation_info"}},
        {"code": "A", "message": "m", "details": [{"type": "validation_info", "field": "code"}]},
        {"error": {"code": "A", "message": "m"}},
    ],
)
def test_an_error_of_another_shape_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Refusal.model_validate_json(json.dumps(body))
