from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from enclave_broker.types.messages import Verdict
from tests.core.support import Script, value_of

ALL_FUNCTIONS = """
    const seen = new Set(), found = [];
    const walk = (value, path, depth) => {
        if (depth > 4 || value === null || !["object", "function"].includes(typeof value) || seen.has(value)) return;
        seen.add(value);
        if (typeof value === "function") found.push(path);
        for (const key of Reflect.ownKeys(value)) {
            const name = typeof key === "symbol" ? key.description : JSON.stringify(key);
            const { get, value: inner } = Reflect.getOwnPropertyDescriptor(value, key);
            if (!get) walk(inner, `${path}[${name}]`, depth + 1);
            else if (!seen.has(get)) found.push(`Object.getOwnPropertyDescriptor(${path}, ${name}).get`);
            seen.add(get);
        }
    };
    walk(globalThis, "globalThis", 0);
    return found"""
ARGUMENTS = [
    "",
    "null",
    "-1, NaN",
    "1e9",
    "2 ** 53, 'x'",
    "{}",
    "Symbol.iterator",
    "new Proxy({}, { get() { throw 1 }, has() { throw 2 }, ownKeys() { throw 3 }, getPrototypeOf() { throw 4 } })",
    "() => { throw 9 }, 5",
    "new Uint8Array(8), 3, 2",
    "'a'.repeat(1e4), 'b'",
    "[1, 2, 3], (x) => x, {}",
    "{ valueOf: () => 7, length: 1e5 }",
    "new Map([[1, 2]]), new Set([1])",
    "/(a+)+/, 'aaa'",
    "10n, 3n",
    "{ then(resolve) { resolve(1) } }",
    "tools, callTool",
]
RECEIVERS = [
    "undefined",
    "({})",
    "[1, [2, [3]]]",
    "'text'",
    "new Map([[1, {}]])",
    "new Uint8Array(4)",
    "5n",
    "new Promise(() => {})",
    "/x/g",
    "new Date(0)",
    "(function* () { yield 1 })()",
    "new Proxy([], {})",
    "Symbol('z')",
    "new DataView(new ArrayBuffer(8))",
    "[1].values()",
]
SOME_SLICES = 50
"""Some functions work for long with such arguments; they are stopped."""


@pytest.mark.slow  # 500 functions with 540 calls each
def test_no_function_with_any_argument_breaks_the_engine(engine: Engine) -> None:
    code = f"""
        for (const self of [{", ".join(f"() => {self}" for self in RECEIVERS)}])
            for (const make of [{", ".join(f"() => [{given}]" for given in ARGUMENTS)}]) {{
                let given;
                try {{ given = make(); console.log(Reflect.apply(FUNCTION, self(), given)) }} catch {{ }}
                try {{ new FUNCTION(...given) }} catch {{ }}
            }}"""
    functions = value_of(engine, ALL_FUNCTIONS)
    assert len(functions) > 450
    broken: list[str] = []
    for name in functions:
        source = code.replace("FUNCTION", f"({name})")
        script = Script(engine, source, slices=SOME_SLICES, max_memory_bytes=32 << 20, max_calls=1 << 20)
        script.close()
        if script.verdict in {Verdict.ENGINE_FAULT, Verdict.HOST_MEMORY}:
            broken.append(name)
    assert broken == []
