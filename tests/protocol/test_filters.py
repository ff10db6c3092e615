"""Section "Event filters", over the wire: in the body of a POST and in the query of a GET."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.protocol.client import Enclave, hold, refusal, unique, whole
from tests.protocol.streams import Json, Run

SCRIPT = """
console.log('one'); console.log('two'); console.warn('One warning'); console.error('two errors');
await tools.orders.get({ id: 1 }); return 'three'
"""
ENDS = {"session_init", "final"}


def types(*names: str) -> Json:
    return {"types": {"types": list(names)}}


def content(*patterns: Json, **fields: Any) -> Json:
    return {"content": {"patterns": list(patterns), **fields}}


def pattern(type: str, pattern: str, field: str | None = "payload.chunk", **fields: Any) -> Json:
    return {"type": type, "pattern": pattern, **({"field": field} if field else {}), **fields}


def include(*rules: Json, **fields: Any) -> Json:
    return {"mode": "include", "rules": list(rules), **fields}


def exclude(*rules: Json, **fields: Any) -> Json:
    return {"mode": "exclude", "rules": list(rules), **fields}


@pytest.fixture(scope="module")
def run(enclave: Enclave) -> Run:
    """The whole run, of which filters leave a part."""
    return enclave.run(SCRIPT)


def filtered(enclave: Enclave, run: Run, filter: Json) -> list[Json]:
    """What both ways of asking leave, which is the same."""
    response = enclave.get(f"/sessions/{run.id}/stream", params={"filter": json.dumps(filter)})
    got = whole(response, filtered=True).events if response.content else []
    posted = enclave.post(SCRIPT, filter=filter)
    shown = [json.loads(line) for line in posted.content.split(b"\n")[:-1]]
    assert [(event["seq"], event["type"]) for event in shown] == [(event["seq"], event["type"]) for event in got]
    return got


def left(enclave: Enclave, run: Run, filter: Json) -> list[str]:
    """What is left between session_init and final: texts of lines and messages, and types of the rest."""
    first, *between, last = filtered(enclave, run, filter)
    assert {first["type"], last["type"]} == ENDS
    texts = [event["payload"].get("chunk") or event["payload"].get("message") or event["type"] for event in between]
    return [text.strip() for text in texts]


LINES = ["one", "two"]
LOGS = ["One warning", "two errors"]
CALL = ["tool_call", "tool_progress", "tool_progress", "tool_result_applied"]


# -- mode and types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (include(types("stdout")), LINES),
        (include(types("stdout", "log")), LINES + LOGS),
        (include(types("tool_call", "tool_result_applied")), ["tool_call", "tool_result_applied"]),
        (include(), []),
        (exclude(types("stdout")), LOGS + CALL),
        (exclude(types("stdout", "log", "tool_progress")), ["tool_call", "tool_result_applied"]),
        (exclude(), LINES + LOGS + CALL),
    ],
)
def test_mode_includes_or_excludes_what_rules_match(
    enclave: Enclave, run: Run, filter: Json, expected: Sequence[str]
) -> None:
    assert left(enclave, run, filter) == expected


# -- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (pattern("exact", "one\n"), ["one"]),
        (pattern("exact", "one"), []),
        (pattern("exact", "ONE\n"), []),
        (pattern("exact", "ONE\n", caseInsensitive=True), ["one"]),
        (pattern("prefix", "tw"), ["two"]),
        (pattern("prefix", "wo"), []),
        (pattern("prefix", "TW", caseInsensitive=True), ["two"]),
        (pattern("regex", "o"), LINES),
        (pattern("regex", "^t.o"), ["two"]),
        (pattern("regex", "^T"), []),
        (pattern("regex", "^T", caseInsensitive=True), ["two"]),
        (pattern("regex", r"^\w{3}\s$"), LINES),
        (pattern("glob", "*o*"), LINES),
        (pattern("glob", "t?o*"), ["two"]),
        (pattern("glob", "t"), []),
        (pattern("glob", "T*", caseInsensitive=True), ["two"]),
    ],
)
def test_each_type_of_pattern_matches_the_field(
    enclave: Enclave, run: Run, rule: Json, expected: Sequence[str]
) -> None:
    assert left(enclave, run, include(content(rule))) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (pattern("exact", "stdout", "type"), LINES),
        (pattern("prefix", "tool_", "type"), CALL),
        (pattern("exact", "warn", "payload.level"), ["One warning"]),
        (pattern("exact", "orders:get", "payload.toolName"), ["tool_call"]),
        (pattern("exact", "1", "payload.args.id"), ["tool_call"]),
        (pattern("exact", "processing", "payload.phase"), ["tool_progress"]),
        (pattern("glob", "s_*", "sessionId"), LINES + LOGS + CALL),
    ],
)
def test_field_is_a_dotted_path_into_the_event(enclave: Enclave, run: Run, rule: Json, expected: Sequence[str]) -> None:
    assert left(enclave, run, include(content(rule))) == expected


@pytest.mark.parametrize("path", ["payload.no.such", "payload.chunk.length", "nothing"])
def test_a_path_that_leads_nowhere_matches_nothing(enclave: Enclave, run: Run, path: str) -> None:
    rule = content(pattern("regex", ".*", path))
    assert left(enclave, run, include(rule)) == []
    assert left(enclave, run, exclude(rule)) == LINES + LOGS + CALL


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (pattern("exact", '{"chunk":"one\\n"}', None), ["one"]),
        (pattern("prefix", '{"chunk":"t', None), ["two"]),
        (pattern("prefix", '{"level":"warn"', None), ["One warning"]),
        (pattern("regex", '"id":1', None), ["tool_call"]),
        (pattern("glob", "*two*", None), ["two", "two errors"]),
    ],
)
def test_without_a_field_the_whole_payload_as_json_is_matched(
    enclave: Enclave, run: Run, rule: Json, expected: Sequence[str]
) -> None:
    assert left(enclave, run, include(content(rule))) == expected


# -- how rules and patterns are joined -------------------------------------------------------------------------------


def test_rules_are_ored(enclave: Enclave, run: Run) -> None:
    rules = [types("tool_call"), content(pattern("prefix", "one"))]
    assert left(enclave, run, include(*rules)) == ["one", "tool_call"]
    assert left(enclave, run, exclude(*rules)) == ["two", *LOGS, *CALL[1:]]


def test_types_and_content_of_a_rule_are_anded(enclave: Enclave, run: Run) -> None:
    rule = {**types("stdout"), **content(pattern("regex", "two", None))}
    assert left(enclave, run, include(rule)) == ["two"]


@pytest.mark.parametrize(("match", "expected"), [("any", ["one", "two", "two errors"]), ("all", ["two"])])
def test_match_is_any_or_all_of_a_rules_patterns(
    enclave: Enclave, run: Run, match: str, expected: Sequence[str]
) -> None:
    patterns = [pattern("regex", "two", None), pattern("exact", "stdout", "type")]
    assert left(enclave, run, include(content(*patterns, match=match))) == expected


def test_any_pattern_is_enough_by_default(enclave: Enclave, run: Run) -> None:
    rule = content(pattern("prefix", "one"), pattern("prefix", "two"))
    assert left(enclave, run, include(rule)) == LINES


def test_regex_timeout_ms_is_taken(enclave: Enclave, run: Run) -> None:
    assert left(enclave, run, include(content(pattern("regex", "^o")), regexTimeoutMs=50)) == ["one"]


# -- what passes anyway ----------------------------------------------------------------------------------------------


def test_session_init_and_final_pass_by_default(enclave: Enclave, run: Run) -> None:
    for filter in (include(types("log")), exclude(types("session_init", "final")), include()):
        assert {event["type"] for event in filtered(enclave, run, filter)} >= ENDS


def test_always_allow_says_what_passes_instead(enclave: Enclave, run: Run) -> None:
    filter = include(types("log"), alwaysAllow=["final", "stdout"])
    assert [event["type"] for event in filtered(enclave, run, filter)] == ["stdout", "stdout", "log", "log", "final"]
    filter = include(types("log"), alwaysAllow=[])
    assert [event["type"] for event in filtered(enclave, run, filter)] == ["log", "log"]
    filter = exclude(types("final"), alwaysAllow=[])
    assert [event["type"] for event in filtered(enclave, run, filter)] == run.types[:-1]


def test_filtered_events_keep_their_seq(enclave: Enclave, run: Run) -> None:
    got = filtered(enclave, run, include(types("log")))
    assert got == [event for event in run.events if event["type"] in {"session_init", "log", "final"}]


def test_a_live_stream_is_filtered_too(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key), filter=include(types("tool_result_applied"))) as watch:
        assert watch.next()["cancelUrl"]
        enclave.open(key)
        watch.next("tool_result_applied")
        assert watch.next("final")["result"] == "waited"


# -- what is none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"mode": "include"},
        {"mode": "some", "rules": []},
        {"mode": "include", "rules": {}},
        include({"types": ["stdout"]}),
        include({"types": {"types": "stdout"}}),
        include(content({"type": "contains", "pattern": "a"})),
        include(content({"type": "exact"})),
        include(content({"type": "exact", "pattern": 1})),
        include(content(pattern("regex", "("))),
        include(content(pattern("exact", "a"), match="some")),
        include(content(pattern("exact", "a", caseInsensitive="yes"))),
        include(alwaysAllow="final"),
        include(regexTimeoutMs="50"),
    ],
)
def test_a_filter_that_is_none_is_400_invalid_filter(enclave: Enclave, run: Run, filter: Json) -> None:
    assert refusal(enclave.post("return 1", filter=filter)) == (400, "INVALID_FILTER")
    response = enclave.get(f"/sessions/{run.id}/stream", params={"filter": json.dumps(filter)})
    assert refusal(response) == (400, "INVALID_FILTER")
