"""JSON of bounded size: read without surprises, written into no more than the room there is.

What comes in is untrusted, and what goes out may be a handler's: shared structure (45 levels of `[x, x]`) is small in
memory only. Owns neither events nor requests. Called by types/wire.py, types/requests.py and stream.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, cast

import msgspec

__all__ = ["WireError", "WireSizeError", "decode_json", "encode_json", "mend_text"]

_FIRST_ROOM = 2_048  # bytes; nearly every event fits, and it takes little time to get
_GROWTH = 16
_SLACK = 64  # bytes that the encoder asks for before it writes a number
_LINE_END = ord("\n")  # looking for a number is several times faster than for b"\n"
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

_encode_into = msgspec.json.Encoder().encode_into
_decode = msgspec.json.Decoder().decode


class WireError(ValueError):
    """What came is not what the protocol says, or what should go can't be written. The message is safe to show."""


class WireSizeError(WireError):
    """A value has more bytes as JSON than are allowed."""


def decode_json(data: bytes | bytearray | memoryview) -> Any:
    """The value of a JSON text.

    Halves of surrogate pairs, which JavaScript writes as `\\ud800`, become U+FFFD.
    Raises WireError for everything else that isn't plain JSON: NaN, bad UTF-8, numbers of thousands of digits, text
    nested too deep.
    """
    try:
        return _decode(data)
    except (ValueError, RecursionError) as error:
        return _decode_mended(bytes(data), error)


def _decode_mended(text: bytes, error: Exception) -> Any:
    if b"\\ud" in text or b"\\uD" in text:
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return _decode(mend_text(json.dumps(value, ensure_ascii=False, allow_nan=False)).encode())
        except (ValueError, RecursionError) as second:
            error = second
    raise WireError(_why_unread(error)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _why_unread(error: Exception) -> str:
    """What is wrong with a JSON text, without quoting it."""
    match error:
        case RecursionError():
            return "the JSON is nested too deep"
        case UnicodeError():
            return "the text is not UTF-8"
        case msgspec.MsgspecError():
            return str(error)
        case _:
            return "the text is not JSON"


def encode_json(value: Any, max_bytes: int) -> bytes:
    """The JSON text of a value made of dicts, lists, Structs, texts, numbers, None and msgspec.Raw, on one line.

    NaN and infinities are null; lone surrogates become U+FFFD. No more than `max_bytes` is built, whatever the value.
    Raises WireSizeError beyond that, and WireError for what JSON can't hold.
    """
    try:
        try:
            text = _encode_within(value, max_bytes)
        except UnicodeEncodeError:
            text = _encode_within(_mend(value, {}), max_bytes)
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"this can't be written as JSON: {_why_unwritten(error)}") from error
    return msgspec.json.format(text, indent=-1) if _LINE_END in text else text  # of a Raw that somebody has laid out


def _encode_within(value: Any, max_bytes: int) -> bytes:
    """Writes into a buffer that can't grow, since it is exported; into a larger one when it was too small."""
    room = _FIRST_ROOM
    while room < max_bytes:
        buffer = bytearray(room)
        _pin = memoryview(buffer)  # `with` would cost a tenth of writing an event
        try:
            _encode_into(value, buffer)
        except BufferError:
            room *= _GROWTH
        else:
            return bytes(buffer)
    buffer = bytearray(max_bytes + _SLACK)
    _pin = memoryview(buffer)
    try:
        _encode_into(value, buffer)
    except BufferError:
        raise _too_large(max_bytes) from None
    if len(buffer) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(buffer)


def _too_large(max_bytes: int) -> WireSizeError:
    return WireSizeError(f"this has more than {max_bytes:,} bytes as JSON")


def _why_unwritten(error: Exception) -> str:
    match error:
        case RecursionError():
            return "it contains itself or is nested too deep"
        case TypeError():
            return str(error)
        case _:
            return "a whole number in it is too long"  # Python writes 4,300 digits


def mend_text(text: str) -> str:
    """The same text with U+FFFD for each half of a surrogate pair that stands alone; whole pairs are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _mend(value: Any, done: dict[int, Any]) -> Any:
    """The same value with all its texts mended. What is shared stays shared."""
    if isinstance(value, str):
        return mend_text(value) if _LONE_SURROGATE.search(value) else value
    if isinstance(value, msgspec.Struct):
        fields = {name: _mend(getattr(value, name), done) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if not isinstance(value, (dict, list, tuple)):
        return value
    container = cast("dict[Any, Any] | list[Any] | tuple[Any, ...]", value)
    mended = done.get(id(container))
    if mended is None:
        if isinstance(container, dict):
            mended = {_mend(key, done): _mend(item, done) for key, item in container.items()}
        else:
            mended = [_mend(item, done) for item in container]
        done[id(container)] = mended
    return mended
