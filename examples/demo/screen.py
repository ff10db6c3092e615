"""How the parts of the demo look at a terminal and in a file."""

from __future__ import annotations

import os
import shutil
import sys

__all__ = ["dim", "heading", "shortened"]

STYLED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
COLUMNS = shutil.get_terminal_size((120, 24)).columns


def heading(text: str) -> None:
    print(f"\n\x1b[1m{text}\x1b[0m" if STYLED else f"\n{text}", "-" * len(text), sep="\n", flush=True)


def dim(text: str) -> str:
    """What the demo itself says, beside what programs print."""
    return f"\x1b[2m{text}\x1b[0m" if STYLED else text


def shortened(line: str) -> str:
    """The line, cut to the screen's width."""
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"
