"""What a pattern of a filter looks at: a path into an event, as the text that stands there.

Owns how a path is resolved and how a value reads as text. A path is resolved once for each kind of event, so that what
the kind alone decides costs nothing later. Called by stream/filters.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec

from enclave_broker.types.bounded_json import WireError, decode_json, encode_json, mend_text
from enclave_broker.types.events import PROTOCOL_VERSION, Event, ToolCallEvent, wire_fields
from enclave_broker.types.wire import MAX_LINE_BYTES, UnknownEvent, payload_of_line

__all__ = ["Kind", "Read", "reader_of"]

_HEAD = ("protocolVersion", "sessionId", "seq", "type")
"""What a path may begin with besides `payload`."""

Kind = type[Event] | type[UnknownEvent]
Read = Callable[[Any, bytes], bytes | None]
"""Of an event of one kind and its line: the text, as UTF-8. None: there is none."""


def reader_of(path: Sequence[str], kind: Kind) -> Read | bytes | None:
    """How to read what stands at a path in events of this kind; or the text itself, where the kind decides it.

    A text stands for itself, null for an empty one, all else for its JSON; whole numbers never have a fraction.
    """
    first, *inner = path
    if first != "payload":
        return _head_reader(first, kind) if first in _HEAD and not inner else None
    if not inner:
        return _read_payload
    name, *inner = inner
    if kind is UnknownEvent:

        def unknown(event: UnknownEvent) -> Any:
            return event.fields.get(name, msgspec.UNSET)

        return _value_reader(unknown, msgspec.UNSET, inner)
    for field in wire_fields(cast("type[Event]", kind)):
        if field.wire_name == name:
            if kind is ToolCallEvent and name == "args" and not inner:
                return _read_args
            return _value_reader(attrgetter(field.name), field.absent, inner)
    return None


def _head_reader(name: str, kind: Kind) -> Read | bytes:
    if name == "protocolVersion":
        return b"%d" % PROTOCOL_VERSION
    if name == "type" and kind is not UnknownEvent:
        return kind.type.encode()
    return _value_reader(attrgetter({"sessionId": "session_id"}.get(name, name)), msgspec.UNSET, ())


def _read_payload(_: Any, line: bytes) -> bytes | None:
    return payload_of_line(line) if line else None


_ARGS = b'"args":'
_OBJECT, _ARRAY = cast("Any", dict), cast("Any", (list, tuple))
_encode = msgspec.json.Encoder().encode


def _read_args(event: ToolCallEvent, line: bytes) -> bytes | None:
    """Arguments end their line, and behind texts only: it needn't be written again to be searched."""
    if line and type(event.args) is dict:
        return line[line.index(_ARGS) + len(_ARGS) : -3]
    return _text(_descend(event.args, ()))


def _value_reader(get: Callable[[Any], Any], absent: Any, inner: Sequence[str]) -> Read:
    steps = [(name, int(name) if name.isascii() and name.isdigit() else -1) for name in inner]

    def read(event: Any, _: bytes) -> bytes | None:
        value = get(event)
        return None if value is absent else _text(value)

    def read_inside(event: Any, _: bytes) -> bytes | None:
        value = get(event)
        return None if value is absent else _text(_descend(value, steps))

    return read_inside if steps else read


def _descend(value: Any, steps: Sequence[tuple[str, int]]) -> Any:
    """What stands at a path in a value; UNSET when there is nothing. A step is a name, and a place in a list or -1."""
    if isinstance(value, msgspec.Raw):
        try:
            value = decode_json(bytes(value))
        except WireError:
            return msgspec.UNSET
    for name, at in steps:
        if isinstance(value, _OBJECT):
            value = value.get(name, msgspec.UNSET)
        elif at >= 0 and isinstance(value, _ARRAY):
            value = value[at] if at < len(value) else msgspec.UNSET
        else:
            return msgspec.UNSET
    return value


def _text(value: Any) -> bytes | None:
    """The value as JavaScript would show it. None for what isn't there, or what nobody can hold or write."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            return mend_text(value).encode()
    if not isinstance(value, (dict, list)):
        if isinstance(value, (int, float)):
            return _number(value)
        if value is None:
            return b""
        if value is msgspec.UNSET:
            return None
        if isinstance(value, msgspec.Raw):
            return _text(_descend(value, ()))
    try:
        return encode_json(value, MAX_LINE_BYTES)
    except WireError:
        return None


def _number(value: float) -> bytes | None:
    if isinstance(value, float) and value.is_integer() and math.fabs(value) < 1e21:
        value = int(value)
    try:
        return _encode(value)
    except (ValueError, OverflowError):  # of 4,300 digits
        return None
