from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.core.javascript import Engine
from enclave_broker.types.messages import Input
from tests.core.support import NOW, Script, fired, fulfilled, rejected

STATEMENTS = [
    "callTool('a', { n: Math.random() }).then((v) => console.log('a', v)).then(() => console.log('then'));",
    "(async () => { try { log('b', await tools.b({ at: Date.now() })); await tools.b2() } catch (e) { log(e) } })();",
    "Promise.all([callTool('c1'), callTool('c2'), sleep(5)]).then((v) => log(v), (e) => log('failed', e.code));",
    "Promise.race([callTool('d'), sleep(7)]).then((v) => log('race', v, Date.now()));",
    "const stop = setInterval(() => { log('tick', performance.now()); if (++ticks === 2) clearInterval(stop) }, 3);",
    "setTimeout(() => { log('timer', crypto.randomUUID()); callTool('late') }, 4);",
    "callTool('lost');",
    "queueMicrotask(() => log('micro'));",
    "parallel([1, 2, 3], (n) => callTool('p', { n }), { concurrency: 2 }).then(log, (e) => log(e.message));",
    "callTool('big').then((v) => { const a = []; for (let i = 0; i < 2e4; i++) a.push({ v, a }); log(a.length) });",
    "setTimeout(() => { throw new Error('in a timer') }, 1);",
    "callTool('e').finally(() => Promise.reject(new Error('in finally')));",
]
ENDS = [
    "await sleep(50); return 'slept'",
    "return await callTool('last')",
    "return 1",
    "throw new Error('end')",
    "await 0",
]


def failed(id: int) -> Input:
    return rejected(id, code="FAILED", message="no")


inputs = st.one_of(
    st.builds(fulfilled, st.integers(1, 9), st.sampled_from([None, 1, "x", {"k": [1, 2]}])),
    st.builds(failed, st.integers(1, 9)),
    st.builds(fired, st.integers(1, 9)),
)


def at_their_times(chosen: list[Input]) -> list[Input]:
    """Each input a little later than the one before."""
    timed: list[Any] = chosen
    return [
        type(item)(*[NOW + 10.5 * i if name == "now" else getattr(item, name) for name in item.__struct_fields__])
        for i, item in enumerate(timed, 1)
    ]


def play(engine: Engine, code: str, batches: list[list[Input]]) -> tuple[bytes, bool]:
    script = Script(engine, code, seed=3, max_calls=20)
    for batch in batches:
        if not script.ended:
            script.deliver(*batch)
    script.close()
    return b",".join(script.raw), script.ended


@given(
    statements=st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=6, unique=True),
    end=st.sampled_from(ENDS),
    chosen=st.lists(inputs, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
)
def test_how_inputs_are_batched_makes_no_difference(
    engine: Engine, statements: list[str], end: str, chosen: list[Input], cuts: set[int]
) -> None:
    code = "let ticks = 0; const log = (...v) => console.log(...v);\n" + "\n".join(statements) + "\n" + end
    timed = at_their_times(chosen)
    edges = [0, *sorted(cut for cut in cuts if cut < len(timed)), len(timed)]
    batches = [timed[a:b] for a, b in pairwise(edges)]
    one_by_one = play(engine, code, [[item] for item in timed])
    assert play(engine, code, batches) == one_by_one
    assert play(engine, code, [timed]) == one_by_one


def test_two_results_in_one_batch_are_settled_one_after_the_other(engine: Engine) -> None:
    code = (
        "for (const t of 'ab') callTool(t).then(() => console.log(t, 1)).then(() => console.log(t, 2)); await sleep(1)"
    )
    script = Script(engine, code)
    script.deliver(fulfilled(1), fulfilled(2))
    assert script.output == ["a 1", "a 2", "b 1", "b 2"]


@pytest.mark.parametrize("seed", [1, 2**64 - 1])
def test_the_same_inputs_give_the_same_bytes(engine: Engine, seed: int) -> None:
    code = """
        const bag = {};
        for (let i = 0; i < 2000; i++) bag[Math.random().toString(36)] = { i, s: Symbol(i), f() {} };
        console.log(Object.keys(bag).length, crypto.randomUUID(), new Date());
        const set = new Set(Object.keys(bag).slice(0, 50));
        return [await callTool("t", bag), [...set], [3, 1, 2].sort(() => Math.random() - 0.5)]"""
    seen: set[bytes] = set()
    for _ in range(3):
        script = Script(engine, code, seed=seed)
        script.deliver(fulfilled(1, [1]))
        seen.add(b",".join(script.raw))
    assert len(seen) == 1


def test_collection_of_garbage_shows_nowhere(engine: Engine) -> None:
    code = """
        const churn = (n) => { for (let i = 0; i < n; i++) { const a = { i }; a.self = a } };
        const map = new WeakMap(), key = {};
        map.set(key, 1); map.set({}, 2);
        churn(1e5); const first = await callTool("t"); churn(1e5);
        return [first, map.get(key), String(map)]"""
    script = Script(engine, code)
    script.deliver(fulfilled(1, "ok"))
    assert script.value == ["ok", 1, "[object WeakMap]"]


def test_how_a_step_is_sliced_makes_no_difference(engine: Engine) -> None:
    code = "let s = 0; for (let i = 0; i < 1e6; i++) { s += Math.random(); if (i % 1e5 === 0) console.log(s) } return s"
    whole, sliced = Script(engine, code), Script(engine, code)
    assert whole.raw == sliced.raw


def test_nan_has_one_pattern_of_bits(engine: Engine) -> None:
    code = """
        const view = new DataView(new ArrayBuffer(8));
        const bits = (x) => (view.setFloat64(0, x), view.getBigUint64(0));
        return [NaN, 0 / 0, Math.sqrt(-1), Infinity - Infinity, -NaN, parseFloat("x")].map(bits)"""
    assert len(set(Script(engine, code).value)) == 1
