"""Values of secrets are found in every encoding that is promised, at any place of any text, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pydantic_core
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from enclave_broker.broker.calls.scrub import Needle, ScrubbedError, Scrubber
from enclave_broker.broker.tools.context import LogLine, Progress
from enclave_broker.types.errors import RateLimitError, ToolError, ToolTimeoutError

VALUE = "s3cr3t/+&key \"with\" 'quotes', é, € and 😀 %41\n"
MARK = "[secret key]"


def lower_hex(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text)


def percent_all(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def escape_all(text: str) -> str:
    data = text.encode("utf-16-be").hex()
    return "".join(rf"\u{data[at : at + 4]}" for at in range(0, len(data), 4))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quote": quote,
    "quote with everything safe that may be": lambda text: quote(text, safe="/+&'\"$,:;=?@!*()"),
    "quote with nothing safe": lambda text: quote(text, safe=""),
    "quote in lower case": lambda text: lower_hex(quote(text, safe="")),
    "quote_plus": quote_plus,
    "quoted twice": lambda text: quote(quote(text, safe=""), safe=""),
    "quoted three times": lambda text: quote_plus(quote_plus(quote_plus(text))),
    "every byte quoted": percent_all,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 of a longer text": lambda text: base64.b64encode(f"user:{text}@host".encode()).decode(),
    "base64, quoted": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "base64 in lines, in JSON": lambda text: json.dumps(base64.encodebytes(b"x" * 50 + text.encode()).decode()),
    "hex": lambda text: text.encode().hex(),
    "hex in upper case": lambda text: text.encode().hex().upper(),
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON, every character escaped": escape_all,
    "JSON with slashes escaped": lambda text: json.dumps(text).replace("/", r"\/"),
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "HTML": html.escape,
    "HTML, numbers": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(character):04X};" for character in text),
    "code points in braces": lambda text: "".join(rf"\u{{{ord(character):x}}}" for character in text),
    "hex with colons": lambda text: text.encode().hex(":"),
    "hex with blanks": lambda text: text.encode().hex(" "),
}


def scrubber_of(*values: str) -> Scrubber:
    return Scrubber([Needle.of("key", value) for value in values])


# --- In every encoding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_value_is_replaced_by_its_name_in_every_encoding(encode: Callable[[str], str]) -> None:
    encoded = encode(VALUE)
    scrubbed = scrubber_of(VALUE).text(f"before {encoded} after")
    assert MARK in scrubbed
    assert scrubbed.startswith("before ")
    assert scrubbed.endswith(" after")
    assert not re.search("s3cr3t|czNjcjN0|733363723374", scrubbed)


values = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(string.printable)), min_size=8, max_size=40
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(value=values, encoding=st.sampled_from(sorted(ENCODINGS)), before=texts, after=texts)
def test_no_value_survives_at_any_place_of_any_text(value: str, encoding: str, before: str, after: str) -> None:
    assume(value not in MARK)
    encoded = ENCODINGS[encoding](value)
    scrubbed = scrubber_of(value).text(before + encoded + after)
    assert encoded not in scrubbed
    assert value not in scrubbed
    assert MARK in scrubbed


@given(value=values, before=st.binary(max_size=20), after=st.binary(max_size=20), urlsafe=st.booleans(), text=texts)
def test_no_value_survives_within_a_longer_text_that_was_encoded_as_base64(
    value: str, before: bytes, after: bytes, urlsafe: bool, text: str
) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    encoded = encode(before + value.encode() + after).decode()
    scrubbed = scrubber_of(value).text(f"{text} {encoded} {text}")
    assert MARK in scrubbed
    assert encoded not in scrubbed
    for run in re.findall("[A-Za-z0-9+/_-]+", scrubbed.replace(MARK, " ")):
        for first in range(4):
            part = run[first : len(run) - (len(run) - first) % 4]
            assert value.encode() not in base64.b64decode(part.translate({45: 43, 95: 47}))


@given(value=values, data=st.data())
def test_no_value_survives_whichever_of_its_characters_are_encoded(value: str, data: st.DataObject) -> None:
    assume(value not in MARK)
    ways: list[Callable[[str], str]] = [str, percent_all, escape_all, lambda text: json.dumps(text)[1:-1]]
    mixed = "".join(data.draw(st.sampled_from(ways))(character) for character in value)
    scrubbed = scrubber_of(value).text(f"<{mixed}>")
    assert MARK in scrubbed
    assert mixed not in scrubbed


# --- JSON ------------------------------------------------------------------------------------------------------------


@given(value=values, encoding=st.sampled_from(sorted(ENCODINGS)), before=texts, pydantic=st.booleans())
def test_what_is_found_in_a_text_is_found_in_its_json(value: str, encoding: str, before: str, pydantic: bool) -> None:
    assume(value not in MARK)
    text = before + ENCODINGS[encoding](value)
    scrubber = scrubber_of(value)
    write = pydantic_core.to_json if pydantic else msgspec.json.encode
    data = {text: [text, {"x": text}]}
    assert msgspec.json.decode(scrubber.json(write(data))) == scrubber.value(data)
    assert scrubber.json(write(data)) != write(data)


def test_values_are_replaced_in_texts_and_names_at_every_level_and_nothing_else_changes() -> None:
    scrubber = scrubber_of("canary-value")
    given = {"a": ["x", {"canary-value": 1, "more canary-value": [None, True, 1.5]}], "b": "canary-valu"}
    expected = {"a": ["x", {MARK: 1, f"more {MARK}": [None, True, 1.5]}], "b": "canary-valu"}
    assert scrubber.value(given) == expected
    assert msgspec.json.decode(scrubber.json(msgspec.json.encode(given))) == expected
    assert "canary-value" in given["a"][1], "the original is left alone"


def test_names_that_become_equal_are_numbered() -> None:
    scrubbed = scrubber_of("canary-value", "second-canary").value({"canary-value": 1, "second-canary": 2, MARK: 3})
    assert list(scrubbed.values()) == [1, 2, 3]
    assert all(name.startswith(MARK) for name in scrubbed)


@pytest.mark.parametrize("number", [1234567890, -1234567890, 99123456789099, 1234567890.0, 1234567890.25])
def test_a_number_that_holds_a_value_becomes_a_text_without_it(number: float) -> None:
    scrubbed = msgspec.json.decode(scrubber_of("1234567890").json(msgspec.json.encode({"n": [number]})))
    assert MARK in scrubbed["n"][0]
    assert "1234567890" not in scrubbed["n"][0]


def test_json_without_a_value_is_handed_back_as_it_is() -> None:
    text = b'{"a": [1, "some text with \\"quotes\\""]}'
    assert scrubber_of(VALUE).json(text) is text


# --- Several, and long ones ------------------------------------------------------------------------------------------


def test_values_that_overlap_are_all_gone() -> None:
    scrubber = Scrubber(
        [Needle.of("short", "12345678"), Needle.of("long", "12345678abcdefgh"), Needle.of("b", "efghijkl")]
    )
    scrubbed = scrubber.text("x 12345678abcdefghijkl y 12345678 z")
    assert re.fullmatch(r"x \[secret (?:short|long)\] y \[secret short\] z", scrubbed)


def test_a_text_with_very_many_finds_is_replaced_as_a_whole() -> None:
    scrubber = scrubber_of("canary-value")
    assert scrubber.text("canary-value " * 9_999).count(MARK) == 9_999
    assert scrubber.text("canary-value " * 10_001) == "[redacted]"


@pytest.mark.parametrize("filling", ["\\", "\n", "\\n", "%25", "s3cr3t/+&key ", "a", "QUJD", "+", "\\\\u"])
def test_a_long_text_that_is_nearly_a_value_is_searched(filling: str) -> None:
    text = filling * (1_000_000 // len(filling))
    assert scrubber_of(VALUE).text(text) == text
    assert scrubber_of(VALUE).text(text + VALUE).endswith(MARK)


def test_the_longest_secret_is_found() -> None:
    value = "".join(chr(33 + at * 7 % 90) for at in range(4_096))
    scrubber = scrubber_of(value)
    for encode in (ENCODINGS["quote"], ENCODINGS["base64 of a longer text"], ENCODINGS["JSON in JSON"], str):
        scrubbed = scrubber.text(f"a {encode(value)} b")
        assert MARK in scrubbed
        assert len(scrubbed) < 50


def test_a_text_with_half_a_surrogate_pair_is_searched_too() -> None:
    assert scrubber_of("canary-value").text("\ud800 canary-value") == f"\ufffd {MARK}"


# --- What a handler says ---------------------------------------------------------------------------------------------


def test_a_tool_error_loses_values_in_message_details_and_code_and_the_exceptions_that_led_to_it() -> None:
    try:
        try:
            raise ValueError("canary-value")
        except ValueError as cause:
            raise ToolError(
                "the key canary-value", code="canary-value", details={"canary-value": ["canary-value"]}
            ) from cause
    except ToolError as error:
        scrubbed = scrubber_of("canary-value").error(error)
    assert isinstance(scrubbed, ToolError)
    assert (scrubbed.message, scrubbed.code, scrubbed.details) == (f"the key {MARK}", "EXECUTION_ERROR", {MARK: [MARK]})
    assert (scrubbed.__cause__, scrubbed.__context__, scrubbed.__traceback__) == (None, None, None)
    assert "canary" not in repr(scrubbed)


def test_a_tool_error_keeps_its_type_and_what_is_no_secret() -> None:
    error = scrubber_of("canary-value").error(ToolTimeoutError("late", details=[1]))
    assert isinstance(error, ToolTimeoutError)
    assert (error.message, error.code, error.details) == ("late", "TOOL_TIMEOUT", [1])


class Odd:
    def __str__(self) -> str:
        raise ValueError("canary-value")

    __repr__ = __str__


@pytest.mark.parametrize("details", [Odd(), {"a": Odd()}, {1, 2}.__iter__()])
def test_details_that_are_no_json_are_left_out(details: Any) -> None:
    error = scrubber_of("canary-value").error(ToolError("x", details=details))
    assert isinstance(error, ToolError)
    assert error.details is None


def test_any_other_exception_becomes_the_text_of_its_traceback_without_values() -> None:
    try:
        try:
            raise OSError(13, "no access", "/srv/canary-value")
        except OSError as cause:
            cause.add_note("with canary-value")
            raise KeyError("canary-value") from cause
    except KeyError as error:
        scrubbed = scrubber_of("canary-value").error(error)
    assert isinstance(scrubbed, ScrubbedError)
    assert scrubbed.__cause__ is scrubbed.__context__ is None
    shown = str(scrubbed)
    assert "canary" not in shown
    assert all(part in shown for part in ("KeyError", "PermissionError", "test_scrub.py", MARK))


PEM = "-----BEGIN KEY-----\ncanary-one\n\ncanary-two\r\ncanary-three\n-----END KEY-----\n"


def test_a_value_of_several_lines_is_not_in_the_margin_of_a_group_either() -> None:
    noted = ValueError(PEM)
    noted.add_note(PEM)
    noted.__cause__ = RuntimeError(PEM)
    inner = ExceptionGroup(f"inner {PEM}", [noted, SyntaxError(PEM)])
    inner.__context__ = OSError(PEM)
    shown = str(scrubber_of(PEM).error(ExceptionGroup("outer", [inner, KeyError(PEM)])))
    assert "canary" not in shown
    assert shown.count(MARK) == 7
    assert all(part in shown for part in ("outer", "inner", "ValueError", "SyntaxError", "OSError", "RuntimeError"))


class Account(BaseModel):
    limit: int


def open_account(limit: str) -> None:
    try:
        Account.model_validate({"limit": limit})
    except ValidationError as error:
        raise ExceptionGroup("both", [error]) from error


def test_of_an_input_that_pydantic_would_cut_nothing_is_shown() -> None:
    value = "canary" * 40
    with pytest.raises(ExceptionGroup) as caught:
        open_account(value)
    shown = str(scrubber_of(value).error(caught.value))
    assert "canary" not in shown
    assert shown.count("limit: Input should be a valid integer") == 2


def test_the_time_until_another_try_is_no_secret() -> None:
    scrubber = scrubber_of("73519264")
    for seconds in (73519264, 73519264.25, 73519.264, "73519264"):
        scrubbed = scrubber.error(RateLimitError("later", retry_after=seconds))  # type: ignore[arg-type]
        assert isinstance(scrubbed, RateLimitError)
        assert scrubbed.retry_after == 0
    for seconds in (2.5, math.inf):
        scrubbed = scrubber.error(RateLimitError("later", retry_after=seconds))
        assert isinstance(scrubbed, RateLimitError)
        assert scrubbed.retry_after == seconds


def test_log_lines_and_progress_lose_values() -> None:
    scrubber = scrubber_of("1234567890")
    line = scrubber.told(LogLine("info", "key 1234567890", {"n": 1234567890, "1234567890": ["x1234567890"]}))
    assert line == LogLine("info", f"key {MARK}", {"n": MARK, MARK: [f"x{MARK}"]})
    assert scrubber.told(Progress(1.0, 2.0)) == Progress(1.0, 2.0)
    assert scrubber.told(Progress(1.0, None)) == Progress(1.0, None)
    for progress in (Progress(1234567890.0, None), Progress(1234567890.75, None), Progress(1.0, 1234567890)):
        assert scrubber.told(progress) is None


def test_what_is_no_json_in_a_log_line_is_shown_as_python_does_without_values() -> None:
    class Account:
        def __repr__(self) -> str:
            return "x" * 995 + "canary-value"

    line = scrubber_of("canary-value").told(LogLine("info", "", {"account": Account(), "odd": Odd()}))
    assert isinstance(line, LogLine)
    assert line.data == {"account": "x" * 995 + MARK, "odd": "<Odd>"}
