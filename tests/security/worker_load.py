"""The program that is traced: an honest load on one worker; prints the worker's threads and what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from enclave_broker import Broker, SessionLimits
from enclave_broker.runtime.pool import ProcessPool

__all__ = ["EXPECTED", "main"]

LOAD = {
    "value": "return 1 + 1",
    "calls": "return (await Promise.all([1, 2, 3].map((value) => callTool('echo', { value })))).join()",
    "timers": "await sleep(5); return await new Promise((done) => setTimeout(done, 5, 'rang'))",
    "exception": "null.x",
    "uncaught": "Promise.reject(new Error('x')); throw { odd: 1 }",
    "syntax": "let = =",
    "recursion": "const f = () => f() + 1; return f()",
    "memory": "const held = []; for (;;) held.push(new Array(1e5).fill(1))",
    "loop": "for (;;) {}",
    "output": "for (;;) console.log('x'.repeat(1000))",
    "large": "return (await callTool('echo', { value: 'x'.repeat(3e6) })).length",
    "regex": "return /(a*)*b/.test('a'.repeat(40))",
    "after": "return 'still here'",
}
EXPECTED = {
    "value": 2,
    "calls": "1,2,3",
    "timers": "rang",
    "exception": "EXECUTION_ERROR",
    "uncaught": "EXECUTION_ERROR",
    "syntax": "SYNTAX_ERROR",
    "recursion": "EXECUTION_ERROR",
    "memory": "MEMORY_LIMIT",
    "loop": "CPU_LIMIT",
    "output": "STDOUT_LIMIT",
    "large": 3_000_000,
    "regex": "CPU_LIMIT",
    "after": "still here",
}


async def echo(args: dict[str, Any]) -> Any:
    return args["value"]


def threads_of(pid: int) -> list[int]:
    return sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())


async def load() -> dict[str, Any]:
    pool = ProcessPool(workers=1, max_workers=1)
    async with Broker(tools={"echo": echo}, runtimes=[pool], limits=SessionLimits(cpu_time=0.3)) as broker:
        (pid,) = pool.pids
        threads = threads_of(pid)
        came_to: dict[str, Any] = {}
        for name, code in LOAD.items():
            result = await broker.execute(code)
            came_to[name] = result.error.code if result.error else result.value
        sessions = [await broker.create_session() for _ in range(20)]
        for session in sessions:
            session.begin("for (;;) {}")
        for session in sessions:  # each killed while it runs, or waits for its turn
            await session.cancel()
        again = await asyncio.gather(*(broker.execute(f"return {number}") for number in range(50)))
        came_to["again"] = sum(result.value for result in again)
        return {"threads": threads, "pids": [pid, *pool.pids], "came_to": came_to}


def main() -> None:
    sys.stdout.write(json.dumps(asyncio.run(load())))
