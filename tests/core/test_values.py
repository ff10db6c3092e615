from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.core.javascript import Engine
from tests.core.support import Script, fulfilled, run, value_of

VALUES: list[tuple[str, Any]] = [
    ("null", None),
    ("true", True),
    ("0", 0),
    ("-0", 0),
    ("1.5", 1.5),
    ("1e21", 1e21),
    ("-123456789012", -123456789012),
    ("NaN", None),
    ("Infinity", None),
    ("-Infinity", None),
    ("''", ""),
    ("'\\u2028\\0\\x1f\"\\\\\\n'", '\u2028\0\x1f"\\\n'),
    ("'é€😀'", "é€😀"),
    ("'a\\ud800b'", "a\ufffdb"),
    ("'\\udc00\\ud800'", "\ufffd\ufffd"),
    ("'ab' + 'c'.repeat(3000)", "ab" + "c" * 3000),
    ("10n ** 30n", str(10**30)),
    ("5n", "5"),
    ("[undefined, () => 1, Symbol('s')]", [None, None, None]),
    ("({ a: undefined, b() {}, c: Symbol('s'), [Symbol('k')]: 1, d: 1 })", {"d": 1}),
    ("[, 1]", [None, 1]),
    ("new Date(0)", "1970-01-01T00:00:00.000Z"),
    ("new Date(8.64e15)", "+275760-09-13T00:00:00.000Z"),
    ("new Date(NaN)", None),
    ("new Map([['a', 1], ['b', [2]]])", {"a": 1, "b": [2]}),
    ("new Map()", {}),
    ("new Map([[1, 2], ['a', new Map([['x', 1]])]])", [[1, 2], ["a", {"x": 1}]]),
    ("new Map([['f', () => 1]])", {}),
    ("new Set([1, '2', new Set()])", [1, "2", []]),
    ("new Uint8Array([1, 255])", [1, 255]),
    ("new Float64Array([NaN, 0.5])", [None, 0.5]),
    ("new BigInt64Array([5n])", ["5"]),
    ("new Error('m')", {"name": "Error", "message": "m"}),
    ("Object.assign(new TypeError('m'), { code: 7 })", {"name": "TypeError", "message": "m", "code": 7}),
    ("new (class Mine extends Error { name = 'Mine'; extra = 1 })('m')", {"name": "Mine", "message": "m", "extra": 1}),
    ("new DOMException('m', 'AbortError')", {"name": "AbortError", "message": "m"}),
    ("[Object(1), Object('s'), Object(false), Object(5n)]", [1, "s", False, "5"]),
    ("/x/", {}),
    ("[Promise.resolve(1)]", [{}]),
    ("Object.create({ inherited: 1 }, { own: { value: 2, enumerable: true }, hidden: { value: 3 } })", {"own": 2}),
    ("Object.create(null)", {}),
    ("({ get a() { return 5 } })", {"a": 5}),
    ("({ a: { toJSON: (key) => key }, b: [{ toJSON: (key) => key }] })", {"a": "a", "b": ["0"]}),
    ("({ toJSON() { return undefined }, a: 1 })", None),
    ("({ toJSON: 5 })", {"toJSON": 5}),
    ("new Proxy([1, 2], {})", [1, 2]),
    ("new Proxy({ a: 1 }, { get: () => 9 })", {"a": 9}),
    ("({ 2: 'b', 1: 'a', z: 0, 'x y': 1 })", {"1": "a", "2": "b", "z": 0, "x y": 1}),
    ("(function () { return arguments })(1, 2)", {"0": 1, "1": 2}),
    ("[[1], [1]].map((x, i, all) => all[0])", [[1], [1]]),
]


@pytest.mark.parametrize(("code", "value"), VALUES)
def test_a_value_leaves_the_engine_as_json(engine: Engine, code: str, value: Any) -> None:
    assert value_of(engine, f"return {code}") == value
    assert run(engine, f"await callTool('t', {{ v: [{code}] }})").calls == [("t", {"v": [value]})]


def test_to_json_is_given_its_key(engine: Engine) -> None:
    code = "const o = { toJSON(key) { return { key } } }; await tools.t({ o, list: [o], map: new Map([['k', o]]) }); o"
    script = run(engine, code, [None])
    assert script.calls == [("t", {"o": {"key": "o"}, "list": [{"key": "0"}], "map": {"k": {"key": "k"}}})]
    assert script.value == {"key": ""}


def test_an_own_property_named_proto_is_data_in_both_directions(engine: Engine) -> None:
    script = Script(
        engine, "const v = await callTool('a'); return [v, Object.getPrototypeOf(v) === Object.prototype, v.x]"
    )
    script.deliver(fulfilled(1, raw=b'{"__proto__": {"x": 1}, "constructor": 2}'))
    assert script.value == [{"__proto__": {"x": 1}, "constructor": 2}, True, None]


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("const r = { a: { b: [1, 2, 3, {}] } }; r.a.b[3] = r.a; return r", "result.a.b[3] is circular"),
        ("const r = []; r[0] = r; return r", "result[0] is circular: it refers back to result"),
        ("const r = { 'odd key': {} }; r['odd key'].x = r['odd key']; return r", 'result["odd key"].x is circular'),
        ("const m = new Map(); m.set('k', m); return m", "result.k is circular"),
        ("const m = new Map(); m.set(1, [m]); return m", "result[0][1][0] is circular"),
        ("const s = new Set(); s.add(s); return s", "result[0] is circular"),
        ("const r = {}; r.r = r; await callTool('a', r)", "args.r is circular: it refers back to args"),
    ],
)
def test_a_circular_value_is_a_type_error_that_names_the_path(engine: Engine, code: str, path: str) -> None:
    error = run(engine, code).error
    assert error["name"] == "TypeError"
    assert error["message"].startswith(path)


def test_a_value_that_stands_twice_is_written_twice(engine: Engine) -> None:
    assert value_of(engine, "const x = { a: 1 }; return [x, x, { x }]") == [{"a": 1}, {"a": 1}, {"x": {"a": 1}}]


def test_a_value_nested_too_deep_is_a_range_error(engine: Engine) -> None:
    nest = "let r = []; for (let i = 1; i < {}; i++) r = [r]; return r"
    assert json.dumps(value_of(engine, nest.replace("{}", "500"))).count("[") == 500
    assert run(engine, nest.replace("{}", "501")).error["name"] == "RangeError"
    assert run(engine, nest.replace("{}", "1e5")).error["name"] == "RangeError"


def test_a_map_that_changes_while_it_is_written_is_written_as_it_was(engine: Engine) -> None:
    code = """
        const change = () => { m.clear(); for (let i = 0; i < 99; i++) m.set("n" + i, i); return 1 };
        const m = new Map([["a", { toJSON: change }], ["b", 2]]);
        return m"""
    assert value_of(engine, code) == {"a": 1, "b": 2}


def test_an_array_that_shrinks_while_it_is_written_leaves_null(engine: Engine) -> None:
    assert value_of(engine, "const a = [{ toJSON() { a.length = 0; return 1 } }, 2, 3]; return a") == [1, None, None]


def test_what_a_value_does_while_it_is_written_comes_before_it(engine: Engine) -> None:
    code = "await callTool('outer', { toJSON() { console.log('making'); callTool('inner'); return { a: 1 } } })"
    script = run(engine, code)
    assert script.effects[:3] == [[2, 0, "making"], [1, 1, "inner", {}], [1, 2, "outer", {"a": 1}]]


def test_a_result_that_calls_a_tool_while_it_is_written_waits_for_it(engine: Engine) -> None:
    script = Script(engine, "return { get a() { callTool('t').then(() => console.log('done')); return 1 } }")
    assert script.effects == [[1, 1, "t", {}], [5, {"a": 1}]]
    assert not script.ended
    assert script.deliver(fulfilled(1)) == [[2, 0, "done"]]
    assert script.ended


@pytest.mark.parametrize(
    "code",
    [
        "return { get a() { throw new Error('boom') } }",
        "return { toJSON() { throw new Error('boom') } }",
        "return new Proxy({}, { ownKeys() { throw new Error('boom') } })",
        "return new Map([['a', { get b() { throw new Error('boom') } }]])",
        "return new Set([{ get b() { throw new Error('boom') } }])",
    ],
)
def test_what_a_value_throws_while_it_is_written_fails_the_script(engine: Engine, code: str) -> None:
    script = run(engine, code)
    assert script.error["message"] == "boom"
    assert script.of_kind(5) == []


json_values = st.recursive(
    # Floats below 1e15: a larger one comes out with the digits that JavaScript shows, which Python reads as an integer.
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=json_values)
def test_json_comes_out_as_it_went_in(engine: Engine, value: Any) -> None:
    script = Script(engine, "const v = await callTool('a'); await callTool('b', { v }); return v")
    script.deliver(fulfilled(1, value))
    assert script.calls[1] == ("b", {"v": value})
    script.deliver(fulfilled(2))
    assert script.value == value
    script.close()
