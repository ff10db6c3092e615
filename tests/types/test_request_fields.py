from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.request_fields import InvalidRequestError, read_object, spellings_of
from enclave_broker.types.requests import parse_cancel, parse_session_request, parse_tool_result

KNOWN = spellings_of(["code", "sessionId"])


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"code":"a","code":"b"}', "code"),
        (b'{"code":"a","code":"a"}', "code"),
        (b'{"later":1,"code":"a","later":null}', "later"),
        (b'{"code":"a","c\\u006fde":"b"}', "code"),
        (b'{"code":"\\ud800","code":"b"}', "code"),
        (b'{"a\\ud800":1,"code":"a","a\\ud801":2}', r"'a\ufffd'"),
    ],
)
def test_a_name_that_stands_twice_is_refused_by_name(body: bytes, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is there twice") as caught:
        read_object(body, KNOWN)
    assert caught.value.field == name
    assert caught.value.code == "INVALID_REQUEST"


def test_every_request_is_read_so() -> None:
    for parse, body in (
        (parse_session_request, b'{"code":"a","allowedTools":[],"allowedTools":["*"]}'),
        (parse_tool_result, b'{"callId":"c_1","ok":false,"ok":true}'),
        (parse_cancel, b'{"reason":"a","reason":"b"}'),
    ):
        with pytest.raises(InvalidRequestError, match="is there twice"):
            parse(body)


def test_of_data_the_last_of_a_name_counts_as_everywhere() -> None:
    assert parse_session_request(b'{"code":"a","metadata":{"b":1,"b":2}}').metadata == {"b": 2}
    assert parse_tool_result(b'{"callId":"c_1","ok":true,"result":{"b":1,"b":2}}').result == {"b": 2}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "code", "\ud800"]), st.integers()), max_size=5))
def test_an_object_is_what_another_reader_makes_of_it_unless_a_name_stands_twice(pairs: list[tuple[str, int]]) -> None:
    body = "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"
    names = Counter(name for name, _ in pairs)
    if names and max(names.values()) > 1:
        with pytest.raises(InvalidRequestError, match="is there twice"):
            read_object(body.encode(), KNOWN)
    else:
        assert read_object(body.encode(), KNOWN) == {name.replace("\ud800", "\ufffd"): value for name, value in pairs}


def test_names_are_plain_texts_whatever_they_are_read_as() -> None:
    fields: dict[str, Any] = read_object(b'{"code": {"a": 1}, "later": 2}', KNOWN)
    assert fields == {"code": {"a": 1}, "later": 2}
    assert {type(name) for name in fields} == {str}
    assert "later" in fields


@pytest.mark.parametrize(
    ("name", "right"), [("Code", "code"), ("session_id", "sessionId"), ("SESSION-ID", "sessionId")]
)
def test_a_known_name_spelled_otherwise_is_refused_with_the_right_one(name: str, right: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"did you mean {right}") as caught:
        read_object(json.dumps({name: 1}).encode(), KNOWN)
    assert caught.value.field == name
