"""How the example looks, at a terminal and in a file, within 100 columns; and what came out otherwise than told."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import NamedTuple

__all__ = ["COLUMNS", "Row", "Table", "heading", "say"]

STYLED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
COLUMNS = 100
WIDTHS = (10, 40, 8)
WHY = COLUMNS - sum(WIDTHS) - 2 * len(WIDTHS)


def heading(text: str) -> None:
    print(f"\n\x1b[1m{text}\x1b[0m" if STYLED else f"\n{text}", "-" * len(text), sep="\n", flush=True)


def say(text: str) -> None:
    """What the example itself says, beside what programs print."""
    for line in textwrap.wrap(text, COLUMNS):
        print(f"\x1b[2m{line}\x1b[0m" if STYLED else line, flush=True)


class Row(NamedTuple):
    who: str
    what: str
    came_out: str
    why: str


class Table:
    """What happened and why. A row that doesn't come out as told is kept in `wrong`, and so is what `check` finds."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._rows: list[Row] = []

    def add(self, row: Row, told: str) -> None:
        self._rows.append(row)
        self.check(f"{row.who}: {row.what}", row.came_out, told)

    def check(self, what: str, found: object, told: object) -> None:
        if found != told:
            self.wrong.append(f"{what}: {found!r} instead of {told!r}")

    def show(self) -> None:
        head = Row("who", "what", "came out", "why")
        for row in (head, Row(*("-" * width for width in (*WIDTHS, WHY))), *self._rows):
            first, *more = textwrap.wrap(row.why, WHY) or [""]
            print(_line(row.who, row.what, row.came_out, first))
            for line in more:
                print(_line("", "", "", line))


def _line(*cells: str) -> str:
    *fixed, last = cells
    return "  ".join([*(cell.ljust(width) for cell, width in zip(fixed, WIDTHS, strict=True)), last]).rstrip()
