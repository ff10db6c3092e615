from __future__ import annotations

from typing import Any

import msgspec
import pytest

from enclave_broker.stream.fields import reader_of
from enclave_broker.types.events import Event, FinalEvent, LogEvent, PartialResultEvent, StdoutEvent, ToolCallEvent
from enclave_broker.types.wire import UnknownEvent, encode_event

HEAD: Any = {"session_id": "s_1", "seq": 7}


def read(path: str, event: Event | UnknownEvent, line: bytes | None = None) -> bytes | None:
    reader = reader_of(path.split("."), type(event))
    return reader(event, encode_event(event) if line is None else line) if callable(reader) else reader


def call(args: Any) -> ToolCallEvent:
    return ToolCallEvent(**HEAD, call_id="c_1", tool_name='"args":{', args=args)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("type", b"stdout"),
        ("protocolVersion", b"2"),
        ("type.x", None),
        ("seq.0", None),
        ("payload.message", None),
        ("payload.chunk.x.y", None),
    ],
)
def test_what_the_kind_of_event_decides_is_known_beforehand(path: str, text: bytes | None) -> None:
    if path == "payload.chunk.x.y":
        assert read(path, StdoutEvent(**HEAD, chunk="x")) is text
    else:
        assert reader_of(path.split("."), StdoutEvent) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("é\n", "é\n".encode()),
        ("a\ud800", b"a\xef\xbf\xbd"),
        (None, b""),
        (True, b"true"),
        (0, b"0"),
        (10**30, b"1" + b"0" * 30),
        (10**5000, None),
        (5.0, b"5"),
        (-0.0, b"0"),
        (4.5, b"4.5"),
        (1e-7, b"1e-7"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e21"),
        (float("nan"), b"null"),
        ([1, 5.0, None], b"[1,5.0,null]"),
        ({"b": "\u00e9"}, '{"b":"é"}'.encode()),
        (msgspec.Raw(b'{ "b": "\\u00e9" }'), '{"b":"é"}'.encode()),
        (msgspec.Raw(b"{"), None),
        (object(), None),
    ],
    ids=lambda value: ascii(value)[:20] if type(value) is not int else "int",
)
def test_a_value_reads_as_javascript_would_show_it(value: Any, text: bytes | None) -> None:
    assert read("payload.result", FinalEvent(**HEAD, ok=True, result=value), b"") == text
    assert read("payload.a.0", UnknownEvent(type="x", **HEAD, fields={"a": [value]}), b"") == text


ARGS: list[Any] = [
    {},
    {"a": {"args": [1, "}"]}},
    {'"args":': 2},
    msgspec.Raw(b'{"n": "\\u00e9"}'),
    msgspec.Raw(b"[1]\n"),
]


@pytest.mark.parametrize("args", ARGS)
def test_arguments_read_alike_with_their_line_and_without(args: Any) -> None:
    value = msgspec.json.decode(args) if isinstance(args, msgspec.Raw) else args
    assert read("payload.args", call(args)) == read("payload.args", call(args), b"") == msgspec.json.encode(value)


def test_the_payload_is_read_from_the_line_and_only_there() -> None:
    event = call({"a": 1})
    assert read("payload", event) == b'{"callId":"c_1","toolName":"\\"args\\":{","args":{"a":1}}'
    assert read("payload", event, b"") is None


def test_a_path_leads_into_lists_and_json_text() -> None:
    event = call(msgspec.Raw(b'{"a":[{"b":"c"}]}'))
    assert read("payload.args.a.0.b", event) == b"c"
    assert read("payload.args.a.1.b", event) is None
    assert read("payload.args.a.-1.b", event) is None
    assert read("payload.args.a.x", event) is None
    assert read("payload.args.a.\u0660", event) is None


def test_a_field_that_was_left_out_is_none_and_one_that_is_null_is_empty() -> None:
    assert read("payload.data", LogEvent(**HEAD, level="info", message="m")) is None
    assert read("payload.data", PartialResultEvent(**HEAD, path=[], has_next=True)) is None
    assert read("payload.data", PartialResultEvent(**HEAD, path=[], has_next=True, data=None)) == b""
    assert read("payload.error.code", PartialResultEvent(**HEAD, path=[], has_next=True)) is None


def test_an_event_of_an_unknown_type_has_a_head_and_what_it_came_with() -> None:
    event = UnknownEvent(type="later", session_id="s_é", seq=3, fields={"a": "b"})
    found = [read(path, event) for path in ("type", "sessionId", "seq", "protocolVersion", "payload", "payload.a")]
    assert found == [b"later", "s_é".encode(), b"3", b"2", b'{"a":"b"}', b"b"]
    assert read("payload.b", event) is None
