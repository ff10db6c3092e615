from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.bounded_json import WireError, WireSizeError
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
from enclave_broker.types.wire import (
    EVENT_TYPES,
    UnknownEvent,
    decode_event,
    encode_event,
    payload_of_line,
)

HEAD: Any = {"session_id": "s_1", "seq": 7}
ERROR = {"message": "m", "code": "C"}
TIME = "2025-01-31T12:00:00.000Z"

EVENTS: list[Event] = [
    SessionInitEvent(**HEAD, cancel_url="/sessions/s_1/cancel", expires_at=TIME),
    SessionInitEvent(**HEAD, cancel_url="c", expires_at=TIME, replay_url="/r", encryption={"enabled": True}),
    StdoutEvent(**HEAD, chunk="a\u2028b\x85\n"),
    LogEvent(**HEAD, level="warn", message=""),
    LogEvent(**HEAD, level="debug", message="m", data={"a_b": None}),
    ToolCallEvent(**HEAD, call_id="c_1", tool_name="orders:search", args={"a_b": [1, None]}),
    ToolProgressEvent(**HEAD, call_id="c_1", phase="connecting", elapsed_ms=0.0),
    ToolProgressEvent(**HEAD, call_id="c_1", phase="receiving", elapsed_ms=1.5, bytes_received=0, total_bytes=3),
    ToolResultAppliedEvent(**HEAD, call_id="c_1"),
    PartialResultEvent(**HEAD, path=["a"], has_next=False),
    PartialResultEvent(**HEAD, path=[], has_next=True, data=0, error=ERROR),
    ErrorEvent(**HEAD, message="m"),
    ErrorEvent(**HEAD, message="m", code="C", recoverable=False),
    HeartbeatEvent(**HEAD, ts="2025-01-31T12:00:00Z"),
    DeadlineExceededEvent(**HEAD, elapsed_ms=5.0, budget_ms=4.0),
    CatalogChangedEvent(**HEAD, version="2", added_actions=["a"], removed_actions=[]),
    FinalEvent(**HEAD, ok=True),
    FinalEvent(**HEAD, ok=True, result=None),
    FinalEvent(
        **HEAD,
        ok=False,
        error=ERROR,
        errors=[ERROR],
        stats={"durationMs": 1, "toolCallCount": 0, "stdoutBytes": 0},
    ),
]


def line_of(type: str, payload: Any, **head: Any) -> bytes:
    return json.dumps(
        {"protocolVersion": 2, "sessionId": "s_1", "seq": 1, "type": type, "payload": payload, **head}
    ).encode()


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back_as_it_went(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("event", EVENTS)
def test_a_line_is_the_event_as_the_protocol_writes_it(event: Event) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == event.to_wire()
    assert json.loads(payload_of_line(line)) == event.payload()
    assert line.startswith(
        b'{"protocolVersion":2,"sessionId":"s_1","seq":7,"type":"%b","payload":{' % event.type.encode()
    )


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (PartialResultEvent(**HEAD, path=[], has_next=True, data=None), {"path": [], "hasNext": True, "data": None}),
        (FinalEvent(**HEAD, ok=True, result=None), {"ok": True, "result": None}),
        (FinalEvent(**HEAD, ok=True), {"ok": True}),
    ],
)
def test_a_null_is_written_and_what_is_undefined_is_not(event: Event, payload: dict[str, Any]) -> None:
    assert json.loads(payload_of_line(encode_event(event))) == payload
    assert decode_event(encode_event(event)) == event


def test_every_type_of_event_has_been_tried() -> None:
    assert {event.type for event in EVENTS} == set(EVENT_TYPES)


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_the_protocol_are_read(version: int) -> None:
    assert decode_event(line_of("stdout", {"chunk": "a"}, protocolVersion=version)).type == "stdout"


def test_fields_that_an_event_does_not_have_are_dropped() -> None:
    event = decode_event(line_of("stdout", {"chunk": "a", "later": 1, "seq": 9, "sessionId": "s_x"}, extra=[1]))
    assert event == StdoutEvent(session_id="s_1", seq=1, chunk="a")


@pytest.mark.parametrize("type", ["enc", "later", ""])
def test_an_event_of_an_unknown_type_comes_as_unknown(type: str) -> None:
    line = line_of(type, {"kid": "k"})
    event = decode_event(line)
    assert event == UnknownEvent(type=type, session_id="s_1", seq=1, fields={"kid": "k"})
    assert event.payload() == {"kid": "k"}
    assert json.loads(encode_event(event)) == event.to_wire() == json.loads(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b"{}", "protocolVersion"),
        (b'"\xff"', "UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"protocolVersion":2,"sessionId":"s_1","seq":1,"type":"stdout"}', "payload"),
        (line_of("stdout", {"chunk": "a"}, protocolVersion=3), "protocolVersion 3"),
        (line_of("stdout", {"chunk": "a"}, protocolVersion="2"), "protocolVersion"),
        (line_of("stdout", {"chunk": "a"}, protocolVersion=True), "protocolVersion"),
        (line_of("stdout", {"chunk": "a"}, sessionId="s_"), "sessionId"),
        (line_of("stdout", {"chunk": "a"}, sessionId="x_1"), "sessionId"),
        (line_of("stdout", {"chunk": "a"}, seq=0), "seq"),
        (line_of("stdout", {"chunk": "a"}, seq=True), "seq"),
        (line_of("stdout", {"chunk": "a"}, seq=1.5), "seq"),
        (line_of("stdout", {}), "stdout: .*chunk"),
        (line_of("stdout", {"chunk": 1}), "stdout: .*chunk"),
        (line_of("stdout", "a"), "payload"),
        (line_of("log", {"level": "fatal", "message": "m"}), "level"),
        (line_of("session_init", {"cancelUrl": "c", "expiresAt": TIME, "encryption": {}}), "encryption"),
        (line_of("session_init", {"cancelUrl": "c", "expiresAt": "soon"}), "expiresAt"),
        (line_of("tool_call", {"callId": "1", "toolName": "t", "args": {}}), "callId"),
        (line_of("tool_call", {"callId": "c_1", "toolName": "", "args": {}}), "toolName"),
        (line_of("tool_call", {"callId": "c_1", "toolName": "t"}), "args"),
        (line_of("tool_progress", {"callId": "c_", "phase": "sending", "elapsedMs": 0}), "callId"),
        (line_of("tool_progress", {"callId": "c_1", "phase": "sending", "elapsedMs": -1}), "elapsedMs"),
        (line_of("tool_result_applied", {"callId": "c"}), "callId"),
        (line_of("heartbeat", {"ts": "2025-01-31T12:00:00+01:00"}), "ts"),
        (line_of("deadline_exceeded", {"elapsedMs": 1, "budgetMs": 0}), "budgetMs"),
        (line_of("partial_result", {"path": [], "hasNext": False, "error": {"message": "m"}}), "error"),
        (line_of("final", {"ok": 1}), "ok"),
        (line_of("final", {"ok": False, "error": {"code": "C"}}), "error"),
        (line_of("final", {"ok": False, "errors": [{"code": "C"}]}), "errors"),
        (line_of("final", {"ok": True, "stats": {"durationMs": 1}}), "stats"),
    ],
)
def test_a_line_that_breaks_the_protocol_is_an_error_that_names_the_field(line: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_event(line)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_raise_an_error(line: bytes) -> None:
    with pytest.raises(WireError):
        decode_event(line)


@given(st.text(st.characters(blacklist_categories=[])))
def test_any_text_of_a_script_can_be_written(text: str) -> None:
    event = decode_event(encode_event(StdoutEvent(**HEAD, chunk=text)))
    assert isinstance(event, StdoutEvent)
    assert event.chunk == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def test_halves_of_surrogate_pairs_in_a_line_become_replacement_characters() -> None:
    event = decode_event(line_of("stdout", {"chunk": "a\ud800"}))
    assert event == StdoutEvent(session_id="s_1", seq=1, chunk="a�")


@given(st.sampled_from(EVENTS), st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 2**63))
def test_an_event_of_any_session_comes_back_as_it_went(event: Event, id: str, seq: int) -> None:
    event = msgspec.structs.replace(event, session_id=f's_,"seq":{id}', seq=seq)
    line = encode_event(event)
    assert json.loads(line) == event.to_wire()
    assert json.loads(payload_of_line(line)) == event.payload()
    assert decode_event(line) == event


@given(st.sampled_from(EVENTS), st.integers(0, 250))
def test_a_line_is_written_if_it_has_no_more_bytes_than_it_may_have(event: Event, max_bytes: int) -> None:
    line = encode_event(event)
    if len(line) - 1 <= max_bytes:
        assert encode_event(event, max_bytes) == line
    else:
        with pytest.raises(WireSizeError, match=f"more than {max_bytes} bytes"):
            encode_event(event, max_bytes)


NUMBERS = [
    (event, field.encode_name)
    for event in EVENTS
    for field in msgspec.structs.fields(event)
    if "int" in str(field.type) or "float" in str(field.type)
]


@pytest.mark.parametrize(("event", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["true", '"1"', "NaN", "1e999", "9" * 5_000, "[1]"], ids=lambda value: value[:5])
def test_a_number_is_a_number_and_nothing_else(event: Event, name: str, value: str) -> None:
    wire = event.to_wire()
    place = wire if name in wire else wire["payload"]
    place[name] = "here"
    line = json.dumps(wire).replace('"here"', value).encode()
    with pytest.raises(WireError, match=f"{name}|malformed|out of range"):
        decode_event(line)


def test_values_that_are_json_text_already_are_taken_as_they_are() -> None:
    raw: Any = msgspec.Raw(b'{"n":1.0}')
    line = encode_event(ToolCallEvent(**HEAD, call_id="c_1", tool_name="t", args=raw))
    assert b'"args":{"n":1.0}}' in line


def test_an_event_is_never_written_beyond_the_limit() -> None:
    value: Any = "a"
    for _ in range(45):
        value = [value, value]
    with pytest.raises(WireSizeError):
        encode_event(FinalEvent(**HEAD, ok=True, result=value), 100_000)
    with pytest.raises(WireSizeError):
        encode_event(StdoutEvent(**HEAD, chunk="a" * 100), 100)
    assert encode_event(StdoutEvent(**HEAD, chunk="a" * 100), 1_000)
