"""An exception's traceback as a text of which each message was cleaned before it was laid out.

Python puts a margin before the lines of a group's exceptions, and pydantic cuts the values that it shows: afterwards a
secret in there is found by nobody. What cleaning means is the caller's (scrub.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, cast

from pydantic import ValidationError

__all__ = ["traceback_text"]


def traceback_text(error: BaseException, clean: Callable[[str], str]) -> str:
    """As Python shows it, with causes, contexts and groups; every message and note is what `clean` makes of it."""
    shown = traceback.TracebackException.from_exception(error)
    pairs: list[tuple[BaseException, Any]] = [(error, shown)]
    while pairs:
        raised, laid_out = pairs.pop()
        if isinstance(raised, ValidationError):
            laid_out._str = _without_input(raised)  # noqa: SLF001 there is no other way
        for name in ("_str", "msg", "text", "filename"):  # the others are a SyntaxError's
            text = getattr(laid_out, name, None)
            if isinstance(text, str):
                setattr(laid_out, name, clean(text))
        notes = laid_out.__notes__
        if isinstance(notes, list):
            laid_out.__notes__ = [
                clean(note) if isinstance(note, str) else note for note in cast("list[object]", notes)
            ]
        inside: tuple[BaseException, ...] = getattr(raised, "exceptions", None) or () if laid_out.exceptions else ()
        pairs += zip(inside, laid_out.exceptions or (), strict=False)
        led_to = (raised.__cause__, laid_out.__cause__), (raised.__context__, laid_out.__context__)
        pairs += ((led, its) for led, its in led_to if led is not None and its is not None)
    return "".join(shown.format())


def _without_input(error: ValidationError) -> str:
    """What is wrong and where, but for the input: a long one is cut."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    places = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} [{fault['type']}]" for fault in faults)
    return "\n  ".join((f"what doesn't fit {error.title}:", *places))
