"""Event filters: which events of a stream a reader wants, as the protocol's `filter` says.

Parsed and compiled once, asked once an event. A filter comes from a client, so all about it is bounded: rules, patterns
(stream/patterns.py) and the work of one check. What a pattern looks at is stream/fields.py's. Called by the server's
streams and by `events(filter=…)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from enclave_broker.stream.fields import Kind, Read, reader_of
from enclave_broker.stream.patterns import PATTERN_TYPES, Pattern, PatternCompiler, PatternError, Search
from enclave_broker.types.bounded_json import WireError, decode_json
from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.events import Event
from enclave_broker.types.wire import EVENT_TYPES, UnknownEvent, encode_event

__all__ = ["ALWAYS_ALLOWED", "EventFilter", "FilterError"]

ALWAYS_ALLOWED = ("session_init", "final")
"""What passes every filter that doesn't say otherwise."""

MAX_FILTER_BYTES = 65_536  # as JSON
MAX_RULES = 32
MAX_PATTERNS = 100  # of all rules together
MAX_FIELD_CHARACTERS = 256
MAX_FIELD_PARTS = 16

_TYPES = (*EVENT_TYPES, "enc")
_Path = tuple[str, ...]
_Check = Callable[[Any, bytes], bool]
"""Whether an event of one kind, with its line, fits."""


class FilterError(EnclaveError, ValueError):
    """A filter is wrong. The message names where and what would be right."""

    default_code = "INVALID_FILTER"


class _Rule(NamedTuple):
    types: frozenset[str] | None
    searches: tuple[tuple[_Path, Search], ...] | None
    """Of each path, one search for all patterns over it. None: the content doesn't matter."""
    every: bool

    def check(self, type: str, kind: Kind) -> _Check | bool:
        """What this rule has to look at in events of this kind; or whether it fits them all, or none."""
        if self.types is not None and type not in self.types:
            return False
        if self.searches is None:
            return True
        checks: list[_Check] = []
        for path, search in self.searches:
            read = reader_of(path, kind)
            if callable(read):
                checks.append(_look(read, search))
            elif (read is not None and search(read)) is not self.every:
                return not self.every
        return _together(checks, every=self.every) if checks else self.every


def _look(read: Read, search: Search) -> _Check:
    def check(event: Any, line: bytes) -> bool:
        text = read(event, line)
        return text is not None and search(text)

    return check


def _together(checks: Sequence[_Check], *, every: bool) -> _Check:
    if len(checks) == 1:
        return checks[0]

    def check(event: Any, line: bytes) -> bool:
        for each in checks:
            if each(event, line) is not every:
                return not every
        return every

    return check


class EventFilter:
    """Which events pass. It never changes what it lets pass; one may serve any number of readers."""

    __slots__ = ("_always", "_decided", "_include", "_needs_line", "_rules")

    def __init__(self, rules: Sequence[_Rule], always: frozenset[str], *, include: bool, needs_line: bool) -> None:
        self._rules = rules
        self._always = always
        self._include = include
        self._needs_line = needs_line
        self._decided: dict[Kind | str, _Check | bool] = {}

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
        decided = self._decided.get(type(event))
        if decided is None:
            decided = self._decide(event)
        if isinstance(decided, bool):
            return decided
        if line is None:
            line = _encoded(event) if self._needs_line else b""
        return decided(event, line) is self._include

    def _decide(self, event: Event | UnknownEvent) -> _Check | bool:
        """What is known of an event from its kind alone, or what has to look at its content."""
        if isinstance(event, UnknownEvent):  # by its type; all that aren't known are judged alike
            kind = UnknownEvent
            key = name = event.type if event.type in _TYPES else ""
        else:
            kind = key = type(event)
            name = event.type
        decided = self._decided.get(key)
        if decided is None:
            decided = self._decided[key] = self._compile(name, kind)
        return decided

    def _compile(self, type: str, kind: Kind) -> _Check | bool:
        if type in self._always:
            return True
        checks = [rule.check(type, kind) for rule in self._rules]
        if any(check is True for check in checks):
            return self._include
        undecided = [check for check in checks if not isinstance(check, bool)]
        return _together(undecided, every=False) if undecided else not self._include


def _encoded(event: Event | UnknownEvent) -> bytes:
    try:
        return encode_event(event)
    except WireError:
        return b""


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
        types = searches = None
        every = False
        if fields.get("types") is not None:
            inner = _object(fields["types"], f"{where}.types", ("types",))
            types = _types(inner.get("types"), f"{where}.types.types")
        if fields.get("content") is not None:
            inside = f"{where}.content"
            content = _object(fields["content"], inside, ("patterns", "match"))
            every = content.get("match") is not None and _choice(content, "match", inside, ("any", "all")) == "all"
            found = _list(content.get("patterns"), f"{inside}.patterns", MAX_PATTERNS)
            by_path: dict[_Path, list[Pattern]] = {}
            for at, each in enumerate(found):
                path, pattern = self.pattern(each, f"{inside}.patterns[{at}]")
                by_path.setdefault(path, []).append(pattern)
            searches = tuple((path, self.compiler.join(patterns, every=every)) for path, patterns in by_path.items())
        return _Rule(types, searches, every)

    def pattern(self, pattern: Any, where: str) -> tuple[_Path, Pattern]:
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
            compiled = self.compiler.compile(kind, text, ignore_case=bool(ignore_case))
        except PatternError as error:
            raise FilterError(f"{where}.pattern: {error}") from None
        return self.path(fields.get("field"), f"{where}.field"), compiled

    def path(self, field: Any, where: str) -> _Path:
        if field is None:
            field = "payload"
        if not isinstance(field, str):
            raise FilterError(f"{where} must be a text such as 'payload.message'")
        if len(field) > MAX_FIELD_CHARACTERS or field.count(".") >= MAX_FIELD_PARTS:
            raise FilterError(f"{where} is too long: {MAX_FIELD_PARTS} names, {MAX_FIELD_CHARACTERS} characters")
        parts = field.split(".")
        if "" in parts:
            raise FilterError(f"{where} must be a path into the event, such as 'payload.message', not {field!r}")
        if parts == ["payload"]:
            self.needs_line = True
        return tuple(parts)


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
