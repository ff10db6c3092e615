from __future__ import annotations

from typing import Any

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import Script, fired, fulfilled, rejected, run, value_of


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("return 1 + 1", 2),
        ("1 + 1", 2),
        ("return", None),
        ("", None),
        ("// only a comment", None),
        ("if (true) { return 5 }", 5),
        ("for (const x of [1, 2]) { return x }", 1),
        ("try { return 1 } finally { void 0 }", 1),
        ("try { return 1 } finally { return 2 }", 2),
        ("let x = 1; return x; let y = 2", 1),
        ("switch (3) { case 3: return 'three' }", "three"),
        ("label: { return 4 }", 4),
        ("return await Promise.resolve(7)", 7),
        ("await 0; 8", 8),
        ("const f = async () => 3; f()", 3),
        ("return Promise.resolve(Promise.resolve(6))", 6),
        ("return { then(resolve) { resolve(9) } }", 9),
        ("return { then: 5 }", {"then": 5}),
        ("let sum = 0; for (let i = 0; i < 5; i++) sum += i", 10),
        ("function f() { return 1 }\nreturn f()", 1),
        ("return\n1", None),
        ("const sleep = 5; const fetch = 6; return sleep + fetch", 11),
        ("function callTool() { return 3 } return callTool()", 3),
        ("var console = 1; return console", 1),
        ("#!/usr/bin/env node\nreturn 1", 1),
        ("return 'é€😀'", "é€😀"),
        ("return this === globalThis", True),
    ],
)
def test_a_script_returns_its_return_value_or_its_last_expression(engine: Engine, code: str, value: Any) -> None:
    assert value_of(engine, code) == value


def test_a_function_inside_still_returns_to_its_caller(engine: Engine) -> None:
    assert value_of(engine, "const f = () => { return 1 }; class A { static { this.x = f() } }; return [f(), A.x]") == [
        1,
        1,
    ]


@pytest.mark.parametrize("code", ["eval('return 1')", "class A { static { return 1 } }", "new Function('}return 1{')"])
def test_return_elsewhere_stays_a_syntax_error(engine: Engine, code: str) -> None:
    assert run(engine, code).error["name"] == "SyntaxError"


def test_a_script_without_value_ends_without_one(engine: Engine) -> None:
    assert Script(engine, "undefined").effects == [[5]]
    assert Script(engine, "return null").effects == [[5, None]]


def test_a_call_is_an_effect_and_its_outcome_the_value_of_the_await(engine: Engine) -> None:
    script = Script(engine, "const r = await callTool('orders:get', { id: 7 }); return r.total")
    assert script.effects == [[1, 1, "orders:get", {"id": 7}]]
    assert not script.ended
    assert script.deliver(fulfilled(1, {"total": 12.5})) == [[5, 12.5]]
    assert script.ended


def test_a_call_without_arguments_has_an_empty_object(engine: Engine) -> None:
    assert run(engine, "callTool('a'); callTool('b', undefined)").calls == [("a", {}), ("b", {})]


def test_a_call_can_bring_undefined(engine: Engine) -> None:
    script = Script(engine, "return typeof await callTool('a')")
    assert script.deliver(fulfilled(1, raw=b"")) == [[5, "undefined"]]


def test_calls_at_once_are_all_made_before_the_first_is_answered(engine: Engine) -> None:
    script = Script(engine, "return Promise.all([1, 2, 3].map((n) => callTool('t', { n })))")
    assert [args["n"] for _, args in script.calls] == [1, 2, 3]
    assert script.deliver(fulfilled(3, "c"), fulfilled(1, "a")) == []
    assert script.deliver(fulfilled(2, "b")) == [[5, ["a", "b", "c"]]]


def test_an_outcome_of_a_call_that_is_not_open_is_ignored(engine: Engine) -> None:
    script = Script(engine, "return [await callTool('a'), await callTool('b')]")
    assert script.deliver(fulfilled(2, "early"), fulfilled(0), fulfilled(99), fired(1)) == []
    assert script.deliver(fulfilled(1, "a")) == [[1, 2, "b", {}]]
    assert script.deliver(fulfilled(1, "again")) == []
    assert script.deliver(fulfilled(2, "b")) == [[5, ["a", "b"]]]


def test_a_script_that_has_settled_goes_on_until_its_calls_are_answered(engine: Engine) -> None:
    script = Script(engine, "callTool('a').then(() => console.log('late')); callTool('b'); return 1")
    assert [effect[0] for effect in script.effects] == [1, 1, 5]
    assert not script.ended
    assert script.deliver(fulfilled(1)) == [[2, 0, "late"]]
    assert not script.ended
    assert script.deliver(rejected(2, code="X", message="no")) == [[8, "ToolError: no"]]
    assert script.ended


def test_calls_that_a_settled_script_makes_are_effects_too(engine: Engine) -> None:
    script = Script(engine, "callTool('a').then(() => callTool('b')); return 1")
    assert script.deliver(fulfilled(1)) == [[1, 2, "b", {}]]
    assert not script.ended
    script.deliver(fulfilled(2))
    assert script.ended


def test_nothing_is_settled_any_more_once_a_script_has_ended(engine: Engine) -> None:
    script = Script(engine, "setTimeout(() => console.log('late'), 5); await callTool('a'); return 1")
    assert script.deliver(fulfilled(1), fired(1)) == [[5, 1]]
    assert script.ended


@pytest.mark.parametrize("code", ["await new Promise(() => {})", "new Promise(() => {})", "return { then() {} }"])
def test_a_script_that_waits_for_nothing_is_stuck(engine: Engine, code: str) -> None:
    script = Script(engine, code)
    assert (script.effects, script.ended) == ([[7]], False)


def test_a_script_that_waits_for_a_timer_is_not_stuck(engine: Engine) -> None:
    script = Script(engine, "await new Promise((resolve) => setTimeout(resolve, 5)); return 1")
    assert script.effects == [[3, 1, 5]]
    assert script.deliver(fired(1)) == [[5, 1]]


def test_a_rejection_that_nobody_awaits_is_reported_at_the_end_of_the_step(engine: Engine) -> None:
    code = """
        Promise.reject(new TypeError("lost"));
        const later = Promise.reject(new Error("found"));
        queueMicrotask(() => later.catch(() => {}));
        return 1"""
    assert Script(engine, code).effects == [[5, 1], [8, "TypeError: lost"]]


def test_one_error_that_rejects_several_promises_is_reported_once(engine: Engine) -> None:
    code = "const e = new Error('x'); Promise.reject(e); Promise.reject(e); Promise.reject('x'); return 1"
    assert Script(engine, code).effects == [[5, 1], [8, "Error: x"], [8, "Error: x"]]


def test_a_job_that_throws_is_reported_and_does_not_end_the_script(engine: Engine) -> None:
    script = Script(engine, "queueMicrotask(() => { throw new Error('job') }); await callTool('a'); return 2")
    assert script.effects == [[1, 1, "a", {}], [8, "Error: job"]]
    assert script.deliver(fulfilled(1)) == [[5, 2]]


def test_a_fresh_instance_knows_nothing_of_another(engine: Engine) -> None:
    run(engine, "globalThis.secret = 1; Array.prototype.mine = 2; const kept = 3")
    assert value_of(engine, "return [typeof secret, typeof [].mine, typeof kept]") == ["undefined"] * 3


def test_a_large_script_and_a_large_outcome_fit(engine: Engine) -> None:
    comment = "/* " + "x" * 200_000 + " */"
    script = Script(engine, comment + "const r = await callTool('a'); return r.length")
    assert script.deliver(fulfilled(1, "y" * 1_000_000)) == [[5, 1_000_000]]


def test_source_that_is_not_unicode_is_an_error_of_the_script(engine: Engine) -> None:
    assert Script(engine, "return '\ud800'.length").ended
