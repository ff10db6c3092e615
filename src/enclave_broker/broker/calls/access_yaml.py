"""YAML of which every value knows its line: what a policy file is made of.

Only what JSON has: no alias, no tag, no second document. A plain word that YAML takes for something else than JSON
would (`no`, `0x10`, `12:30`) is refused rather than guessed; dates are strings. What a policy says is access_file.py's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import yaml
from yaml.reader import Reader
from yaml.resolver import Resolver

__all__ = ["LineError", "Node", "read_yaml"]

_MAX_DEPTH = 20
_MAX_NUMBER_CHARACTERS = 100
# libyaml, where it is there, is several times as fast.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_UNQUOTED = re.compile(r"\bpattern: *[\[{]")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_tag_of: Any = cast("Any", Resolver()).resolve
_STRINGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"}


class LineError(ValueError):
    """The text can't be read. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Node(NamedTuple):
    """A value; a list's items and an object's values are nodes, too."""

    value: str | float | bool | list[Node] | dict[str, Node] | None
    line: int
    """Where it begins; of an object's value: where its name stands."""

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {name: item.plain() for name, item in self.value.items()}
        return self.value


def read_yaml(data: bytes) -> Node:
    """The one document that is in UTF-8 in `data`; null for nothing. Raises LineError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LineError(data.count(b"\n", 0, error.start) + 1, "it isn't UTF-8") from None
    if bad := Reader.NON_PRINTABLE.search(text):
        raise LineError(text.count("\n", 0, bad.start()) + 1, f"the character {bad[0]!r} can't be in YAML")
    try:
        return _Document(yaml.parse(text, Loader=_LOADER)).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.rstrip().count("\n") + 1  # what isn't closed is missed behind the last line
        what = " ".join(filter(None, (error.problem, error.context)))
        line = min(mark.line + 1, lines) if mark else 1
        if "alias" in what or _UNQUOTED.search(text.splitlines()[line - 1] if text else ""):
            what += ": a pattern that begins with *, { or [ stands in quotes"
        raise LineError(line, what) from None


class _Document:
    """Reads the parser's events, one after the other."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def read(self) -> Node:
        root = Node(None, 1)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _fault(event, "a second document; a policy is one")
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 0)
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            raise _fault(event, f"*{event.anchor} is an alias; write it out, or in quotes if it is a pattern")
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None:
            raise _fault(event, f"the tag {event.tag!r}; a policy has none")
        if depth > _MAX_DEPTH:
            raise _fault(event, "lists and objects are nested too deep")
        if isinstance(event, yaml.ScalarEvent):
            return Node(_scalar(event), _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self._mapping(depth), _line(event))
        return Node(self._sequence(depth), _line(event))

    def _sequence(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise _fault(
                    event, "the name of a value is plain text; a pattern such as {a,b} or [ab] stands in quotes"
                )
            if event.value in fields:
                raise _fault(event, f"{event.value!r} stands twice, first in line {fields[event.value].line}")
            fields[event.value] = Node(self._node(next(self._events), depth + 1).value, _line(event))
        return fields


def _scalar(event: yaml.ScalarEvent) -> str | bool | float | None:
    text = event.value
    if not event.implicit[0]:
        return text  # in quotes, or a block
    if text in _WORDS or (text.lower() in _WORDS and text in {text.title(), text.upper()}):
        return _WORDS[text.lower()]
    if (number := _NUMBER.fullmatch(text)) and len(text) <= _MAX_NUMBER_CHARACTERS:
        value = float(text) if number[1] else int(text)
        if math.isfinite(value):
            return value
    elif not number and _tag_of(yaml.ScalarNode, text, (True, False)) in _STRINGS:
        return text
    raise _fault(event, f"{text!r} may mean several things: write true, false or a plain number, or put it in quotes")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _fault(event: yaml.Event, message: str) -> LineError:
    return LineError(_line(event), message)
