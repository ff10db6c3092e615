"""Numbers of a broker since it was made. What runs often only adds to integers; metrics.py makes text of them.

Used in the broker's loop only, where they are read, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import NamedTuple

from enclave_broker.broker.telemetry.facts import Outcome

__all__ = ["BOUNDS", "NO_TOOL", "OTHER_TOOLS", "Counters", "Durations", "Levels", "ToolCounts"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of durations, in seconds: from a tool in memory to one that a person takes part in."""
MAX_TOOLS = 1_000
"""Tools that are counted by name, so that tools which come and go can't fill the memory."""
NO_TOOL = "(none)"
OTHER_TOOLS = "(other)"
"""No tool's names: a name has no parentheses."""


class Durations:
    """A histogram. `counts` has one place a bound, and a last one for what is longer."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Durations:
        copy = Durations()
        copy.counts, copy.total = self.counts.copy(), self.total
        return copy


class ToolCounts:
    """Of the calls that one tool or pattern took."""

    __slots__ = ("durations", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {"done": 0, "failed": 0, "denied": 0, "unknown": 0, "not_run": 0}
        self.durations = Durations()

    def copy(self) -> ToolCounts:
        copy = ToolCounts()
        copy.outcomes, copy.durations = self.outcomes.copy(), self.durations.copy()
        return copy


class Counters:
    """See the module. None of it is by principal, and none by a name that a script has made up."""

    def __init__(self) -> None:
        self.executions_started = 0
        self.executions_finished: Counter[str] = Counter()
        """By status."""
        self.executions = Durations()
        self.tools: dict[str, ToolCounts] = {}
        """By the registered name or pattern; NO_TOOL for calls that no tool took."""
        self.refused: Counter[str] = Counter()
        """Of the calls whose outcome is `denied`, by code."""

    def call(self, tool: str, outcome: Outcome, code: str, seconds: float) -> None:
        """A call is over; `code` is its error's, "" if it has none."""
        counts = self.tools.get(tool)
        if counts is None:
            counts = self._more(tool)
        counts.outcomes[outcome] += 1
        durations = counts.durations
        durations.counts[bisect_left(BOUNDS, seconds)] += 1
        durations.total += seconds
        if outcome == "denied":
            self.refused[code] += 1

    def _more(self, tool: str) -> ToolCounts:
        if len(self.tools) >= MAX_TOOLS and tool != NO_TOOL:
            return self.tools.setdefault(OTHER_TOOLS, ToolCounts())
        return self.tools.setdefault(tool, ToolCounts())

    def execution(self, status: str, seconds: float) -> None:
        """An execution is over."""
        self.executions_finished[status] += 1
        self.executions.add(seconds)

    def copy(self) -> Counters:
        """As they are now, for another thread."""
        copy = Counters()
        copy.executions_started = self.executions_started
        copy.executions_finished = self.executions_finished.copy()
        copy.executions = self.executions.copy()
        copy.tools = {tool: counts.copy() for tool, counts in self.tools.items()}
        copy.refused = self.refused.copy()
        return copy


class Levels(NamedTuple):
    """What goes up and down, as it is now."""

    sessions_open: int
    sessions_kept: int
    """Open ones, and those that are over and can still be read."""
    log_bytes: int
    """Of these."""
    workers: int
    workers_memory_bytes: int
