from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from enclave_broker.types.messages import Verdict
from tests.core.support import Script, fulfilled, run, value_of

NESTED = {
    "a recursion": "function f(n) { return f(n + 1) + 1 } f(0)",
    "JSON.parse": "JSON.parse('['.repeat(1e5))",
    "parentheses": "eval('('.repeat(1e5) + ')'.repeat(1e5))",
    "array literals": "eval('['.repeat(1e5) + ']'.repeat(1e5))",
    "groups of a regex": "new RegExp('('.repeat(1e5) + ')'.repeat(1e5))",
    "silent groups of a regex": "new RegExp('(?:'.repeat(5e4) + ')'.repeat(5e4)).test('a')",
    "lookaheads of a regex": "new RegExp('(?='.repeat(5e4) + ')'.repeat(5e4)).test('a')",
    "alternatives of a regex": "new RegExp('(?:a|'.repeat(2e4) + ')'.repeat(2e4)).test('a')",
    "JSON.stringify": "const o = { toJSON() { return JSON.stringify({ o }) } }; JSON.stringify(o)",
    "a sort": "function g() { [2, 1].sort(g) } g()",
    "proxies": "let p = {}; for (let i = 0; i < 1e4; i++) p = new Proxy(p, {}); p.x",
    "toString": "const o = { toString() { return '' + o } }; '' + o",
    "Symbol.toPrimitive": "const t = { [Symbol.toPrimitive]() { return +t } }; +t",
    "a replacement": "function r() { return 'a'.replace(/a/, r) } r()",
    "arrow functions": "eval('()=>'.repeat(2e4) + '1')",
    "short arrow functions": "eval('x=>'.repeat(2e4) + '1')",
    "templates": "eval('`${'.repeat(2e4) + '1' + '}`'.repeat(2e4))",
    "a getter": "const o = { get a() { return this.a } }; o.a",
    "blocks": "eval('{'.repeat(2e4) + '}'.repeat(2e4))",
    "generators": "function* g() { yield* g() } [...g()]",
    "classes": "eval('(class{static x='.repeat(1e4) + '1' + '})'.repeat(1e4))",
    "flat": "let b = []; for (let i = 0; i < 1e5; i++) b = [b]; b.flat(Infinity).length",
    "unary operators": "eval('!'.repeat(1e5) + '1')",
    "conditions": "eval('1?'.repeat(5e4) + '1' + ':1'.repeat(5e4))",
    "functions": "eval('function f(){'.repeat(2e4) + '}'.repeat(2e4))",
    "patterns": "eval('let ' + '['.repeat(2e4) + 'a' + ']'.repeat(2e4) + '=1')",
    "a reviver": "JSON.parse('{\"a\":'.repeat(3e4) + '1' + '}'.repeat(3e4), (k, v) => v)",
    "bound functions": "let f = () => 1; for (let i = 0; i < 1e5; i++) f = f.bind(null); f()",
    "async functions": "async function a(n) { return await a(n + 1) } await a(0)",
    "a constructor": "class A { constructor() { new A() } } new A()",
    "Reflect.apply": "function g() { return Reflect.apply(g, null, []) } g()",
    "a spread": "function h(...a) { return h(...a, 1) } h()",
    "structuredClone": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; structuredClone(a)",
    "an argument": "let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; await callTool('t', a)",
    "a tool's arguments": "function f() { tools.t({ get a() { f() } }) } f(); throw new RangeError()",
}
DEEP_BUT_FINE = {
    "a chain of objects": "let z = null; for (let i = 0; i < 3e5; i++) z = { z }; z = null",
    "a rope": "let s = ''; for (let i = 0; i < 3e5; i++) s = s + 'ab' + i; s.charCodeAt(5)",
    "a chain of promises": "let p = Promise.resolve(1); for (let i = 0; i < 1e5; i++) p = p.then((x) => x); await p",
    "a chain of prototypes": "let o = {}; for (let i = 0; i < 1e5; i++) o = Object.create(o); o.zz",
    "an array in itself": "const q = []; q[0] = q; try { q.toString() } catch { }",
    "an array shown": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; console.log(a)",
    "an error in an error": "let e; for (let i = 0; i < 1e5; i++) e = new Error('x', { cause: e }); console.log(e)",
    "a call within a call": "callTool('t', { toJSON() { return callTool('t', this) } })",
    "a name of paths": "let t = tools; for (let i = 0; i < 2e3; i++) t = t.a; await Promise.race([t(), 1])",
}


@pytest.mark.parametrize("code", NESTED.values(), ids=NESTED.keys())
def test_nesting_ends_in_an_error_that_can_be_caught(engine: Engine, code: str) -> None:
    script = run(
        engine, f"try {{ {code} }} catch (e) {{ return e.name }}", max_memory_bytes=256 << 20, max_calls=1 << 30
    )
    assert script.verdict in {Verdict.NONE, Verdict.MEMORY_LIMIT}
    if script.verdict == Verdict.NONE:
        assert script.value in {"RangeError", "SyntaxError", "InternalError"}


@pytest.mark.slow  # six seconds: the engine compares each of 50,000 levels with all above
def test_a_value_too_deep_for_json_stringify_is_an_error(engine: Engine) -> None:
    code = "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; try { JSON.stringify(a) } catch (e) { return e.name }"
    assert value_of(engine, code) == "RangeError"


@pytest.mark.parametrize("code", DEEP_BUT_FINE.values(), ids=DEEP_BUT_FINE.keys())
def test_depth_that_needs_no_stack_is_no_error(engine: Engine, code: str) -> None:
    script = run(engine, code + "; return 'fine'", max_calls=1 << 30)
    assert (script.verdict, script.value) == (Verdict.NONE, "fine")


ENDLESS = {
    "a loop": "for (;;) { }",
    "a loop that catches": "for (;;) { try { for (;;) { } } catch { } finally { continue } }",
    "a flood of microtasks": "const again = () => Promise.resolve().then(again); again()",
    "two floods": "async function f() { for (;;) await 0 } f(); f()",
    "queueMicrotask": "const again = () => queueMicrotask(again); again()",
    "a catastrophic regex": "/^(a+)+$/.test('a'.repeat(40) + 'b')",
    "a getter of the result": "return { get a() { for (;;) { } } }",
    "a getter of the error": "throw { get message() { for (;;) { } } }",
    "a thenable": "return { then() { for (;;) { } } }",
    "a long join": "const a = new Array(2 ** 26); for (;;) a.join()",
    "a big power": "let n = 3n; for (;;) n = (n * n) % (2n ** 5000n)",
    "a wait for the clock": "const end = Date.now() + 5; while (Date.now() < end) { }",
    "a generator": "for (const x of (function* () { for (;;) yield 1 })()) { }",
    "a sort": "for (;;) new Array(1e5).fill(0).map(Math.random).sort()",
    "a proxy": "await callTool('t', new Proxy({}, { ownKeys() { for (;;) { } } }))",
}


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS.keys())
def test_an_endless_step_is_stopped_and_keeps_what_it_did(engine: Engine, code: str) -> None:
    script = Script(engine, "console.log('begun'); callTool('t', { n: 1 });" + code, slices=3)
    assert (script.verdict, script.ended) == (Verdict.CPU_LIMIT, True)
    assert script.effects[:2] == [[2, 0, "begun"], [1, 1, "t", {"n": 1}]]


def test_a_step_that_is_stopped_anywhere_leaves_whole_records(engine: Engine) -> None:
    code = "for (let i = 0; ; i++) { callTool('t', { i, s: 'x'.repeat(i) }).catch(() => {}); await 0 }"
    for slices in range(6):
        script = Script(engine, code, slices=slices, max_calls=1 << 30, max_memory_bytes=256 << 20)
        assert script.verdict == Verdict.CPU_LIMIT
        assert [args["i"] for _, args in script.calls] == list(range(len(script.calls)))


def test_an_unfinished_step_goes_on_where_it_was(engine: Engine) -> None:
    code = "let n = 0; for (let i = 0; i < 3e6; i++) n += i; console.log(n); return await callTool('t')"
    script = Script(engine, code)
    assert script.output == ["4499998500000"]
    assert script.deliver(fulfilled(1, "ok")) == [[5, "ok"]]


TAMPERED = """
    const bad = () => { throw new Error("tampered") };
    const { defineProperty } = Object;
    for (const [object, names] of [
        [JSON, ["stringify", "parse"]],
        [Promise, ["resolve", "reject", "all"]], [Promise.prototype, ["then", "catch", "finally"]],
        [Array.prototype, ["push", "map", "join", "forEach", "slice", "indexOf", "concat"]],
        [Function.prototype, ["call", "apply", "bind"]],
        [Object, ["keys", "entries", "defineProperty", "getOwnPropertyNames", "assign", "create", "getPrototypeOf"]],
        [String.prototype, ["split", "slice", "replace", "trim", "concat"]],
        [Map.prototype, ["get", "set", "has", "entries"]],
        [Reflect, ["get", "apply", "ownKeys"]], [Object.prototype, ["toString", "valueOf", "hasOwnProperty"]],
    ]) for (const name of names) object[name] = bad;
    for (const name of ["get", "set", "apply", "has", "value", "writable", "enumerable", "path", "children", "0"])
        defineProperty(Object.prototype, name, { __proto__: null, get: bad, set: bad, configurable: true });
    defineProperty(Array.prototype, "0", { __proto__: null, get: bad, set: bad, configurable: true });
    Array.prototype[Symbol.iterator] = bad;
    Promise = Proxy = Object = Array = Function = Error = TypeError = Map = Set = Symbol = JSON = undefined;
"""


def test_a_script_that_tampers_with_intrinsics_still_calls_tools(engine: Engine) -> None:
    code = (
        TAMPERED
        + """
        const first = await tools.a.b({ n: [1, { x: "y" }] });
        const second = await callTool("c", { first });
        console.log({ first }, [second]);
        return { first, second, list: [1, 2] }"""
    )
    script = Script(engine, code)
    script.deliver(fulfilled(1, {"v": [1]}))
    script.deliver(fulfilled(2, "two"))
    assert script.calls == [("a:b", {"n": [1, {"x": "y"}]}), ("c", {"first": {"v": [1]}})]
    assert script.output == ["{ first: { v: [ 1 ] } } [ 'two' ]"]
    assert script.value == {"first": {"v": [1]}, "second": "two", "list": [1, 2]}


def test_a_tampered_then_cannot_take_an_outcome_away(engine: Engine) -> None:
    code = """
        Object.prototype.then = function (resolve) { console.log("then"); resolve(5) };
        const r = await callTool("a");
        delete Object.prototype.then;
        return r"""
    script = Script(engine, code)
    script.deliver(fulfilled(1, {"v": 1}))
    assert script.value == {"v": 1}


def test_a_tampered_to_json_changes_only_the_script_s_own_values(engine: Engine) -> None:
    script = Script(engine, "Object.prototype.toJSON = () => ({ fake: 1 }); return await callTool('a', { real: 1 })")
    assert script.calls == [("a", {"fake": 1})]


@pytest.mark.parametrize(
    "code",
    [
        "return tools.constructor === undefined || typeof tools.constructor.constructor",
        "return callTool.constructor('return typeof process')()",
        "return console.log.constructor.prototype.constructor('return typeof require')()",
        "return (async () => {}).constructor('return typeof globalThis.host')()",
        "return (() => { try { return callTool.caller } catch (e) { return typeof undefined } })() ?? 'undefined'",
    ],
)
def test_no_way_leads_to_something_behind_the_globals(engine: Engine, code: str) -> None:
    assert value_of(engine, code) in {"undefined", "function"}


def test_code_that_is_made_at_run_time_is_confined_as_well(engine: Engine) -> None:
    script = run(engine, "return [eval('1 + 1'), new Function('a', 'return a * 2')(3), (0, eval)('typeof globalThis')]")
    assert script.value == [2, 6, "object"]
