from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.stream.filters import ALWAYS_ALLOWED, EventFilter, FilterError
from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.events import (
    Event,
    FinalEvent,
    LogEvent,
    SessionInitEvent,
    StdoutEvent,
    ToolCallEvent,
    ToolProgressEvent,
)
from enclave_broker.types.wire import EVENT_TYPES, UnknownEvent, encode_event

HEAD: Any = {"session_id": "s_1", "seq": 7}
CALL = ToolCallEvent(
    **HEAD,
    call_id="c_1",
    tool_name="orders:search",
    args={"customer": {"name": "Ann"}, "ids": [3, 4.5, 5.0], "none": None, "yes": True},
)
STDOUT = StdoutEvent(**HEAD, chunk="Hello\nWorld/é\n")
INIT = SessionInitEvent(**HEAD, cancel_url="/c", expires_at="2025-01-31T12:00:00Z")
FINAL = FinalEvent(**HEAD, ok=True, result=None)
EVENTS: list[Event] = [INIT, STDOUT, CALL, LogEvent(**HEAD, level="warn", message="m"), FINAL]


def types(*names: str) -> dict[str, Any]:
    return {"types": {"types": list(names)}}


def content(*patterns: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"content": {"patterns": list(patterns), **options}}


def pattern(type: str, pattern: str, field: str | None = None, **options: Any) -> dict[str, Any]:
    return {"type": type, "pattern": pattern, **({} if field is None else {"field": field}), **options}


def include(*rules: dict[str, Any], **options: Any) -> EventFilter:
    return EventFilter.parse({"mode": "include", "rules": list(rules), **options})


def exclude(*rules: dict[str, Any], **options: Any) -> EventFilter:
    return EventFilter.parse({"mode": "exclude", "rules": list(rules), **options})


def passing(filter: EventFilter, events: list[Event] = EVENTS) -> list[str]:
    seen = [event.type for event in events if filter.passes(event, encode_event(event))]
    assert seen == [event.type for event in events if filter.passes(event)], "the line is only there to save time"
    return seen


def test_include_lets_pass_what_a_rule_fits() -> None:
    assert passing(include(types("stdout"))) == ["session_init", "stdout", "final"]


def test_exclude_lets_pass_what_no_rule_fits() -> None:
    assert passing(exclude(types("stdout", "log"))) == ["session_init", "tool_call", "final"]


def test_rules_are_alternatives() -> None:
    assert passing(include(types("stdout"), types("log"))) == ["session_init", "stdout", "log", "final"]


def test_within_a_rule_types_and_content_must_both_fit() -> None:
    rule = {**types("stdout", "log"), **content(pattern("regex", "Hello|orders"))}
    assert passing(include(rule)) == ["session_init", "stdout", "final"]
    assert passing(exclude(rule)) == ["session_init", "tool_call", "log", "final"]


def test_first_and_last_event_always_pass_unless_the_filter_says_otherwise() -> None:
    assert passing(include()) == list(ALWAYS_ALLOWED)
    assert passing(include(alwaysAllow=[])) == []
    assert passing(exclude(types(*EVENT_TYPES), alwaysAllow=["log"])) == ["log"]


def test_a_rule_without_conditions_fits_everything() -> None:
    assert len(passing(include({}))) == len(EVENTS)
    assert passing(exclude({}, alwaysAllow=[])) == []


def test_empty_lists_fit_nothing_of_any_and_everything_of_all() -> None:
    assert passing(include(types(), content(), alwaysAllow=[])) == []
    assert passing(include(content(match="any"), alwaysAllow=[])) == []
    assert len(passing(include(content(match="all"), alwaysAllow=[]))) == len(EVENTS)


@pytest.mark.parametrize(("match", "passes"), [("any", True), ("all", False), (None, True)])
def test_patterns_are_any_or_all(match: str | None, passes: bool) -> None:
    rule = content(pattern("regex", "Hello"), pattern("regex", "nowhere"), **({"match": match} if match else {}))
    assert include(rule).passes(STDOUT) is passes


def test_an_event_of_an_unknown_type_is_judged_like_others() -> None:
    event = UnknownEvent(type="later", session_id="s_1", seq=1, fields={"a": "b"})
    assert not include(types("stdout")).passes(event)
    assert exclude(types("stdout")).passes(event)
    assert include(content(pattern("exact", "b", "payload.a"))).passes(event)
    assert include(content(pattern("exact", '{"a":"b"}'))).passes(event)


def test_types_that_nobody_knows_are_told_from_known_ones_and_not_remembered() -> None:
    filter = include(types("stdout", "enc"))
    unknown = [
        UnknownEvent(type=type, session_id="s_1", seq=1, fields={}) for type in ("stdout", "enc", "log", "later")
    ]
    assert [filter.passes(event) for event in unknown] == [True, True, False, False]
    for number in range(100):
        filter.passes(UnknownEvent(type=f"later{number}", session_id="s_1", seq=1, fields={}))
    remembered = filter._decided  # pyright: ignore[reportPrivateUsage] a client must not fill it
    assert len(remembered) == len(unknown)


@pytest.mark.parametrize(
    ("type", "text", "options", "fits"),
    [
        ("exact", "Hello\nWorld/é\n", {}, True),
        ("exact", "Hello", {}, False),
        ("exact", "HELLO\nworld/É\n", {}, False),
        ("exact", "HELLO\nworld/É\n", {"caseInsensitive": True}, True),
        ("prefix", "Hello\n", {}, True),
        ("prefix", "ello", {}, False),
        ("prefix", "hELLO\nwORLD/É", {"caseInsensitive": True}, True),
        ("prefix", "", {}, True),
        ("regex", "W[a-z]+d", {}, True),
        ("regex", "^World", {}, False),
        ("regex", "(?m)^World", {}, True),
        ("regex", "WORLD", {"caseInsensitive": True}, True),
        ("regex", "WORLD", {"caseInsensitive": False}, False),
        ("regex", r"\u00e9", {}, True),
        ("regex", r"\\u00e9", {}, False),
        ("regex", r"/.\n$", {}, True),
        ("regex", "(?<word>World)", {}, True),
        ("glob", "Hello*", {}, True),
        ("glob", "*World*", {}, True),
        ("glob", "Hello?World/?\n", {}, True),
        ("glob", "Hello??World/?\n", {}, False),
        ("glob", "Hello", {}, False),
        ("glob", "World*", {}, False),
        ("glob", "hello**\n", {"caseInsensitive": True}, True),
        ("glob", "*", {}, True),
        ("glob", "Hello\nWorld/é\n", {}, True),
        ("glob", "*[W]*", {}, False),
    ],
)
def test_a_pattern_means_what_its_type_says(type: str, text: str, options: dict[str, Any], fits: bool) -> None:
    assert include(content(pattern(type, text, "payload.chunk", **options))).passes(STDOUT) is fits


@pytest.mark.parametrize(
    ("glob", "chunk", "fits"),
    [
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        (r"\?*", "?x", True),
        (r"*\\", "a\\", True),
        ("a.b*?", "axbc", False),
    ],
)
def test_a_backslash_in_a_glob_takes_the_next_character_literally(glob: str, chunk: str, fits: bool) -> None:
    event = StdoutEvent(**HEAD, chunk=chunk)
    assert include(content(pattern("glob", glob, "payload.chunk"))).passes(event) is fits


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("type", "tool_call"),
        ("seq", "7"),
        ("sessionId", "s_1"),
        ("protocolVersion", "2"),
        ("payload.toolName", "orders:search"),
        ("payload.args.customer.name", "Ann"),
        ("payload.args.customer", '{"name":"Ann"}'),
        ("payload.args.ids", "[3,4.5,5.0]"),
        ("payload.args.ids.0", "3"),
        ("payload.args.ids.1", "4.5"),
        ("payload.args.ids.2", "5"),
        ("payload.args.none", ""),
        ("payload.args.yes", "true"),
    ],
)
def test_a_field_is_a_path_into_the_event(field: str, text: str) -> None:
    assert include(content(pattern("exact", text, field))).passes(CALL)
    assert not include(content(pattern("exact", text + "x", field))).passes(CALL)


@pytest.mark.parametrize(
    "field",
    [
        "message",
        "seq.x",
        "payload.x",
        "payload.tool_name",
        "payload.args.x.y",
        "payload.args.ids.9",
        "payload.args.ids.-1",
        "payload.args.none.a",
    ],
)
def test_a_field_that_is_not_there_fits_nothing(field: str) -> None:
    assert not include(content(pattern("prefix", "", field))).passes(CALL)


def test_an_optional_field_that_is_absent_fits_nothing_but_a_null_is_an_empty_text() -> None:
    log = LogEvent(**HEAD, level="info", message="m")
    assert not include(content(pattern("prefix", "", "payload.data"))).passes(log)
    any_result = content(pattern("exact", "", "payload.result"))
    assert include(any_result, alwaysAllow=[]).passes(FINAL)
    assert not include(any_result, alwaysAllow=[]).passes(FinalEvent(**HEAD, ok=True))


@pytest.mark.parametrize("field", [None, "payload"])
def test_without_a_field_the_whole_payload_is_searched_as_json(field: str | None) -> None:
    text = '{"chunk":"Hello\\nWorld/é\\n"}'
    assert include(content(pattern("exact", text, field))).passes(STDOUT)
    assert passing(include(content(pattern("glob", '*"name":"Ann"*', field)))) == ["session_init", "tool_call", "final"]


def test_values_that_are_json_text_already_are_looked_into() -> None:
    raw: Any = msgspec.Raw(b'{"a":{"b":"c"}}')
    event = ToolCallEvent(**HEAD, call_id="c_1", tool_name="t", args=raw)
    assert include(content(pattern("exact", "c", "payload.args.a.b"))).passes(event)
    broken: Any = msgspec.Raw(b"{")
    event = ToolCallEvent(**HEAD, call_id="c_1", tool_name="t", args=broken)
    assert not include(content(pattern("prefix", "", "payload.args.a"))).passes(event)


def test_what_cannot_be_written_fits_nothing() -> None:
    event = LogEvent(**HEAD, level="info", message="\ud800", data={"a": object()})
    assert not include(content(pattern("prefix", "", "payload.data"))).passes(event)
    assert not include(content(pattern("prefix", ""))).passes(event)
    assert include(content(pattern("exact", "�", "payload.message"))).passes(event)


def test_an_evil_expression_fits_no_text_that_would_take_too_long() -> None:
    evil = include(content(pattern("regex", "(?:[ab]{0,30}){14}x", "payload.chunk")))
    assert evil.passes(StdoutEvent(**HEAD, chunk="abx"))
    assert not evil.passes(StdoutEvent(**HEAD, chunk="ab" * 500_000 + "x"))
    plain = include(content(pattern("regex", "abx", "payload.chunk")))
    assert plain.passes(StdoutEvent(**HEAD, chunk="ab" * 50_000 + "x"))


def test_a_time_limit_for_expressions_is_taken_and_not_needed() -> None:
    assert include(types("stdout"), regexTimeoutMs=100).passes(STDOUT)


def test_a_filter_comes_as_json_text() -> None:
    text = json.dumps({"mode": "include", "rules": [types("stdout")]})
    assert passing(EventFilter.parse_json(text)) == passing(EventFilter.parse_json(text.encode()))


MANY = [pattern("exact", "a")] * 101
WRONG: list[tuple[Any, str]] = [
    (None, "filter must be an object"),
    ([], "filter must be an object"),
    ({}, "filter.mode must be one of include, exclude; it is missing"),
    ({"mode": "only", "rules": []}, "filter.mode .* not 'only'"),
    ({"mode": "include"}, "filter.rules must be a list"),
    ({"mode": "include", "rules": {}}, "filter.rules must be a list"),
    ({"mode": "include", "rules": [], "rule": 1}, "filter has no field 'rule'; known are mode"),
    ({"mode": "include", "rules": [1]}, r"filter.rules\[0\] must be an object with types, content"),
    ({"mode": "include", "rules": [{}, {"type": 1}]}, r"filter.rules\[1\] has no field 'type'"),
    ({"mode": "include", "rules": [{"types": ["stdout"]}]}, r"rules\[0\].types must be an object"),
    ({"mode": "include", "rules": [types("stdot")]}, "types.types: 'stdot' is no type of event; known are"),
    ({"mode": "include", "rules": [{"types": {"types": [1]}}]}, "1 is no type of event"),
    ({"mode": "include", "rules": [{"types": {}}]}, "types.types must be a list"),
    ({"mode": "include", "rules": [{"content": {}}]}, "content.patterns must be a list"),
    ({"mode": "include", "rules": [content(match="some")]}, "content.match must be one of any, all"),
    ({"mode": "include", "rules": [content({"pattern": "a"})]}, "type must be one of exact, prefix, regex, glob"),
    ({"mode": "include", "rules": [content({"type": "regex"})]}, r"patterns\[0\].pattern must be a text"),
    ({"mode": "include", "rules": [content(pattern("exact", "a", caseInsensitive=1))]}, "must be true or false"),
    ({"mode": "include", "rules": [content(pattern("exact", "a", fields="b"))]}, "no field 'fields'"),
    ({"mode": "include", "rules": [content(pattern("exact", "a", ""))]}, "such as 'payload.message'"),
    ({"mode": "include", "rules": [content(pattern("exact", "a", "payload..a"))]}, "such as 'payload.message'"),
    ({"mode": "include", "rules": [content(pattern("exact", "a", "payload" + ".a" * 16))]}, "too long"),
    ({"mode": "include", "rules": [content({**pattern("exact", "a"), "field": 1})]}, "field must be a text"),
    ({"mode": "include", "rules": [], "alwaysAllow": "final"}, "alwaysAllow must be a list"),
    ({"mode": "include", "rules": [], "alwaysAllow": ["end"]}, "alwaysAllow: 'end' is no type"),
    ({"mode": "include", "rules": [], "regexTimeoutMs": 0}, "regexTimeoutMs"),
    ({"mode": "include", "rules": [], "regexTimeoutMs": True}, "regexTimeoutMs"),
    ({"mode": "include", "rules": [], "regexTimeoutMs": "1"}, "regexTimeoutMs"),
    ({"mode": "include", "rules": [content(pattern("regex", "("))]}, "RE2 doesn't know .* missing "),
    ({"mode": "include", "rules": [content(pattern("regex", "a(?=b)"))]}, "RE2 doesn't know"),
    ({"mode": "include", "rules": [content(pattern("regex", r"(a)\1"))]}, "RE2 doesn't know"),
    ({"mode": "include", "rules": [content(pattern("regex", "(?:a{1000}){1000}"))]}, "pattern: "),
    ({"mode": "include", "rules": [content(pattern("regex", "[a-z]{900}[0-9]{900}"))]}, "too large together"),
    ({"mode": "include", "rules": [content(*[pattern("regex", "a")] * 17)]}, "16 regex and glob patterns"),
    ({"mode": "include", "rules": [content(pattern("exact", "a" * 1_001))]}, "1001 characters; 1000 are the most"),
    ({"mode": "include", "rules": [content(pattern("exact", "\ud800"))]}, "surrogate"),
    ({"mode": "include", "rules": [content(pattern("glob", "a\\"))]}, "can't end in"),
    ({"mode": "include", "rules": [{}] * 33}, "33 entries; 32 are the most"),
    ({"mode": "include", "rules": [content(*MANY)]}, "101 entries; 100 are the most"),
    ({"mode": "include", "rules": [content(*MANY[:60]), content(*MANY[:60])]}, "100 patterns at most"),
]


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_a_wrong_filter_is_refused_with_what_is_wrong_and_what_would_be_right(config: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        EventFilter.parse(config)
    assert isinstance(caught.value, EnclaveError)
    assert caught.value.code == "INVALID_FILTER"
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 10_000, "no JSON"),
        (b'"\xff"', "no JSON"),
        ("\ud800", "no JSON"),
        (" " * 70_000, "65,536"),
    ],
)
def test_a_filter_that_is_no_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        EventFilter.parse_json(text)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["include", "regex", "payload"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mode", "rules", "types", "content", "patterns", "type", "pattern", "field"]), inner
        )
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_value_is_a_filter_or_a_filter_error(config: Any) -> None:
    for tried in (config, {"mode": "include", "rules": [{"content": {"patterns": [config]}}]}):
        try:
            filter = EventFilter.parse(tried)
        except FilterError:
            continue
        passing(filter)


@given(
    st.sampled_from(["include", "exclude"]),
    st.lists(st.sets(st.sampled_from([*EVENT_TYPES])), max_size=3),
    st.sets(st.sampled_from([*EVENT_TYPES])),
)
def test_rules_over_types_agree_with_their_definition(mode: str, rules: list[set[str]], always: set[str]) -> None:
    filter = EventFilter.parse({"mode": mode, "rules": [types(*rule) for rule in rules], "alwaysAllow": sorted(always)})
    progress = ToolProgressEvent(**HEAD, call_id="c_1", phase="sending", elapsed_ms=0.0)
    for event in [*EVENTS, progress]:
        fits = any(event.type in rule for rule in rules)
        assert filter.passes(event) is (event.type in always or fits is (mode == "include"))
