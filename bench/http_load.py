"""How many of the shortest sessions a second go over HTTP, beside a bare application and the same without HTTP.

The load is wrk's: one thread, 32 connections that stay open. Floor, server and in-process take turns of a second, and
each ratio is of one round, so that what disturbs the machine disturbs all three.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

from figures import Figure
from http_client import post
from http_served import Served, bare, serve
from speed import started

from enclave_broker import Broker

CODE = "return 1+1"
CONNECTIONS = 32
TURN_SECONDS = 1
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{"requests":%%d,"bytes":%%d,"seconds":%%f,"errors":%%d,"p50":%%f,"p99":%%f}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""
AGAINST_FLOOR = "HTTP `return 1+1`, 32 connections, of a bare app"
AGAINST_IN_PROCESS = "HTTP `return 1+1`, 32 connections, of in-process"
BARS = {AGAINST_FLOOR: 28, AGAINST_IN_PROCESS: 60}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one run of wrk came to. Rates a second, times in microseconds of CPU a request, latencies in ms."""

    rate: float
    server: float
    workers: float
    bytes: float
    p50: float
    p99: float


async def wrk(served: Served, script: Path) -> Load:
    """Raises RuntimeError for any answer but 200."""
    cpu, workers = served.cpu(), served.workers_cpu()
    arguments = ("-t1", f"-c{CONNECTIONS}", f"-d{TURN_SECONDS}s", "-s", str(script))
    process = await asyncio.create_subprocess_exec(
        "wrk", *arguments, f"http://127.0.0.1:{served.port}/sessions", stdout=PIPE, stderr=PIPE
    )
    said, _ = await process.communicate()
    found = json.loads(said.rpartition(b"\n{")[1][1:] + said.rpartition(b"\n{")[2])
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"wrk had errors: {said.decode()}")
    count = found["requests"]
    return Load(
        rate=count / found["seconds"],
        server=(served.cpu() - cpu) / count * 1e6,
        workers=(served.workers_cpu() - workers) / count * 1e6,
        bytes=found["bytes"] / count,
        p50=found["p50"],
        p99=found["p99"],
    )


async def in_process(broker: Broker) -> float:
    """Sessions a second, with as many at once."""
    ends = time.perf_counter() + TURN_SECONDS
    count = 0

    async def client() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await broker.execute(CODE)
            count += 1

    before = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - before)


async def rounds(script: Path, number: int) -> tuple[list[Load], list[Load], list[float]]:
    """The floor's, the server's and the in-process rates, in turns."""
    floors: list[Load] = []
    loads: list[Load] = []
    rates: list[float] = []
    async with serve("plain.py") as served, started(len(os.sched_getaffinity(0))) as broker:
        lines = await post(served.port, CODE)
        async with bare(lines) as floor:
            for _ in range(number + 1):
                floors.append(await wrk(floor, script))
                loads.append(await wrk(served, script))
                rates.append(await in_process(broker))
    _check(floors, loads)
    return floors[1:], loads[1:], rates[1:]  # the first is to warm up


def _check(floors: list[Load], loads: list[Load]) -> None:
    """Both send the same, but for the digits of times: a session that failed would send something else."""
    for floor, load in zip(floors, loads, strict=True):
        if abs(floor.bytes - load.bytes) > 0.03 * floor.bytes:
            raise RuntimeError(f"an answer has {load.bytes:.0f} bytes, the floor's {floor.bytes:.0f}")


def _figures(floors: list[Load], loads: list[Load], rates: list[float]) -> list[Figure]:
    def middle(values: list[float]) -> float:
        return statistics.median(values)

    server, workers = middle([load.server for load in loads]), middle([load.workers for load in loads])
    return [
        Figure(
            name=AGAINST_FLOOR,
            values=[load.rate / floor.rate * 100 for floor, load in zip(floors, loads, strict=True)],
            unit="%",
            bar=BARS[AGAINST_FLOOR],
            at_least=True,
            note=f"of {middle([floor.rate for floor in floors]):,.0f}/s; wrk -t1 -c{CONNECTIONS}, no errors",
        ),
        Figure(
            name=AGAINST_IN_PROCESS,
            values=[load.rate / rate * 100 for rate, load in zip(rates, loads, strict=True)],
            unit="%",
            bar=BARS[AGAINST_IN_PROCESS],
            at_least=True,
            note=f"of {middle(rates):,.0f}/s",
        ),
        Figure(
            name="HTTP `return 1+1`, 32 connections",
            values=[load.rate for load in loads],
            unit="/s",
            note=f"p50 {middle([load.p50 for load in loads]):.1f} ms, p99 {middle([load.p99 for load in loads]):.1f}; "
            f"CPU a request: server {server:.0f} µs (floor {middle([floor.server for floor in floors]):.0f}), "
            f"workers {workers:.0f}",
            extra={"server_us": server, "workers_us": workers},
        ),
    ]


async def measure(*, quick: bool) -> list[Figure]:
    if shutil.which("wrk") is None:
        missing = "not measured: wrk is missing"
        return [
            Figure(name=name, values=[], unit="%", bar=bar, at_least=True, note=missing) for name, bar in BARS.items()
        ]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(SCRIPT % json.dumps({"code": CODE}), encoding="utf-8")
        floors, loads, rates = await rounds(script, 5 if quick else 20)
    return _figures(floors, loads, rates)
