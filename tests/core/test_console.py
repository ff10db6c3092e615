from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import Script, run


def test_each_method_has_its_level(engine: Engine) -> None:
    script = run(engine, "for (const m of ['log', 'info', 'debug', 'warn', 'error']) console[m](m)")
    assert script.effects[:5] == [
        [2, level, name] for level, name in enumerate(["log", "info", "debug", "warn", "error"])
    ]


def test_other_methods_of_the_console_break_nothing(engine: Engine) -> None:
    script = run(
        engine, "console.table([1]); console.dir({}); console.group('g'); console.groupEnd(); console.assert(0, 'x')"
    )
    assert script.output == ["[ 1 ]", "{}", "g", "Assertion failed x"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("", ""),
        ("'a', 'b c'", "a b c"),
        ("1, -0, NaN, 5n, true, null, undefined", "1 -0 NaN 5n true null undefined"),
        ("['a', \"it's\", 'é😀\\n']", "[ 'a', 'it\\'s', 'é😀\\n' ]"),
        ("{ a: 1, 'b-c': [1, { d: 'x' }], 3: 4 }", "{ 3: 4, a: 1, 'b-c': [ 1, { d: 'x' } ] }"),
        ("{}, [], new Map(), new Set()", "{} [] Map(0) {} Set(0) {}"),
        ("[undefined, , , null]", "[ undefined, <2 empty items>, null ]"),
        ("new Map([['k', { v: 1 }]]), new Set([1, 'a'])", "Map(1) { 'k' => { v: 1 } } Set(2) { 1, 'a' }"),
        (
            "{ a: { b: { c: { d: { e: { f: 1 } }, g: [[]] } } } }",
            "{ a: { b: { c: { d: { e: [Object] }, g: [ [Array] ] } } } }",
        ),
        ("new Array(102).fill(7)", "[ " + "7, " * 100 + "... 2 more items ]"),
        (
            "function foo() {}, class Bar {}, () => {}, async () => 1",
            "[Function: foo] [class Bar] [Function (anonymous)] [Function (anonymous)]",
        ),
        ("Symbol('s'), { [Symbol('k')]: 1 }", "Symbol(s) { [Symbol(k)]: 1 }"),
        ("/a\\/b/gi, new Date(0), new Date(NaN)", "/a\\/b/gi 1970-01-01T00:00:00.000Z Invalid Date"),
        ("new (class Foo { x = 1 })(), Object.create(null)", "Foo { x: 1 } [Object: null prototype] {}"),
        ("new Uint8Array(3), new Float32Array([0.5])", "Uint8Array(3) [ 0, 0, 0 ] Float32Array(1) [ 0.5 ]"),
        ("Promise.resolve(4), new Promise(() => {})", "Promise { 4 } Promise { <pending> }"),
        (
            "{ get a() { return 1 }, set a(v) {}, get b() { return 1 }, set c(v) {} }",
            "{ a: [Getter/Setter], b: [Getter], c: [Setter] }",
        ),
        ("Object(1), Object('s')", "[Number: 1] [String: 's']"),
        ("new Proxy({ a: 1 }, { get: () => 2 })", "{ a: 1 }"),
        ("tools.x.y", "[Function: tool x:y]"),
        ("new Error('boo')", "Error: boo\n    at script.js:1:17"),
        ("Object.assign(new Error('b'), { code: 'X' })", "Error: b\n    at script.js:1:31 { code: 'X' }"),
        ("[new Error('b', { cause: 'c' })]", "[ Error: b\n    at script.js:1:18 { [cause]: 'c' } ]"),
    ],
)
def test_values_are_readable(engine: Engine, code: str, text: str) -> None:
    assert run(engine, f"console.log({code})").output == [text]


def test_a_cycle_is_marked(engine: Engine) -> None:
    assert run(engine, "const c = { n: 1 }; c.self = c; c.list = [c]; console.log(c)").output == [
        "{ n: 1, self: [Circular], list: [ [Circular] ] }"
    ]


def test_an_error_of_a_tool_shows_its_code(engine: Engine) -> None:
    script = Script(engine, "try {\n await callTool('a', 5) } catch (e) { console.error(e) }")
    [text] = script.output
    assert text.startswith("ToolError: invalid arguments")
    assert "\n    at script.js:2:8 { code: 'VALIDATION_ERROR' }" in text


def test_nothing_of_the_script_runs_while_it_is_shown(engine: Engine) -> None:
    code = """
        const trap = () => { throw new Error("ran") };
        const traps = new Proxy({}, { get: () => trap });
        console.log(new Proxy({ a: 1 }, traps), { get x() { trap() }, toString: trap, toJSON: trap });
        class Odd { static get name() { trap() } }
        RegExp.prototype.toString = Date.prototype.toISOString = Symbol.prototype.toString = trap;
        Object.defineProperty(RegExp.prototype, "flags", { get: trap });
        console.log(new Odd(), /x/g, new Date(0), Symbol("s"), [new Proxy([], traps)]);
        Object.defineProperty(Error.prototype, "name", { get: trap });
        Object.defineProperty(Error.prototype, "stack", { get: trap });
        console.log(new Error("e"))"""
    script = run(engine, code)
    assert script.of_kind(6) == []
    assert len(script.output) == 3


def test_a_long_string_in_a_value_is_cut(engine: Engine) -> None:
    [text] = run(engine, "console.log(['x'.repeat(20000)])").output
    assert len(text) == 10_000 + len("[ '…' ]")
