"""What a measurement is: a name, its values, the bar it has to meet, and how it is printed and kept."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table. `values` are in `unit`; `bar` is what `shown` may be at most (or at least).

    Without values it wasn't measured, and `note` says why.
    """

    name: str
    values: list[float]
    unit: str
    bar: float | None = None
    at_least: bool = False
    use: str = "median"
    floor: float | None = None
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def shown(self) -> float:
        ordered = sorted(self.values)
        if not ordered:
            return math.nan
        return percentile(ordered, 0.99) if self.use == "p99" else statistics.median(ordered)

    @property
    def met(self) -> bool | None:
        if self.bar is None or not self.values:
            return None
        return self.shown >= self.bar if self.at_least else self.shown <= self.bar

    def row(self) -> str:
        if not self.values:
            return f"{self.name:<58}{'':>12} {self.note}"
        sign = "≥" if self.at_least else "≤"
        bar = "" if self.bar is None else f"{sign} {self.bar:,g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        p99 = f"{percentile(sorted(self.values), 0.99):,.1f}" if len(self.values) > 1 else ""
        ratio = f"{self.shown / self.floor:.1f}×" if self.floor else ""
        head = f"{self.name:<58}{self.shown:>12,.1f} {self.unit:<5}{p99:>12}{ratio:>8}  {bar:>10} {verdict:<7}"
        return f"{head} {self.note}".rstrip()


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


HEAD = f"{'figure':<58}{'median':>12} {'unit':<5}{'p99':>12}{'floor':>8}  {'bar':>10}"


def save(figures: list[Figure], folder: Path, mode: str) -> Path:
    """Write the run as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{mode}.json"
    run = {
        "mode": mode,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "shown": figure.shown if figure.values else None,
                "median": statistics.median(figure.values) if figure.values else None,
                "p99": percentile(sorted(figure.values), 0.99) if figure.values else None,
                "bar": figure.bar,
                "met": figure.met,
                "floor": figure.floor,
                "note": figure.note,
                **figure.extra,
            }
            for figure in figures
        ],
    }
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return path
