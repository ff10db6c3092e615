"""`make bench`: medians, p99 and the ratio to a floor of the same run; free, and pinned to one CPU. Writes JSON.

python bench/run.py [--quick] [--only PART] [--free | --pinned]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from pathlib import Path

import approvals
import auth
import events
import fairness
import floor
import governed
import http_all
import memory
import speed
import startup
from figures import HEAD, Figure, save

RESULTS = Path(__file__).parent / "results"
PARTS = ("speed", "fairness", "memory", "startup", "http", "events", "governed", "auth", "approvals")
PINNED = ("speed", "governed")  # the others need both their sides at once


async def measure(parts: list[str], *, pinned: bool, quick: bool) -> list[Figure]:
    trips = await floor.round_trips(2000)
    base = statistics.median(trips)
    figures = [Figure(name="floor: socketpair echo between two processes", values=trips, unit="µs")]
    print(figures[0].row(), flush=True)
    work = {
        "speed": lambda: speed.measure(base, pinned=pinned, quick=quick),
        "fairness": lambda: fairness.measure(quick=quick),
        "memory": lambda: memory.measure(quick=quick),
        "startup": lambda: startup.measure(quick=quick),
        "http": lambda: http_all.measure(quick=quick),
        "events": lambda: events.measure(quick=quick),
        "governed": lambda: governed.measure(quick=quick),
        "approvals": lambda: approvals.measure(quick=quick),
        "auth": lambda: auth.measure(quick=quick),
    }
    for part in parts:
        if pinned and part not in PINNED:
            continue
        found = await work[part]()
        for figure in found:
            print(figure.row(), flush=True)
        figures += found
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=PARTS, action="append")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--free", action="store_true", help="only on all CPUs")
    mode.add_argument("--pinned", action="store_true", help="only with every process on one CPU")
    options = parser.parse_args()
    parts: list[str] = options.only or list(PARTS)
    figures: list[Figure] = []
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    for pinned in (False, True):
        if (pinned and options.free) or (not pinned and options.pinned) or (pinned and not cpus):
            continue
        print(f"\n{'one CPU' if pinned else 'free'}\n{HEAD}")
        if pinned:
            os.sched_setaffinity(0, {min(cpus)})
        found = asyncio.run(measure(parts, pinned=pinned, quick=options.quick))
        print(f"written to {save(found, RESULTS, 'pinned' if pinned else 'free').relative_to(RESULTS.parent.parent)}")
        figures += found
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
