"""The filter against its definition, written again without any thought of speed."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker.stream.filters import ALWAYS_ALLOWED, EventFilter
from enclave_broker.types.events import Event, FinalEvent, LogEvent, StdoutEvent, ToolCallEvent, ToolProgressEvent
from enclave_broker.types.wire import UnknownEvent, encode_event

Json = dict[str, Any]

TEXTS = st.text(st.sampled_from("aab1"), max_size=3) | st.text(st.sampled_from('aAbé"\\\n*?\ud800'), max_size=6)
NAMES = st.sampled_from(["a", "a", "b", "0"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0, -0.0, 1e21, 1e300]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
HEAD: Any = {"session_id": st.sampled_from(["s_a", "s_1"]), "seq": st.integers(1, 11)}
RAW = st.just(msgspec.Raw(b'{"a":[1,{"b":"a"}]}'))
EVENTS: st.SearchStrategy[Event | UnknownEvent] = st.one_of(
    st.builds(StdoutEvent, **HEAD, chunk=TEXTS),
    st.builds(LogEvent, **HEAD, level=st.just("warn"), message=TEXTS, data=st.none() | OBJECTS),
    st.builds(ToolCallEvent, **HEAD, call_id=st.just("c_1"), tool_name=TEXTS, args=OBJECTS | RAW),
    st.builds(
        ToolProgressEvent,
        **HEAD,
        call_id=st.just("c_1"),
        phase=st.just("sending"),
        elapsed_ms=st.sampled_from([0.0, 1.5]),
    ),
    st.builds(FinalEvent, **HEAD, ok=st.booleans(), result=st.just(msgspec.UNSET) | VALUES),
    st.builds(UnknownEvent, **HEAD, type=st.sampled_from(["stdout", "final", "enc", "later"]), fields=OBJECTS),
)

TYPES = ["stdout", "log", "tool_call", "tool_progress", "final", "enc"]
PATHS = [
    None,
    *("payload", "payload.chunk", "payload.message", "payload.data.a", "payload.toolName", "payload.elapsedMs"),
    *("payload.args", "payload.args.a", "payload.args.a.b", "payload.args.a.0", "payload.args.a.1.b", "payload.a"),
    *("payload.result", "payload.result.0", "payload.ok", "type", "type.a", "seq", "sessionId", "protocolVersion"),
]
REGEXES = ["a", "b|1", "[aA]b?", "^a", "a.b", r"\Aa", r"\ba", r"\d", '"a":', "(?i)AB", r"e\z", "é", r"a\nb", "[^a]{4}"]
LITERALS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"type": st.sampled_from(["exact", "prefix", "glob"]), "pattern": st.text(st.sampled_from("aab1*?Aé"), max_size=3)}
)
EXPRESSIONS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"type": st.just("regex"), "pattern": st.sampled_from(REGEXES)}
)
CHOICES: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"field": st.sampled_from(PATHS), "caseInsensitive": st.booleans()}
)
PATTERNS = st.tuples(LITERALS | EXPRESSIONS, CHOICES).map(lambda both: {**both[0], **both[1]})
RULES: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        "types": st.fixed_dictionaries({"types": st.lists(st.sampled_from(TYPES), max_size=3)}),
        "content": st.fixed_dictionaries(
            {"patterns": st.lists(PATTERNS, max_size=4)},
            optional={"match": st.sampled_from(["any", "all"])},
        ),
    },
)
FILTERS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"mode": st.sampled_from(["include", "exclude"]), "rules": st.lists(RULES, max_size=3)},
    optional={"alwaysAllow": st.lists(st.sampled_from(TYPES), max_size=2)},
)


def text_at(wire: Json, path: str) -> str | None:
    value: Any = wire
    for part in path.split("."):
        if isinstance(value, list):
            items: Any = dict(enumerate(cast("list[Any]", value)))
            value = items.get(int(part), msgspec.UNSET) if part.isdigit() else msgspec.UNSET
        else:
            value = cast("Json", value).get(part, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
    if value is msgspec.UNSET:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()


def fits_text(pattern: Json, text: str) -> bool:
    kind, wanted, ignore_case = pattern["type"], pattern["pattern"], pattern["caseInsensitive"]
    if kind in {"exact", "prefix"}:
        text, wanted = (text.lower(), wanted.lower()) if ignore_case else (text, wanted)
        return text == wanted if kind == "exact" else text.startswith(wanted)
    flags = re.ASCII | (re.IGNORECASE if ignore_case else re.NOFLAG)
    if kind == "regex":
        return re.search(wanted.replace(r"\z", r"\Z"), text, flags) is not None
    glob = "".join({"*": ".*", "?": "."}.get(each) or re.escape(each) for each in wanted)
    return re.fullmatch(glob, text, flags | re.DOTALL) is not None


def fits(rule: Json, wire: Json) -> bool:
    if "types" in rule and wire["type"] not in rule["types"]["types"]:
        return False
    if "content" not in rule:
        return True
    found: list[bool] = []
    for pattern in rule["content"]["patterns"]:
        text = text_at(wire, pattern["field"] or "payload")
        found.append(text is not None and fits_text(pattern, text))
    return (all if rule["content"].get("match") == "all" else any)(found)


def passes(config: Json, wire: Json) -> bool:
    if wire["type"] in config.get("alwaysAllow", ALWAYS_ALLOWED):
        return True
    return any(fits(rule, wire) for rule in config["rules"]) is (config["mode"] == "include")


@settings(max_examples=300)
@given(FILTERS, st.lists(EVENTS, min_size=1, max_size=6))
def test_a_filter_agrees_with_its_definition(config: Json, events: list[Event | UnknownEvent]) -> None:
    filter = EventFilter.parse(config)
    for event in events:
        line = encode_event(event)
        expected = passes(config, json.loads(line))
        assert filter.passes(event, line) is expected
        assert filter.passes(event) is expected, "the line is only there to save time"
