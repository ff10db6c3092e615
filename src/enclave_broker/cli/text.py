"""Text for people: control characters made visible, lines cut to a width, numbers with units, an excerpt with a caret.

Pure functions. What scripts and tools say is untrusted: nothing of it reaches a terminal before `visible` or `inline`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, cast

__all__ = [
    "count",
    "cut",
    "duration",
    "excerpt",
    "inline",
    "json_text",
    "safe_json",
    "size",
    "summary",
    "visible",
    "width",
]

# Controls but tab and line feed, what turns the direction of text, other separators of lines, lone surrogates;
# what shows nothing: the category Cf, fillers, variation selectors, tags.
_DRIVING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_NOT_VISIBLE = re.compile(f"[{_DRIVING}]")
_NOT_INLINE = re.compile(f"[{_DRIVING}\t\n]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_SUMMARY_COLUMNS = 40
_EXCERPT_COLUMNS = 100
"""Of a source line this much is shown, around the place."""


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if code > 0xFFFF:
        return f"\\u{{{code:x}}}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _escape_json(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1] if match.group() != "\x7f" else "\\u007f"


def visible(text: str) -> str:
    """The text on its own lines, with everything escaped that could move a cursor, colour, or hide text."""
    return _NOT_VISIBLE.sub(_escape, text)


def inline(text: str) -> str:
    """The same as part of one line."""
    return _NOT_INLINE.sub(_escape, text)


def safe_json(text: str) -> str:
    """JSON text of the same value: what `visible` would escape can only stand in its strings."""
    return _NOT_VISIBLE.sub(_escape_json, text)


def json_text(value: Any, *, indent: int | None = None, compact: bool = False) -> str:
    separators = (",", ":") if compact else None
    return safe_json(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def width(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, columns: int) -> str:
    """At most `columns` wide; what is missing shows as one `…`."""
    if width(text) <= columns:
        return text
    kept = text[: max(0, columns - 1)]
    while kept and width(kept) > columns - 1:
        kept = kept[:-1]
    return kept + "…"


def duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def size(bytes_: int) -> str:
    if bytes_ < 1024:
        return count(bytes_, "byte")
    if bytes_ < 1024 * 1024:
        return f"{bytes_ / 1024:.1f} KiB"
    return f"{bytes_ / 1024 / 1024:.1f} MiB"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def summary(value: Any) -> str:
    """A value in a few words: how many items, its first fields, or the value itself if it is short."""
    if isinstance(value, list):
        return count(len(cast("list[Any]", value)), "item")
    if isinstance(value, str) and len(value) > _SUMMARY_COLUMNS:
        return count(len(value), "character")
    if not isinstance(value, dict):
        return json_text(value)
    fields = cast("dict[str, Any]", value)
    shown: list[str] = []
    for name, item in fields.items():
        part = f"{inline(name)}: {'{…}' if isinstance(item, dict) else summary(item)}"
        if width(", ".join([*shown, part])) > _SUMMARY_COLUMNS:
            break
        shown.append(part)
    if not shown:
        return count(len(fields), "field") if fields else "{}"
    return f"{{{', '.join(shown)}{', …' if len(shown) < len(fields) else ''}}}"


def excerpt(source: str, line: int, column: int | None) -> list[str]:
    """The source line with its number and, below, a caret at the column; both count from 1. Empty if there is none."""
    lines = source.split("\n")
    if not 1 <= line <= len(lines):
        return []
    text = lines[line - 1].rstrip("\r")
    place = min(max((column or 1) - 1, 0), len(text))
    first = max(0, place - _EXCERPT_COLUMNS * 3 // 4) if len(text) > _EXCERPT_COLUMNS else 0
    ahead = ("…" if first else "") + inline(text[first:place].replace("\t", " "))
    shown = ahead + inline(text[place : first + _EXCERPT_COLUMNS].replace("\t", " "))
    gutter = f"{line:>5} | "
    rows = [f"{gutter}{shown}{'…' if first + _EXCERPT_COLUMNS < len(text) else ''}"]
    if column is not None:
        rows.append(f"{' ' * (len(gutter) - 2)}| {' ' * width(ahead)}^")
    return rows
