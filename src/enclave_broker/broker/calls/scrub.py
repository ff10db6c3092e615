"""Takes the values of secrets out of what a tool says: texts, JSON values, log lines, errors and tracebacks.

Owns what a find is replaced by, and what is searched. How a secret may be written in a text is secret_pattern.py's,
where values come from is secrets.py's. Each text is searched by itself: a value whose parts stand in two texts, two
log lines for instance, isn't found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import re2  # pyright: ignore[reportMissingTypeStubs] it has none

from enclave_broker.broker.calls.secret_pattern import pattern_of
from enclave_broker.broker.calls.traceback_text import traceback_text
from enclave_broker.broker.tools.context import LogLine, Progress
from enclave_broker.types.bounded_json import WireError, WireSizeError, encode_json, mend_text
from enclave_broker.types.errors import RateLimitError, ToolError, code_of_handler

__all__ = ["MIN_CHARACTERS", "Needle", "ScrubbedError", "Scrubber"]

MIN_CHARACTERS = 8  # of a secret: a shorter one is found where nobody has put it, and guessed anyway

_WHOLE = "[redacted]"
_MAX_FINDS = 10_000  # in one text, 1 µs each; a text with more is replaced as a whole
_MAX_PATTERN_BYTES = 1 << 28  # what RE2 may hold for one secret of 4,096 characters; of 32 it holds 100 KB
_MAX_BYTES = 1 << 20  # of an error's details, or of what stands beside a log line: no more is built

_re2 = cast("Any", re2)


class Needle(NamedTuple):
    """What one value of a secret is found by, and what it is replaced by."""

    expression: Any
    replacement: bytes

    @staticmethod
    def of(name: str, value: str) -> Needle:
        """For a value of at least MIN_CHARACTERS; takes 1 ms for 32 characters, 25 µs for each one more."""
        options = _re2.Options()
        options.encoding = _re2.Options.Encoding.LATIN1
        options.max_mem = _MAX_PATTERN_BYTES
        options.never_capture = True
        options.log_errors = False
        return Needle(_re2.compile(pattern_of(value), options), f"[secret {name}]".encode())


class ScrubbedError(Exception):
    """What a handler with secrets raised by accident: its traceback as a text without them, and nothing else of it."""


class Scrubber:
    """Replaces the values that its needles find, in any of the encodings, by "[secret NAME]". Linear in the text."""

    def __init__(self, needles: Iterable[Needle]) -> None:
        self.needles = tuple(dict.fromkeys(needles))

    def text(self, text: str) -> str:
        """A text without them; a text with more than 10,000 finds is replaced as a whole."""
        if len(text) < MIN_CHARACTERS:
            return text
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = mend_text(text).encode()
        spans: list[tuple[int, int, bytes]] = []
        for expression, replacement in self.needles:
            for found in expression.finditer(data):
                spans.append((*found.span(), replacement))
                if len(spans) > _MAX_FINDS:
                    return _WHOLE
        return _without(data, sorted(spans)) if spans else text

    def value(self, value: Any) -> Any:
        """A JSON value without them: in texts and names at every level, and numbers, which become texts then.

        Of names that become equal, the later ones are numbered.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            copy: dict[str, Any] = {}
            for name, item in cast("dict[str, Any]", value).items():
                scrubbed = self.text(name)
                while scrubbed in copy:
                    scrubbed = f"{scrubbed} {len(copy)}"
                copy[scrubbed] = self.value(item)
            return copy
        if isinstance(value, list):
            return [self.value(item) for item in cast("list[Any]", value)]
        return value if value is None or isinstance(value, bool) else self._number(value)

    def _number(self, number: Any) -> Any:
        written = str(number)
        scrubbed = self.text(written)
        return number if scrubbed == written else scrubbed

    def json(self, text: bytes) -> bytes:
        """A JSON text without them; it may become longer. The same object if there is none in it.

        Nothing is decoded for that: what is found in a value is found in its JSON text.
        """
        if all(expression.search(text) is None for expression, _ in self.needles):
            return text
        return msgspec.json.encode(self.value(msgspec.json.decode(text)))

    def told(self, item: Progress | LogLine) -> Progress | LogLine | None:
        """What a handler tells its session's readers without them; None for a progress that is one."""
        if isinstance(item, LogLine):
            return LogLine(item.level, self.text(item.message), self._data(item.data))
        return item if self._harmless(number for number in item if number is not None) else None

    def _harmless(self, numbers: Iterable[float]) -> bool:
        """Whether no number holds one, as it is or as readers see it."""
        shown = [each for number in numbers for each in (number, math.trunc(number))]
        return self.value(shown) == shown

    def _data(self, data: dict[str, Any]) -> dict[str, Any]:
        """As JSON; what is no JSON as Python shows it, whole, since a part of a secret isn't found."""
        try:
            return msgspec.json.decode(self.json(encode_json(data, _MAX_BYTES)))
        except WireSizeError:
            return {"left out": f"data of more than {_MAX_BYTES} bytes"}
        except WireError:
            return {self.text(str(name)): self.text(_shown(value)) for name, value in data.items()}

    def error(self, error: BaseException) -> Exception:
        """What to raise instead, outside of the `except`: without them, and without the exceptions that led to it.

        A ToolError is changed and comes back; anything else becomes a ScrubbedError.
        """
        if not isinstance(error, ToolError):
            return ScrubbedError(self.text(traceback_text(error, self.text).rstrip()))
        error.message = self.text(_shown_message(error.message))
        error.args = (error.message,)
        error.details = self._details(error.details)
        if isinstance(error, RateLimitError) and not self._may_be_said(error.retry_after):
            error.retry_after = 0.0
        if self.text(str(error.code)) != error.code:
            error.code = code_of_handler("")
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)

    def _may_be_said(self, seconds: Any) -> bool:
        try:
            milliseconds = math.ceil(seconds * 1000)  # as a script sees it
        except (OverflowError, ValueError, TypeError):
            return isinstance(seconds, int | float)  # infinite, and never said
        return self._harmless((seconds, milliseconds))

    def _details(self, details: Any) -> Any:
        if details is None:
            return None
        try:
            return msgspec.json.decode(self.json(encode_json(details, _MAX_BYTES)))
        except WireError:
            return None  # none reach a script either


def _shown(value: object) -> str:
    try:
        return repr(value)
    except BaseException:  # noqa: BLE001 a tool's own object may do anything
        return f"<{type(value).__name__}>"


def _shown_message(message: object) -> str:
    try:
        return str(message)
    except BaseException:  # noqa: BLE001 as above
        return _WHOLE


def _without(data: bytes, spans: Sequence[tuple[int, int, bytes]]) -> str:
    """The text outside the spans, which are in order and may overlap: those that do are one."""
    parts: list[bytes] = []
    kept_from = 0
    for start, end, replacement in spans:
        if start >= kept_from:
            parts += data[kept_from:start], replacement
        kept_from = max(kept_from, end)
    parts.append(data[kept_from:])
    return b"".join(parts).decode("utf-8", "replace")
