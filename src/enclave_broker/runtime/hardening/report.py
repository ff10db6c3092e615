"""Which walls stand around a worker: made inside it, carried by its hello, shown by `enclave-broker doctor`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

__all__ = ["LINUX_ONLY", "Report", "Wall", "WallsMissingError"]

_LISTS = frozenset({"no executable memory", "empty root", "descriptors", "namespaces", "limits"})
"""Walls whose detail is a list and stands behind a colon."""


class Wall(msgspec.Struct, frozen=True):
    """One wall. `detail` says what stands, or why it doesn't; `required`: on this machine no script runs without it."""

    name: str
    ok: bool
    required: bool
    detail: str

    @property
    def line(self) -> str:
        if not self.ok:
            return f"missing: {self.name}, {self.detail}" + (" (required)" if self.required else "")
        return f"{self.name}{':' if self.name in _LISTS else ''} {self.detail}".rstrip()


class Report(msgspec.Struct, frozen=True):
    """All walls, in the order in which a person reads them."""

    walls: list[Wall]

    @property
    def missing_required(self) -> list[str]:
        return [wall.name for wall in self.walls if wall.required and not wall.ok]

    @property
    def lines(self) -> list[str]:
        return [wall.line for wall in self.walls]

    def without(self, names: Iterable[str], detail: str) -> Report:
        """The same, but the walls called `names` are missing and required, with `detail` as the reason.

        One that is known to be missing keeps its own reason.
        """
        known = {wall.name: wall.detail for wall in self.walls if not wall.ok}
        gone = {name: Wall(name, ok=False, required=True, detail=known.get(name, detail)) for name in names}
        return Report([gone.pop(wall.name, wall) for wall in self.walls] + list(gone.values()))


class WallsMissingError(Exception):
    """A required wall can't be built here. `report` has each wall's reason."""

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join(wall.line for wall in report.walls if wall.required and not wall.ok))
        self.report = report


_NAMES = (
    "seccomp",
    "landlock",
    "no_new_privs",
    "dumpable",
    "capabilities",
    "no executable memory",
    "uid",
    "namespaces",
    "empty root",
    "descriptors",
    "limits",
)
LINUX_ONLY = Report([Wall(name, ok=False, required=False, detail="needs Linux") for name in _NAMES])
"""The report of any other system, where none can be demanded."""
