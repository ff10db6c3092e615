"""Event filters: which events of a stream a reader wants, as the protocol's `filter` says.

Parsed and compiled once, asked once an event. A filter comes from a client, so all about it is bounded: rules, patterns
(stream/patterns.py) and the work of one check. Called by the server's streams and by `events(filter=…)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from enclave_broker.stream.patterns import PATTERN_TYPES, PatternCompiler, PatternError, Search
from enclave_broker.types.bounded_json import WireError, decode_json, encode_json, mend_text
from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.events import PROTOCOL_VERSION, Event
from enclave_broker.types.wire import (
    EVENT_TYPES,
    MAX_LINE_BYTES,
    UnknownEvent,
    encode_event,
    payload_of_line,
    payload_value,
)

__all__ = ["ALWAYS_ALLOWED", "EventFilter", "FilterError"]

ALWAYS_ALLOWED = ("session_init", "final")
"""What passes every filter that doesn't say otherwise."""

MAX_FILTER_BYTES = 65_536  # as JSON
MAX_RULES = 32
MAX_PATTERNS = 100  # of all rules together
MAX_FIELD_CHARACTERS = 256
MAX_FIELD_PARTS = 16

_TYPES = (*EVENT_TYPES, "enc")
_Read = Callable[[Event | UnknownEvent, bytes], bytes | None]


class FilterError(EnclaveError, ValueError):
    """A filter is wrong. The message names where and what would be right."""

    default_code = "INVALID_FILTER"


class _Rule(NamedTuple):
    types: frozenset[str] | None
    patterns: tuple[tuple[_Read, Search], ...] | None
    all: bool

    def fits_type(self, type: str) -> bool:
        return self.types is None or type in self.types

    def fits_content(self, event: Event | UnknownEvent, line: bytes) -> bool:
        for read, search in self.patterns or ():
            text = read(event, line)
            if (text is not None and search(text)) is not self.all:
                return not self.all
        return self.all


class EventFilter:
    """Which events pass. Immutable; one may serve any number of readers."""

    __slots__ = ("_by_type", "_include", "_needs_line", "_other")

    def __init__(self, rules: Sequence[_Rule], always: frozenset[str], *, include: bool, needs_line: bool) -> None:
        self._include = include
        self._needs_line = needs_line
        self._by_type = {type: _decide(type, rules, always, include=include) for type in (*_TYPES, *always)}
        self._other = _decide("", rules, always, include=include)

    @classmethod
    def parse(cls, config: Any) -> EventFilter:
        """The filter of a decoded JSON object.

        Raises FilterError.
        """
        return _Parser().filter(config)

    @classmethod
    def parse_json(cls, text: str | bytes) -> EventFilter:
        """The filter of a JSON text, as a query string brings it.

        Raises FilterError.
        """
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(data) > MAX_FILTER_BYTES:
            raise FilterError(f"the filter has more than {MAX_FILTER_BYTES:,} bytes")
        try:
            return cls.parse(decode_json(data))
        except WireError as error:
            raise FilterError(f"the filter is no JSON: {error}") from None

    def passes(self, event: Event | UnknownEvent, line: bytes | None = None) -> bool:
        """Whether the reader gets this event. `line` is what `encode_event` made of it; it spares encoding it again."""
        decided = self._by_type.get(event.type, self._other)
        if isinstance(decided, bool):
            return decided
        if line is None:
            line = _encoded(event) if self._needs_line else b""
        for rule in decided:
            if rule.fits_content(event, line):
                return self._include
        return not self._include


def _decide(type: str, rules: Sequence[_Rule], always: frozenset[str], *, include: bool) -> bool | tuple[_Rule, ...]:
    """What is known from an event's type alone, or the rules that have to look at its content."""
    if type in always:
        return True
    fitting = [rule for rule in rules if rule.fits_type(type)]
    if any(rule.patterns is None for rule in fitting):
        return include
    return tuple(fitting) or not include


# --- What a pattern looks at -----------------------------------------------------------------------------------------


def _encoded(event: Event | UnknownEvent) -> bytes:
    try:
        return encode_event(event)
    except WireError:
        return b""


def _head(event: Event | UnknownEvent, name: str) -> Any:
    match name:
        case "type":
            return event.type
        case "seq":
            return event.seq
        case "sessionId":
            return event.session_id
        case _:
            return PROTOCOL_VERSION


_HEAD = ("protocolVersion", "sessionId", "seq", "type")


def _reader_of(parts: list[str]) -> _Read:
    def read_payload(_: Event | UnknownEvent, line: bytes) -> bytes | None:
        return payload_of_line(line) if line else None

    if parts == ["payload"]:
        return read_payload
    value_of, (name, *inner) = (payload_value, parts[1:]) if parts[0] == "payload" else (_head, parts)

    def read(event: Event | UnknownEvent, _: bytes) -> bytes | None:
        try:
            return _text(_descend(value_of(event, name), inner))
        except WireError:
            return None  # nobody can hold or write it, so that nothing fits it

    return read


def _descend(value: Any, parts: Sequence[str]) -> Any:
    if isinstance(value, msgspec.Raw):
        value = decode_json(bytes(value))
    for part in parts:
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(part, msgspec.UNSET)
        elif isinstance(value, list | tuple) and part.isascii() and part.isdigit():
            items = cast("list[Any]", value)
            index = int(part)
            value = items[index] if index < len(items) else msgspec.UNSET
        else:
            return msgspec.UNSET
    return value


def _text(value: Any) -> bytes | None:
    """The value as JavaScript would show it: a text as it is, null as nothing, all else as JSON. None: not there."""
    if value is msgspec.UNSET:
        return None
    if value is None:
        return b""
    if isinstance(value, float) and value.is_integer() and math.fabs(value) < 1e21:
        value = int(value)
    if isinstance(value, str):
        return mend_text(value).encode()
    return encode_json(value, MAX_LINE_BYTES)


# --- Parsing ---------------------------------------------------------------------------------------------------------


class _Parser:
    """Reads one filter. `where` is the path of what is looked at, for messages."""

    def __init__(self) -> None:
        self.compiler = PatternCompiler()
        self.patterns = 0
        self.needs_line = False

    def filter(self, config: Any) -> EventFilter:
        fields = _object(config, "filter", ("mode", "rules", "alwaysAllow", "regexTimeoutMs"))
        include = _choice(fields, "mode", "filter", ("include", "exclude")) == "include"
        found = _list(fields.get("rules"), "filter.rules", MAX_RULES)
        rules = [self.rule(rule, f"filter.rules[{at}]") for at, rule in enumerate(found)]
        always = fields.get("alwaysAllow")
        timeout = fields.get("regexTimeoutMs", 1)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise FilterError("filter.regexTimeoutMs must be a number of milliseconds above 0")
        allowed = frozenset(ALWAYS_ALLOWED) if always is None else _types(always, "filter.alwaysAllow")
        return EventFilter(rules, allowed, include=include, needs_line=self.needs_line)

    def rule(self, rule: Any, where: str) -> _Rule:
        fields = _object(rule, where, ("types", "content"))
        types = patterns = None
        match_all = False
        if fields.get("types") is not None:
            inner = _object(fields["types"], f"{where}.types", ("types",))
            types = _types(inner.get("types"), f"{where}.types.types")
        if fields.get("content") is not None:
            inside = f"{where}.content"
            content = _object(fields["content"], inside, ("patterns", "match"))
            match_all = content.get("match") is not None and _choice(content, "match", inside, ("any", "all")) == "all"
            found = _list(content.get("patterns"), f"{inside}.patterns", MAX_PATTERNS)
            patterns = tuple(self.pattern(each, f"{inside}.patterns[{at}]") for at, each in enumerate(found))
        return _Rule(types, patterns, match_all)

    def pattern(self, pattern: Any, where: str) -> tuple[_Read, Search]:
        self.patterns += 1
        if self.patterns > MAX_PATTERNS:
            raise FilterError(f"{where}: a filter may have {MAX_PATTERNS} patterns at most")
        fields = _object(pattern, where, ("type", "pattern", "field", "caseInsensitive"))
        kind = _choice(fields, "type", where, PATTERN_TYPES)
        ignore_case = fields.get("caseInsensitive")
        if ignore_case is not None and not isinstance(ignore_case, bool):
            raise FilterError(f"{where}.caseInsensitive must be true or false")
        text = fields.get("pattern")
        if not isinstance(text, str):
            raise FilterError(f"{where}.pattern must be a text")
        try:
            search = self.compiler.compile(kind, text, ignore_case=bool(ignore_case))
        except PatternError as error:
            raise FilterError(f"{where}.pattern: {error}") from None
        return self.field(fields.get("field"), f"{where}.field"), search

    def field(self, field: Any, where: str) -> _Read:
        if field is None:
            field = "payload"
        if not isinstance(field, str):
            raise FilterError(f"{where} must be a text such as 'payload.message'")
        if len(field) > MAX_FIELD_CHARACTERS or field.count(".") >= MAX_FIELD_PARTS:
            raise FilterError(f"{where} is too long: {MAX_FIELD_PARTS} names, {MAX_FIELD_CHARACTERS} characters")
        parts = field.split(".")
        if "" in parts or parts[0] not in {*_HEAD, "payload"}:
            raise FilterError(
                f"{where} must be a path into the event that begins with payload, type, seq, sessionId or "
                f"protocolVersion, such as 'payload.message', not {field!r}"
            )
        if parts == ["payload"]:
            self.needs_line = True
        return _reader_of(parts)


def _object(value: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FilterError(f"{where} must be an object with {', '.join(known)}")
    fields = cast("dict[str, Any]", value)
    for name in fields:
        if name not in known:
            raise FilterError(f"{where} has no field {_shown(name)}; known are {', '.join(known)}")
    return fields


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise FilterError(f"{where} must be a list")
    items = cast("list[Any]", value)
    if len(items) > most:
        raise FilterError(f"{where} has {len(items)} entries; {most} are the most")
    return items


def _choice(fields: dict[str, Any], name: str, where: str, known: tuple[str, ...]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or value not in known:
        shown = "it is missing" if name not in fields else f"not {_shown(value)}"
        raise FilterError(f"{where}.{name} must be one of {', '.join(known)}; {shown}")
    return value


def _types(value: Any, where: str) -> frozenset[str]:
    types = _list(value, where, MAX_PATTERNS)
    for type in types:
        if not isinstance(type, str) or type not in _TYPES:
            raise FilterError(f"{where}: {_shown(type)} is no type of event; known are {', '.join(_TYPES)}")
    return frozenset(types)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:79] + "…"
