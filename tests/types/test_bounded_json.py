from __future__ import annotations

import json
import math
import sys
import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.bounded_json import WireError, WireSizeError, decode_json, encode_json, mend_text
from enclave_broker.types.events import StdoutEvent

MIB = 1 << 20

TEXTS = st.text(st.characters(blacklist_categories=[]), max_size=20)  # halves of surrogate pairs, too
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def mended(value: Any) -> Any:
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, list):
        return [mended(item) for item in value]  # pyright: ignore[reportUnknownVariableType] any list
    if isinstance(value, dict):
        return {mend_text(name): mended(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] any dict
    return value


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert decode_json(encode_json(value, MIB)) == mended(value)


@given(VALUES)
def test_what_another_writer_wrote_with_escapes_is_read(value: Any) -> None:
    assert decode_json(json.dumps(value).encode()) == mended(value)


@given(VALUES, st.integers(0, 200))
def test_no_text_is_longer_than_it_may_be(value: Any, max_bytes: int) -> None:
    whole = encode_json(value, MIB)
    if len(whole) <= max_bytes:
        assert encode_json(value, max_bytes) == whole
    else:
        with pytest.raises(WireSizeError):
            encode_json(value, max_bytes)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with suppress(WireError):
        decode_json(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"NaN", "malformed"),
        (b'["\\ud800", NaN]', "not JSON"),
        (b"Infinity", "malformed"),
        (b"1e400", "out of range"),
        (b'["\\ud800", 1e400]', "not JSON"),
        (b"9" * 5_000, "out of range"),
        (b'["\\ud800", ' + b"9" * 5_000 + b"]", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'["\\ud800",' + b"[" * 100_000, "nested too deep"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xef\xbb\xbf1", "malformed"),
        (b"1 2", "malformed"),
    ],
)
def test_what_is_no_plain_json_is_an_error_that_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_json(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud800"', "�"),
        (b'"a\\uDC00b"', "a�b"),
        (b'"\\ud83d\\ude00 \\ud83d"', "😀 �"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'{"\\udfff":[]}', {"�": []}),
    ],
)
def test_halves_of_surrogate_pairs_become_replacement_characters(text: bytes, value: Any) -> None:
    assert decode_json(text) == value


def test_halves_of_surrogate_pairs_are_written_as_replacement_characters() -> None:
    assert decode_json(encode_json({"a\ud800": ["\udc00", ("b",), 1]}, MIB)) == {"a�": ["�", ["b"], 1]}
    assert encode_json("\ud83d\ude00", MIB) == '"😀"'.encode()


def test_shared_structure_is_never_written_beyond_the_limit() -> None:
    for leaf in ("a", "\ud800"):
        value: list[Any] = [leaf]
        for _ in range(45):
            value = [value, value]
        with pytest.raises(WireSizeError, match="1,048,576"):
            encode_json(value, MIB)
    with pytest.raises(WireSizeError):
        encode_json(["x" * 100_000] * 1_000_000, MIB)


def test_no_more_memory_than_the_limit_is_taken() -> None:
    value: list[Any] = ["a"]
    for _ in range(22):
        value = [value, value]
    tracemalloc.start()
    try:
        for whole in (value, {"a": value}, [value, "\ud800"]):
            with pytest.raises(WireSizeError):
                encode_json(whole, MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB


def test_a_struct_is_written_with_its_texts_mended() -> None:
    event = StdoutEvent(session_id="s_\ud800", seq=1, chunk="a\udc00")
    assert encode_json(event, MIB) == '{"sessionId":"s_\ufffd","seq":1,"chunk":"a\ufffd"}'.encode()


def test_what_contains_itself_is_an_error() -> None:
    value: list[Any] = []
    value += [value, value]
    with pytest.raises(WireError, match="contains itself"):
        encode_json(value, MIB)
    with pytest.raises(WireError, match="contains itself"):
        encode_json([value, "\ud800"], MIB)


def test_numbers_that_json_lacks_are_null_and_endless_ones_an_error() -> None:
    assert encode_json([math.nan, math.inf, -math.inf], MIB) == b"[null,null,null]"
    with pytest.raises(WireError, match="too long"):
        encode_json(10 ** (sys.get_int_max_str_digits() + 1), MIB)


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, {"a": [msgspec.UNSET]}])
def test_what_json_cannot_hold_is_an_error(value: Any) -> None:
    with pytest.raises(WireError, match="can't be written"):
        encode_json(value, MIB)


def test_a_text_that_is_json_already_is_taken_without_its_line_ends() -> None:
    assert encode_json({"a": msgspec.Raw(b'{\n "b": "c d"\n}')}, MIB) == b'{"a":{"b":"c d"}}'


def test_line_ends_in_texts_are_escaped() -> None:
    assert b"\n" not in encode_json("a\nb\u2028c\x85d\r", MIB)
