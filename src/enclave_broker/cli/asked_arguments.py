"""The arguments of a call that somebody is asked about, in few rows, so that what they hold hides nothing around them.

What is left out is counted, with a hash of the whole. Such remarks stand in «…» outside of the quotes, where no
argument's text gets to.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, cast

from enclave_broker.cli.text import count, cut, json_text

__all__ = ["shown_arguments"]

_ROWS = 8
_MAX_CHARACTERS = 160  # of one text; of a longer one there are so many at its begin
_BLANKS = re.compile("([ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]{4,})")


def shown_arguments(arguments: Any, columns: int) -> tuple[str, bool]:
    """As JSON for a terminal of that width, and whether anything is left out."""
    shown = _value(arguments)
    whole = json_text(arguments, compact=True)
    short = cut(shown, _ROWS * columns)
    if short != shown:
        return f"{short} «cut: {count(len(whole), 'character')} in all, {_hash(whole)}»", True
    return shown, shown != whole


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value).items()
        return f"{{{','.join(f'{_text(name)}:{_value(item)}' for name, item in fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_value, cast('list[Any]', value)))}]"
    return json_text(value, compact=True)


def _text(text: str) -> str:
    parts = _BLANKS.split(text[:_MAX_CHARACTERS])  # every second one is blanks
    shown = "".join(f"«{len(part)} blanks»" if at % 2 else json_text(part) for at, part in enumerate(parts))
    left_out = len(text) - _MAX_CHARACTERS
    return f"{shown}«{left_out:,} of {len(text):,} characters left out, {_hash(text)}»" if left_out > 0 else shown


def _hash(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}…"
