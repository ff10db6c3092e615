from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import Script, fulfilled, rejected, run, value_of


@pytest.mark.parametrize(
    ("code", "name", "message", "line", "column"),
    [
        ("\n\n  missing()", "ReferenceError", "missing is not defined", 3, 3),
        ("null.x", "TypeError", "cannot read property 'x' of null", 1, 1),
        ("throw new RangeError('far')", "RangeError", "far", 1, 11),
        ("await 0;\n\n throw new Error('late')", "Error", "late", 3, 12),
        ("throw 'just text'", "Error", "just text", 1, 7),
        ("await 0;\nthrow 'text'", "Error", "text", 2, 7),
        ("throw { message: 'own' }", "Error", "own", 1, 7),
        ("throw { a: 1 }", "Error", "{ a: 1 }", 1, 7),
        ("(async () => { throw 'first' })().catch(() => {});\nthrow 'second'", "Error", "second", 2, 7),
        ("const f = async () => { throw 'in f' };\nawait f()", "Error", "in f", 2, 7),
        ("new Promise(() => { throw 'a' }).catch(() => {});\n await 0; throw 'b'", "Error", "b", 2, 17),
        ("throw null", "Error", "null", 1, 7),
        ("throw undefined", "Error", "undefined", 1, 7),
        ("throw 42", "Error", "42", 1, 7),
        ("class Mine extends Error { name = 'Mine' }\nthrow new Mine('m')", "Mine", "m", 2, 11),
        ("class M extends Error { constructor(m) {\n super(m) } }\n\nthrow new M('m')", "Error", "m", 4, 11),
        ("function f() {\n  throw new Error('in f')\n}\n\nf()", "Error", "in f", 2, 13),
        ("JSON.parse('{')", "SyntaxError", None, 1, 6),
        ("return Promise.reject(new Error('returned'))", "Error", "returned", 1, 27),
        ("await parallel([1], async () => {\n  throw new Error('inside')\n})", "Error", "inside", 2, 13),
        ("tools()", "TypeError", "name a tool: tools.namespace.name(args)", 1, 1),
        ("[1].map(() => {\n null.x })", "TypeError", "cannot read property 'x' of null", 2, 2),
        ("setTimeout(5)", "TypeError", "the first argument of a timer must be a function", 1, 1),
    ],
)
def test_an_error_has_its_name_message_and_position(
    engine: Engine, code: str, name: str, message: str | None, line: int, column: int
) -> None:
    error = run(engine, code).error
    assert error["name"] == name
    assert message is None or error["message"] == message
    assert (error["line"], error["column"]) == (line, column)
    assert error["stack"].startswith(f"{name}: ")
    assert "code" not in error


@pytest.mark.parametrize(
    ("call", "line", "column"),
    [
        ("await callTool('a', {})", 2, 7),
        ("await callTool(id('a'), { n: id(1) })", 2, 7),
        ("await callTool(\n  'a', {\n    n: id(1),\n  },\n)", 2, 7),
        ("await callTool(...[id('a'), { n: id(1) }])", 2, 7),
        ("await tools.orders.get({ id: Math.max(500) })", 2, 20),
        ("await tools.orders.get({\n  id: id(1),\n  tags: [1].map((n) => `${n}`),\n})", 2, 20),
        ("await tools.orders\n  .get({ id: id(1) })", 3, 4),
        ("await tools.orders?.get?.({ id: id(1) })", 2, 21),
        ("await tools[id('orders')].get({ id: id(1) })", 2, 27),
        ("await tools['orders']['get']({ id: id(1) })", 2, 7),
        ("JSON.parse(id('{'))", 2, 6),
        ("[1]\n  .map((n) => id(n))\n  .sort(id(5))", 4, 4),
        ("throw new Error(\n  `${id(1)}`,\n)", 2, 11),
        ("new Array(\n  ...[id(-1)])", 2, 5),
        ("class A { constructor() { null.x } }\nnew A(id(2), {\n})", 2, 27),
        ("const text = 5; text`a${id(1)}b`", 2, 17),
        ("({}).text`a${\n id(1)}b`", 2, 6),
        ("eval(id('null.x'))", 2, 1),
        ("class A { #p = 1; go() { this.#p(id(1)) } }\nnew A().go()", 2, 31),
        ("const parse = () => JSON.parse(\n  id('{'),\n)\nparse()", 2, 26),
        ("throw {\n  message: id('m') }", 2, 7),
        ("throw 'a' + id('m')", 2, 7),
        ("await import(\n  id('fs'))", 2, 7),
        ("await Promise.all([1, import('fs')])", 2, 23),
        ("await import('fs', 5)", 2, 7),
    ],
)
def test_a_call_that_fails_has_its_own_position_whatever_its_arguments_hold(
    engine: Engine, call: str, line: int, column: int
) -> None:
    script = Script(engine, f"const id = (value) => value;\n{call}")
    if script.calls:
        script.deliver(rejected(1, code="X", message="m"))
    assert (script.error["line"], script.error["column"]) == (line, column)


@pytest.mark.parametrize(
    "code",
    [
        "await callTool('a', {})",
        "await tools.orders.get({})",
        "null.x",
        "  null.x",
        "throw 'text'",
        "throw new Error('e')",
        "[1].map(() => { throw 5 })",
        "let a = /(/",
        "return )",
        "return missing",
    ],
)
def test_columns_are_alike_on_the_first_line_and_on_others(engine: Engine, code: str) -> None:
    places: list[int] = []
    for before in ("", "\n"):
        script = Script(engine, before + code)
        if script.calls:
            script.deliver(rejected(1, code="X", message="m"))
        places.append(script.error["column"])
        script.close()
    assert places[0] == places[1]


@pytest.mark.parametrize("code", ["const { readFile } = await import('fs')", "return import('fs')", "import('./fs')"])
def test_an_import_says_what_is_missing(engine: Engine, code: str) -> None:
    error = run(engine, code).error
    assert error["name"] == "ReferenceError"
    assert error["message"] in ("could not load module 'fs'", "could not load module './fs'")
    assert error["stack"].split("\n")[1].startswith("    at script.js:1:")


def test_an_import_that_fails_can_be_caught(engine: Engine) -> None:
    assert value_of(engine, "return await import('fs').catch((e) => e.name)") == "ReferenceError"


@pytest.mark.parametrize(
    "code", ["1 +", "await (", "foo(", "[1,", "let a = {", "class A {", "function f() {", "if (", "while", "throw"]
)
def test_a_script_that_breaks_off_says_so(engine: Engine, code: str) -> None:
    error = run(engine, code).error
    assert (error["code"], error["message"]) == ("SYNTAX_ERROR", "unexpected end of input")


@pytest.mark.parametrize(
    ("code", "line", "column"),
    [
        ("1 +", 1, 4),
        ("let a = 1;\nlet a = 2;", 2, 7),
        ("\n\nreturn )", 3, 8),
        ("import x from 'y'", 1, 8),
        ("await (", 1, 8),
        ("/(/", 1, 1),
        ("let a = 1;\nconst b = /=(/g", 2, 11),
        ("const f = () => /a/gg", 1, 17),
        ("/a", 1, 1),
    ],
)
def test_a_script_that_does_not_compile_fails_with_syntax_error(
    engine: Engine, code: str, line: int, column: int
) -> None:
    error = run(engine, code).error
    assert (error["name"], error["code"]) == ("SyntaxError", "SYNTAX_ERROR")
    assert (error["line"], error["column"]) == (line, column)
    assert error["stack"] == f"SyntaxError: {error['message']}\n    at script.js:{line}:{column}"


def test_a_stack_holds_the_frames_of_the_script_alone(engine: Engine) -> None:
    code = "const inner = () => { throw new Error('x') };\nasync function outer() { [1].forEach(inner) }\nawait outer()"
    assert run(engine, code).error["stack"].split("\n") == [
        "Error: x",
        "    at inner (script.js:1:33)",
        "    at outer (script.js:2:30)",
        "    at script.js:3:7",
    ]


def test_a_thrown_object_keeps_code_and_details(engine: Engine) -> None:
    error = run(engine, "throw Object.assign(new Error('m'), { code: 'MINE', details: { n: [1] } })").error
    assert (error["code"], error["details"]) == ("MINE", {"n": [1]})


@pytest.mark.parametrize("code", ["5", "true", "''", "null", "undefined", "['A']", "{}", "Symbol('s')"])
def test_a_code_that_is_no_text_is_left_out(engine: Engine, code: str) -> None:
    assert "code" not in run(engine, f"throw Object.assign(new Error('m'), {{ code: {code} }})").error
    assert "code" not in run(engine, f"throw {{ message: 'm', code: {code} }}").error


@pytest.mark.parametrize(
    "code",
    [
        "throw { get message() { throw 1 }, get name() { throw 2 }, get code() { throw 3 } }",
        "throw new Proxy({}, { get() { throw 1 }, getPrototypeOf() { throw 2 }, ownKeys() { throw 3 } })",
        "const e = new Error('m'); e.details = e; e.stack = 5; e.name = {}; throw e",
        "Error.prepareStackTrace = () => { throw 1 }; throw new Error('m')",
        "Error.prepareStackTrace = () => 5; null.x",
        "throw Object.create(null)",
        "throw Symbol('s')",
        "throw 10n",
        "throw new Error('x'.repeat(1e6))",
        "const e = new Error('m'); e.details = 'x'.repeat(1e6); throw e",
        "throw function named() {}",
        "return { then(_, reject) { reject() } }",
    ],
)
def test_whatever_is_thrown_ends_the_script_with_a_bounded_error(engine: Engine, code: str) -> None:
    script = run(engine, code)
    assert script.ended
    assert script.verdict == 0
    assert isinstance(script.error["message"], str)
    assert sum(map(len, script.raw)) < 100_000


def test_a_rejected_call_is_an_error_with_code_and_details(engine: Engine) -> None:
    script = Script(
        engine,
        """
        try { await callTool("a", {}) } catch (e) {
            return [e instanceof Error, e.name, e.message, e.code, e.details, Object.keys(e), String(e)]
        }""",
    )
    script.deliver(rejected(1, code="RATE_LIMITED", message="slow down", details={"retry": 5}))
    assert script.value == [
        True,
        "ToolError",
        "slow down",
        "RATE_LIMITED",
        {"retry": 5},
        ["code", "details"],
        "ToolError: slow down",
    ]


def test_the_name_of_a_rejected_call_can_be_given(engine: Engine) -> None:
    script = Script(engine, "try { await callTool('a') } catch (e) { return [e.name, 'details' in e] }")
    script.deliver(rejected(1, code="X", message="m", name="AccessDenied"))
    assert script.value == ["AccessDenied", False]


def test_an_uncaught_tool_failure_points_at_the_line_of_the_call(engine: Engine) -> None:
    code = "async function load() {\n  return await tools.orders.get({ id: 1 })\n}\n\nawait load()"
    script = Script(engine, code)
    script.deliver(rejected(1, code="ACCESS_DENIED", message="no"))
    assert script.error["code"] == "ACCESS_DENIED"
    assert (script.error["line"], script.error["column"]) == (2, 29)
    assert script.error["stack"].split("\n") == [
        "ToolError: no",
        "    at load (script.js:2:29)",
        "    at script.js:5:7",
    ]


def test_the_position_of_a_call_survives_its_wait(engine: Engine) -> None:
    script = Script(engine, "await callTool('a');\nawait parallel([1], (n) =>\n callTool('b', { n }));")
    script.deliver(fulfilled(1))
    script.deliver(rejected(2, code="X", message="m"))
    assert script.error["line"] == 3


@pytest.mark.parametrize(
    "given", ["5", "'text'", "null", "[1]", "true", "() => 1", "Symbol('s')", "new Date(0)", "new Set()"]
)
def test_arguments_that_are_no_object_reject_the_call_without_an_effect(engine: Engine, given: str) -> None:
    script = run(engine, f"try {{ await callTool('a', {given}) }} catch (e) {{ return [e.code, e.message] }}")
    code, message = script.value
    assert code == "VALIDATION_ERROR"
    assert "invalid" in message
    assert script.calls == []


@pytest.mark.parametrize("name", ["1", "undefined", "null", "{}", "Symbol.iterator", "new String('a')"])
def test_a_name_that_is_no_string_is_a_type_error(engine: Engine, name: str) -> None:
    script = run(engine, f"try {{ await callTool({name}) }} catch (e) {{ return [e.name, e.message] }}")
    assert script.value == ["TypeError", "callTool(name, args): the name must be a string"]
    assert script.calls == []


def test_an_error_while_arguments_are_made_rejects_the_call(engine: Engine) -> None:
    code = "try { await callTool('a', { get x() { throw new RangeError('getter') } }) } catch (e) { return e.message }"
    assert value_of(engine, code) == "getter"


def test_an_outcome_that_is_no_json_rejects_the_call(engine: Engine) -> None:
    script = Script(engine, "try { await callTool('a') } catch (e) { return e.name }")
    assert script.deliver(fulfilled(1, raw=b"{nope")) == [[5, "SyntaxError"]]


def test_a_function_as_value_is_an_error_that_names_it(engine: Engine) -> None:
    error = run(engine, "return async function report() {}").error
    assert error["code"] == "EXECUTION_ERROR"
    assert "report" in error["message"]
    assert "Symbol(s)" in run(engine, "Symbol('s')").error["message"]
