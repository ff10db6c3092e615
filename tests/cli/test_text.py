from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.cli.text import cut, duration, excerpt, inline, json_text, size, summary, visible, width

ANY_TEXT = st.text(st.characters(codec=None))
"""Lone surrogates, too."""


INVISIBLE = "\u200b\u200d\u00ad\u2060\ufeff\U000e0041\u3164\u180e\u115f\u1160\uffa0\u2800\u034f\ufe0f\U000e0101"


@pytest.mark.parametrize("character", INVISIBLE)
def test_a_character_that_shows_nothing_is_escaped(character: str) -> None:
    for shown in (visible(f"a{character}b"), inline(f"a{character}b"), json_text(f"a{character}b")):
        assert character not in shown
        assert shown.isascii()
    assert json.loads(json_text(character)) == character


def test_every_format_character_is_escaped() -> None:
    formats = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    assert formats
    assert [character for character in formats if inline(character) == character] == []


@given(ANY_TEXT)
def test_escaped_text_has_no_character_that_could_drive_a_terminal(text: str) -> None:
    for shown, kept in ((visible(text), "\t\n"), (inline(text), "")):
        assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs"} and c not in kept]
        assert not set(shown) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@given(ANY_TEXT)
def test_escaped_json_is_the_same_value(text: str) -> None:
    shown = json_text({text: [text]})
    assert json.loads(shown) == {text: [text]}
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs"}]


@given(ANY_TEXT)
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    plain = "".join(c for c in text if c.isprintable() and c not in INVISIBLE and unicodedata.category(c) != "Mn")
    assert inline(plain) == plain


@given(st.text(), st.integers(1, 40))
def test_a_cut_line_is_never_wider_than_asked_for(text: str, columns: int) -> None:
    shown = cut(text, columns)
    assert width(shown) <= columns
    assert shown == text or shown.endswith("…")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0011, "1.1 ms"), (0.0999, "99.9 ms"), (0.25, "250 ms"), (1.5, "1.50 s"), (125.0, "2 min 5 s")],
)
def test_durations_have_a_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 bytes"), (1, "1 byte"), (2048, "2.0 KiB"), (3 << 20, "3.0 MiB")])
def test_sizes_have_a_fitting_unit(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1], "1 item"),
        ([], "0 items"),
        ({}, "{}"),
        ({"orders": [1, 2], "next": None, "of": {"a": 1}}, "{orders: 2 items, next: null, of: {…}}"),
        ({"name": "x" * 50, "b" * 30: 1}, "{name: 50 characters, …}"),
        ({"k" * 50: 1}, "1 field"),
        ("short", '"short"'),
        ("x" * 1000, "1,000 characters"),
        (None, "null"),
        (1.5, "1.5"),
    ],
)
def test_a_value_is_told_in_a_few_words(value: object, text: str) -> None:
    assert summary(value) == text


@pytest.mark.parametrize(
    ("source", "line", "column", "rows"),
    [
        ("a\r\nb c\r\n", 2, 3, ["    2 | b c", "      |   ^"]),
        ("\tx", 1, 2, ["    1 |  x", "      |  ^"]),
        ("日本 x", 1, 4, ["    1 | 日本 x", "      |      ^"]),
        ("ab", 1, 99, ["    1 | ab", "      |   ^"]),
        ("ab", 1, None, ["    1 | ab"]),
        ("\x1b[2J x", 1, 6, ["    1 | \\x1b[2J x", "      |         ^"]),
        ("a", 2, 1, []),
        ("", 0, 0, []),
    ],
)
def test_a_caret_stands_below_its_column(source: str, line: int, column: int | None, rows: list[str]) -> None:
    assert excerpt(source, line, column) == rows


def test_of_a_long_line_the_part_around_the_place_is_shown() -> None:
    source = "a" * 5000 + "HERE" + "b" * 5000
    text, caret = excerpt(source, 1, 5001)
    assert text[caret.index("^") :].startswith("HEREb")
    assert len(text) < 120
    assert "…a" in text
    assert text.endswith("b…")
