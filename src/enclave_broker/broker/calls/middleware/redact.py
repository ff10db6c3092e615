"""Redact: what must not reach a script is taken out of results and errors. Works on values, never on their text.

Owns what is replaced and by what. Doesn't see what a handler logs, prints or reports as progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import msgspec
import pydantic_core
import re2  # pyright: ignore[reportMissingTypeStubs] it has none

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.types.bounded_json import mend_text
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, EnclaveError, ToolValidationError

__all__ = ["REDACTED", "Redact"]

REDACTED = "[redacted]"

_MAX_DEPTH = 200  # levels; results and arguments have no more
_MAX_FINDS = 10_000  # in one text, 1 µs each; a text with more is replaced as a whole
_PAUSE = 2_000  # values, or 16 times as many characters, between two pauses: some milliseconds, 30 at worst
_SCALARS = (int, float, type(None))  # bool is an int

_re2 = cast("Any", re2)


class Redact:
    """Replaces by "[redacted]" what stands under one of `keys` in an object, whatever it is, and the parts of texts
    that one of `patterns` finds.

    Keys are whole names in any case, at every level: "ssn" is SSN, too, but not ssn_hash. Patterns are RE2's regular
    expressions, searched in each text by itself, names in objects included (of names that become equal the later ones
    are numbered). All that any pattern finds goes, where finds overlap, too. A number is no text: use its key. What is
    nested deeper than 200 levels, and a text with more than 10,000 finds, is replaced as a whole.

    Messages and details of errors raised on purpose are treated alike; other exceptions show a script nothing anyway.
    A result is never changed but copied; what is no plain value (a model, a date) becomes what pydantic writes of it.
    Long ones don't hold up the loop. Raises ConfigurationError for a wrong pattern, for one that fits the empty text,
    and if there is nothing to look for.
    """

    def __init__(self, *, keys: Collection[str] = (), patterns: Collection[str] = ()) -> None:
        self._keys = frozenset(name.casefold() for name in _checked(keys, "keys"))
        self._patterns = tuple(_compile(pattern) for pattern in _checked(patterns, "patterns"))
        if not self._keys and not self._patterns:
            raise ConfigurationError("Redact: give keys, patterns or both")

    def __repr__(self) -> str:
        return f"Redact(keys={sorted(self._keys)}, patterns={[pattern.pattern for pattern in self._patterns]})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        try:
            value = await call_next(call)
        except EnclaveError as error:
            self._clean(error)
            raise
        copying = _Copying(self, value)
        for _ in copying.steps():
            await asyncio.sleep(0)
        return copying.result

    def value(self, value: Any) -> Any:
        """A copy of a value without what is to be redacted, made at once."""
        copying = _Copying(self, value)
        for _ in copying.steps():
            pass
        return copying.result

    def text(self, text: str) -> str:
        """A text without what the patterns find."""
        if not self._patterns:
            return text
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = mend_text(text).encode()
        spans: list[tuple[int, int]] = []
        for pattern in self._patterns:
            for found in pattern.finditer(data):
                start, end = found.span()
                if start < end:
                    spans.append((start, end))
                if len(spans) > _MAX_FINDS:
                    return REDACTED
        return _without(data, sorted(spans)) if spans else text

    def hides(self, name: str) -> bool:
        """Whether what stands under this name in an object is replaced as a whole."""
        return name.casefold() in self._keys

    def spares(self, name: str, value: Any) -> bool:
        """Whether this value stays though its name hides values: none does, but in subclasses."""
        return False

    def _clean(self, error: EnclaveError) -> None:
        error.message = self.text(str(error.message))
        error.args = (error.message,)
        error.details = self.value(error.details)
        if isinstance(error, ToolValidationError):
            error.errors = tuple(
                msgspec.structs.replace(each, field=self.text(each.field), reason=self.text(each.reason))
                for each in error.errors
            )


class _Copying:
    """One value on its way to its redacted copy. What is shared in it, or contains itself, is looked at once."""

    def __init__(self, redact: Redact, value: Any) -> None:
        self._redact = redact
        self._copies: dict[int, tuple[Any, dict[Any, Any] | list[Any]]] = {}
        """By the original's id; the original is kept, so that no id comes twice."""
        self._names: dict[str, tuple[bool, str]] = {}
        """Of each name, since those of rows are the same: whether it hides a value, and its copy."""
        self._todo: list[tuple[Any, Any, int]] = []
        """Containers, their copies to be filled, and the level of what they hold."""
        self._effort = 0
        self.result = self._copy(value, 1)

    def steps(self) -> Iterator[None]:
        """Fill the copies; whoever goes through this may pause between two of them."""
        while self._todo:
            source, copy, level = self._todo.pop()
            if isinstance(copy, dict):
                for name, item in source.items():
                    self._put(cast("dict[Any, Any]", copy), name, item, level)
                    if self._is_tired():
                        yield
            else:
                for item in source:
                    copy.append(self._copy(item, level))
                    if self._is_tired():
                        yield

    def _is_tired(self) -> bool:
        self._effort += 1
        if self._effort < _PAUSE:
            return False
        self._effort = 0
        return True

    def _put(self, copy: dict[Any, Any], name: Any, item: Any, level: int) -> None:
        if isinstance(name, str):
            judged = self._names.get(name)
            if judged is None:
                judged = self._names[name] = self._redact.hides(name), self._copy(name, level)
            hidden, name = judged
            while name in copy:
                name = f"{name} {len(copy)}"
            if hidden and not self._redact.spares(name, item):
                copy[name] = REDACTED
                return
        copy[name] = self._copy(item, level)

    def _copy(self, item: Any, level: int) -> Any:
        if isinstance(item, str):
            self._effort += len(item) >> 4
            return self._redact.text(item)
        if isinstance(item, _SCALARS):
            return item
        known = self._copies.get(id(item))
        if known is not None:
            return known[1]
        if level > _MAX_DEPTH:
            return REDACTED
        source: Any = item if _is_container(item) else pydantic_core.to_jsonable_python(item)
        if not _is_container(source):
            return self._copy(source, level)
        copy = _empty_like(source)
        self._copies[id(item)] = item, copy
        self._todo.append((source, copy, level + 1))
        return copy


def _is_container(value: object) -> bool:
    return isinstance(value, (dict, list, tuple))


def _empty_like(container: object) -> dict[Any, Any] | list[Any]:
    return {} if isinstance(container, dict) else []


def _without(data: bytes, spans: Sequence[tuple[int, int]]) -> str:
    """The text outside the spans, which are in order and may overlap."""
    parts: list[bytes] = []
    kept_from = 0
    for start, end in spans:
        if start > kept_from or not parts:
            parts += data[kept_from:start], REDACTED.encode()
        kept_from = max(kept_from, end)
    parts.append(data[kept_from:])
    return b"".join(parts).decode("utf-8", "replace")


def _checked(given: Any, option: str) -> list[str]:
    if isinstance(given, list | tuple | set | frozenset):
        texts = list(cast("Collection[Any]", given))
        if all(isinstance(text, str) and text for text in texts):
            return texts
    raise ConfigurationError(f"Redact: {option} are a collection of texts that aren't empty, not {given!r}")


def _compile(pattern: str) -> Any:
    options = _re2.Options()
    options.log_errors = False  # they are raised
    options.never_capture = True
    try:
        compiled = _re2.compile(pattern, options)
    except (_re2.error, UnicodeEncodeError) as error:
        raise ConfigurationError(f"Redact: RE2 doesn't know the pattern {pattern!r}: {_reason(error)}") from None
    if compiled.search(b"") is not None:
        raise ConfigurationError(f"Redact: the pattern {pattern!r} fits the empty text, so it says nothing")
    return compiled


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(error)
