"""How long until the first answer: a worker with and without the compiled file, and the import alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile

from figures import Figure

from enclave_broker import Broker

IMPORT = (
    "import time; t = time.perf_counter(); import enclave_broker; enclave_broker.Broker; print(time.perf_counter() - t)"
)
PLAIN = "import time; t = time.perf_counter(); import enclave_broker; print(time.perf_counter() - t)"
FIRST = """
import asyncio, time
from enclave_broker import Broker
async def main():
    broker = Broker()
    before = time.perf_counter()
    await broker.execute("return 1+1")
    print(time.perf_counter() - before)
    await broker.aclose()
asyncio.run(main())
"""


def run(code: str, cache: str | None = None) -> float:
    """Milliseconds that the child says it took."""
    env = {**os.environ, "XDG_CACHE_HOME": cache} if cache is not None else None
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout) * 1000


async def measure(*, quick: bool) -> list[Figure]:
    n = 3 if quick else 7
    await Broker().aclose()
    run(FIRST)
    cold: list[float] = []
    for _ in range(2 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(await asyncio.to_thread(run, FIRST, folder))
    return [
        Figure(
            name="worker start → first answer, compiled file warm",
            values=[run(FIRST) for _ in range(n)],
            unit="ms",
            bar=250,
        ),
        Figure(name="worker start → first answer, cold", values=cold, unit="ms", bar=1500),
        Figure(name="import enclave_broker", values=[run(PLAIN) for _ in range(n)], unit="ms", bar=150),
        Figure(
            name="import enclave_broker, and Broker with it",
            values=[run(IMPORT) for _ in range(n)],
            unit="ms",
            bar=None,
        ),
    ]
