"""The contract of a Runtime, over the in-memory twin and the real worker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from enclave_broker.runtime.memory import MemoryRuntime
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.runtime.runtime import Runtime
from enclave_broker.types.messages import TimerFired, TimerSet, Verdict, encode_inputs
from tests.runtime.support import fulfilled, start, value_of


@pytest.fixture(params=["memory", "process"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    made: Runtime = MemoryRuntime() if request.param == "memory" else ProcessPool(workers=1, max_workers=2)
    await made.start()
    yield made
    await made.aclose()


async def test_a_script_comes_back_with_its_value_in_one_step(runtime: Runtime) -> None:
    _, heard = start(runtime, "console.log('x'); return 1 + 1")
    await heard.over()
    assert (heard.value, heard.output, len(heard.steps), heard.verdict) == (2, ["x"], 1, Verdict.NONE)


async def test_engines_are_named_with_their_hashes(runtime: Runtime) -> None:
    assert len(runtime.engines["javascript"]) == 64


async def test_inputs_of_one_turn_are_consumed_in_order_and_counted(runtime: Runtime) -> None:
    code = """
        const seen = [];
        await Promise.all(["a", "b", "c"].map(async (n) => {
            seen.push(n + 1 + await callTool(n, {}));
            seen.push(n + 2);
        }));
        return seen;
    """
    run, heard = start(runtime, code)
    await heard.heard(1)
    assert [call.name for call in heard.calls] == ["a", "b", "c"]
    for call in heard.calls[::-1]:
        run.deliver(fulfilled(call.id, call.name.upper()))
    await heard.over()
    assert heard.value == ["c1C", "c2", "b1B", "b2", "a1A", "a2"]
    assert sum(step.inputs for step in heard.steps) == 3


async def test_a_timer_is_an_effect_and_its_firing_an_input(runtime: Runtime) -> None:
    run, heard = start(runtime, "const t = Date.now(); await sleep(50); return Date.now() - t")
    await heard.heard(1)
    timer = next(effect for effect in heard.effects if isinstance(effect, TimerSet))
    assert timer.delay_ms == 50
    run.deliver(encode_inputs([TimerFired(timer.id, 1_700_000_000_075.0)]))
    await heard.over()
    assert heard.value == 75


async def test_an_endless_loop_ends_with_its_output_and_a_verdict(runtime: Runtime) -> None:
    _, heard = start(runtime, "console.log('before'); for (;;) {}", cpu_ms=100)
    await heard.over()
    assert (heard.output, heard.verdict) == (["before"], Verdict.CPU_LIMIT)
    assert heard.steps[-1].cpu_us >= 100_000
    assert await value_of(runtime, "1") == 1


@pytest.mark.parametrize(
    ("code", "limits", "verdict"),
    [
        ("const a = []; for (;;) { try { a.push(new Array(1e6).fill(1)) } catch {} }", {}, Verdict.MEMORY_LIMIT),
        ("for (;;) console.log('x'.repeat(1000))", {}, Verdict.STDOUT_LIMIT),
        ("const f = () => Promise.resolve().then(f); await f()", {"cpu_ms": 200}, Verdict.CPU_LIMIT),
        ("for (;;) { try { for (;;) {} } finally { continue } }", {"cpu_ms": 200}, Verdict.CPU_LIMIT),
        ("return /(a*)*b/.test('a'.repeat(40))", {"cpu_ms": 200}, Verdict.CPU_LIMIT),
        ("return [...Array(1e5).keys()].sort(() => { for (;;) {} })", {"cpu_ms": 200}, Verdict.CPU_LIMIT),
    ],
)
async def test_what_a_script_may_not_do_ends_it(
    runtime: Runtime, code: str, limits: dict[str, Any], verdict: Verdict
) -> None:
    _, heard = start(runtime, code, **limits)
    await heard.over()
    assert heard.verdict is verdict
    assert await value_of(runtime, "return 'still here'") == "still here"


async def test_a_cancelled_loop_is_heard_of_no_more_and_others_go_on(runtime: Runtime) -> None:
    run, heard = start(runtime, "for (;;) {}")
    assert await value_of(runtime, "1") == 1
    run.cancel()
    assert await value_of(runtime, "2") == 2
    assert heard.steps == []
    assert heard.reason is None


async def test_cancel_before_anything_was_sent_and_twice_does_nothing_bad(runtime: Runtime) -> None:
    run, heard = start(runtime, "return 1")
    run.cancel()
    run.cancel()
    run.deliver(fulfilled(1, 1))
    assert await value_of(runtime, "3") == 3
    assert heard.steps == []


async def test_inputs_that_come_during_a_long_step_wait_for_its_end(runtime: Runtime) -> None:
    code = """
        const spin = () => { let s = 0; for (let i = 0; i < 2e6; i++) s += i; return s };
        const one = callTool("one", {}).then((v) => { spin(); return v });
        const two = callTool("two", {});
        return [await one, await two];
    """
    run, heard = start(runtime, code)
    await heard.heard(1)
    run.deliver(fulfilled(1, "first"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    run.deliver(fulfilled(2, "second"))
    await heard.over()
    assert heard.value == ["first", "second"]
    assert sum(step.inputs for step in heard.steps) == 2


async def test_fifty_at_once_keep_apart(runtime: Runtime) -> None:
    values = await asyncio.gather(
        *(value_of(runtime, f"globalThis.x = (globalThis.x ?? 0) + {n}; return globalThis.x") for n in range(50))
    )
    assert values == list(range(50))


async def test_closing_tells_every_run(runtime: Runtime) -> None:
    _, loop = start(runtime, "for (;;) {}")
    _, waiting = start(runtime, "await callTool('w', {})")
    await waiting.heard(1)
    await runtime.aclose()
    assert loop.reason is not None
    assert waiting.reason is not None


async def test_a_script_that_is_no_javascript_fails_in_its_first_step(runtime: Runtime) -> None:
    _, heard = start(runtime, "let a =\n  = 1")
    await heard.over()
    assert (heard.error.name, heard.error.code, heard.error.line) == ("SyntaxError", "SYNTAX_ERROR", 2)
