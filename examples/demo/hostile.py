"""Part 2: hostile scripts, each beside honest ones on one broker."""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
from pathlib import Path
from typing import Any

from screen import heading

from enclave_broker import Broker, ExecutionResult, SessionLimits

__all__ = ["show_hostile"]

ORDERS = Path(__file__).resolve().parents[1] / "orders"
HONEST = """
const { orders } = await tools.orders.search({ month: "2025-03", status: "paid", limit: 50 });
const details = await parallel(orders.slice(0, 5), ({ id }) => tools.orders.get({ id }).catch(() => null));
return { orders: orders.length, lines: details.filter(Boolean).flatMap(({ lines }) => lines).length };
"""
LIMITS = SessionLimits(cpu_time=1.0)  # seconds; 10 is the default, and more than a demo's reader wants to wait
HOSTILE = {
    "endless_loop.js": ("an endless loop that catches every error", "CPU_LIMIT"),
    "memory_bomb.js": ("memory without end", "MEMORY_LIMIT"),
    "read_file.js": ("every known way to /etc/passwd", "UNKNOWN_TOOL"),
}
"""Of each script what it tries, and what it has to end with."""


def show_hostile() -> list[str]:
    """What went wrong."""
    heading("2. Hostile scripts, each beside an honest one on the same broker")
    return asyncio.run(_show_all())


async def _show_all() -> list[str]:
    sys.path.insert(0, str(ORDERS))
    async with importlib.import_module("app").broker as broker:  # with the tools of examples/orders/app.py
        alone = (await broker.execute(HONEST)).raise_for_error()
        alone = (await broker.execute(HONEST)).raise_for_error()  # the first one also opens the database
        print(f"the honest script alone: {len(alone.calls)} calls, {alone.stats.duration * 1000:.1f} ms, {alone.value}")
        return [line for name in HOSTILE for line in await _show(broker, name, alone)]


async def _show(broker: Broker, name: str, alone: ExecutionResult[Any]) -> list[str]:
    """One hostile script beside honest ones; what went wrong."""
    tries, promised = HOSTILE[name]
    code = (ORDERS / "hostile" / name).read_text(encoding="utf-8")
    running = asyncio.ensure_future(broker.execute(code, limits=LIMITS))
    beside = await _honest_runs(broker, running)
    result = await running
    ended = result.error.code if result.error else "ok"
    print(f"\n{name}: {tries}")
    print(f"  ended with   {ended}{f': {result.error.message}' if result.error else ''}")
    print(f"  after        {result.stats.duration:.3f} s, {result.stats.cpu_time:.3f} s of CPU time")
    if result.ok:
        print(f"  its value    {result.value}")
    times = [run.stats.duration * 1000 for run in beside]
    came_out = "each with the same value as alone" if all(run.value == alone.value for run in beside) else "NOT ALIKE"
    print(f"  beside it    {len(beside)} honest run{'s' if len(beside) > 1 else ''}, {came_out}: {beside[-1].value}")
    print(f"               {statistics.median(times):.1f} ms (median), {max(times):.1f} ms (slowest)")

    wrong: list[str] = []
    if ended != promised:
        wrong.append(f"{name} ended with {ended} instead of {promised}")
    if result.ok and result.value["open"]:
        wrong.append(f"{name} found open: {', '.join(result.value['open'])}")
    if not all(run.ok and run.value == alone.value for run in beside):
        wrong.append(f"an honest script beside {name} came out otherwise than alone")
    return wrong


async def _honest_runs(broker: Broker, until: asyncio.Future[Any]) -> list[ExecutionResult[Any]]:
    """Run the honest script, once at least and again and again, until something else is done."""
    runs = [await broker.execute(HONEST)]
    while not until.done():
        runs.append(await broker.execute(HONEST))
    return runs
