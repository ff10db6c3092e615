from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.runtime.frames import HEADER, FrameDecoder, FrameError, pack

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=8)


@given(FRAMES, st.data())
def test_any_split_of_the_bytes_decodes_alike(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(pack(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = FrameDecoder()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [frame for piece in pieces for frame in decoder.feed(piece)] == frames


def test_a_frame_over_the_limit_is_refused_before_its_body_comes() -> None:
    decoder = FrameDecoder(limit=10)
    with pytest.raises(FrameError, match="11 bytes"):
        list(decoder.feed(HEADER.pack(11, 1, 1)))


def test_a_frame_over_the_limit_is_refused_when_its_header_comes_in_pieces() -> None:
    decoder = FrameDecoder(limit=10)
    header = HEADER.pack(2**32 - 1, 1, 1)
    assert list(decoder.feed(header[:4])) == []
    with pytest.raises(FrameError):
        list(decoder.feed(header[4:]))
