from __future__ import annotations

import json
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.stream.ndjson import BadLine, NdjsonDecoder, encode_line
from enclave_broker.types.bounded_json import WireSizeError, decode_json
from enclave_broker.types.events import StdoutEvent
from enclave_broker.types.wire import decode_event, encode_event

BYTES = st.binary(max_size=30) | st.lists(st.sampled_from([b"\n", b"\r\n", b"1", b'"a\xe2\x80\xa8"', b"[", b" "])).map(
    b"".join
)


def decoded(pieces: list[bytes], max_line_bytes: int = 1_000) -> list[Any]:
    decoder = NdjsonDecoder(decode_json, max_line_bytes=max_line_bytes)
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.finish()


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(BYTES, st.lists(st.integers(0, 40)), st.sampled_from([0, 1, 5, 1_000]))
def test_any_split_of_the_bytes_decodes_alike(data: bytes, cuts: list[int], max_line_bytes: int) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    whole = decoded([data], max_line_bytes)
    assert decoded(pieces, max_line_bytes) == whole
    assert decoded([bytes([byte]) for byte in data], max_line_bytes) == whole


@given(BYTES, st.lists(st.integers(1, 9), min_size=1), st.sampled_from([0, 1, 5]))
def test_no_more_is_held_than_shows_that_a_line_is_too_long(data: bytes, sizes: list[int], max_line_bytes: int) -> None:
    decoder = NdjsonDecoder(decode_json, max_line_bytes=max_line_bytes)
    for piece in split(data, sizes):
        decoder.feed(piece)
        held = decoder._held  # pyright: ignore[reportPrivateUsage] the promise is about it
        assert len(held) <= max_line_bytes + 1


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), st.lists(st.integers(1, 99), min_size=1)
)
def test_events_come_whole_through_any_split(chunks: list[str], sizes: list[int]) -> None:
    events = [StdoutEvent(session_id="s_1", seq=seq, chunk=chunk) for seq, chunk in enumerate(chunks, 1)]
    decoder = NdjsonDecoder(decode_event)
    pieces = split(b"\n".join([encode_event(event) for event in events]), sizes)
    assert [event for piece in pieces for event in decoder.feed(piece)] == events
    assert decoder.finish() == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_taken(kind: Callable[[bytes], bytes]) -> None:
    decoder = NdjsonDecoder(decode_json)
    assert decoder.feed(kind(b"1\n[2")) + decoder.feed(kind(b"]\n")) == [1, [2]]


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())))
def test_what_was_encoded_is_decoded(values: list[Any]) -> None:
    assert decoded([b"".join(map(encode_line, values))]) == values


def test_a_line_ends_at_a_line_feed_only() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf"
    first, second = decoded([json.dumps(text, ensure_ascii=False).encode() + b"\n1\r2\n"])
    assert first == text
    assert isinstance(second, BadLine)
    assert (second.number, second.start) == (2, "1\r2")


def test_carriage_returns_before_the_end_and_blank_lines_are_left_out() -> None:
    assert decoded([b"1\r\n\r\n\n  \n2\r", b"\n"]) == [1, 2]


@pytest.mark.parametrize(
    "line",
    [b"{", b"NaN", b'"\xff"', b"[" * 500 + b"x", b"9" * 5_000, b"1e999", b'["\\ud800",NaN]', b"\xef\xbb\xbf1", b"\x00"],
)
def test_a_bad_line_is_named_and_the_stream_goes_on(line: bytes) -> None:
    first, bad, last = decoded([b"1\n" + line + b"\n2\n"], 10_000)
    assert (first, last) == (1, 2)
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert bad.reason
    assert str(bad).startswith("line 2: ")
    assert len(bad.start) <= 400


def test_a_line_nested_without_end_is_a_bad_line() -> None:
    bad, last = decoded([b"[" * 200_000 + b"\n1\n"], 1_000_000)
    assert bad == BadLine(1, "the JSON is nested too deep", "[" * 80)
    assert last == 1


def test_a_decode_function_that_recurses_too_deep_harms_nothing() -> None:
    def recurse(line: bytes) -> Any:
        return recurse(line)

    (bad,) = NdjsonDecoder(recurse).feed(b"1\n")
    assert bad == BadLine(1, "it is nested too deep", "1")


def test_a_line_beyond_the_limit_is_reported_once_and_skipped() -> None:
    decoder = NdjsonDecoder(decode_json, max_line_bytes=10)
    assert decoder.feed(b"1234567890") == []
    assert decoder.feed(b"1") == [BadLine(1, "it has more than 10 bytes", "12345678901")]
    assert decoder.feed(b"2" * 100_000) == []
    assert decoder.feed(b"3\n4\n") == [4]
    assert decoder.finish() == []


def test_a_line_of_just_the_limit_is_taken() -> None:
    assert decoded([b"12345\n", b"123456\n", b"1234\r\n"], 5) == [
        12345,
        BadLine(2, "it has more than 5 bytes", "123456"),
        1234,
    ]


def test_a_stream_that_ends_within_a_line_says_so() -> None:
    assert decoded([b'1\n{"a":']) == [1, BadLine(2, "the stream ended within this line", '{"a":')]


def test_a_last_line_without_its_end_is_taken_when_it_is_whole() -> None:
    assert decoded([b'1\n{"a":2}']) == [1, {"a": 2}]


def test_a_line_is_never_written_beyond_the_limit() -> None:
    assert encode_line({"a": [1]}) == b'{"a":[1]}\n'
    with pytest.raises(WireSizeError):
        encode_line("a" * 100, 50)
