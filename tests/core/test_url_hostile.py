from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from enclave_broker.types.messages import Verdict
from tests.core.support import Script, run, value_of

TAMPERED = """
    const bad = () => { throw new Error("tampered") };
    const { defineProperty, getOwnPropertyNames, getOwnPropertySymbols, getPrototypeOf } = Object;
    const kept = new Set(["constructor", "prototype"]);
    const spoil = (object, names) => {
        for (let i = 0; i < names.length; i++)
            if (!kept.has(names[i]))
                try { defineProperty(object, names[i], { __proto__: null, get: bad, set: bad }) } catch { }
    };
    const spoiled = [
        String, Number, RegExp, Array, Uint16Array, TypeError, Error, Reflect, Symbol, Object, JSON, Function,
        TypeError.prototype, Error.prototype, RegExp.prototype, Number.prototype, Uint16Array.prototype,
        getPrototypeOf(Uint16Array.prototype), getPrototypeOf(getPrototypeOf([][Symbol.iterator]())),
        getPrototypeOf([][Symbol.iterator]()), String.prototype, Function.prototype, Array.prototype, Object.prototype,
    ];
    const fields = "scheme username password host port path opaque query fragment name value 0 1 2 -1 8 index input " +
        "get groups enumerable writable configurable lastIndex flags exec url params";
    const places = fields.split(" ");
    for (let i = 0; i < places.length; i++) {
        for (let j = 0; j < 2; j++)
            defineProperty([Object.prototype, Array.prototype][j], places[i], { __proto__: null, get: bad, set: bad });
    }
    const { URL, URLSearchParams } = globalThis;
    for (let i = 0; i < spoiled.length; i++) {
        spoil(spoiled[i], getOwnPropertyNames(spoiled[i]));
        spoil(spoiled[i], getOwnPropertySymbols(spoiled[i]));
    }
"""
USED = """
    const url = new URL("../c/./d?x=1&y=%41#z", "HTTP://u:p@EXAMPLE.com:8080/a/b/"), params = url.searchParams;
    params.append("é", "\\ud800 b"); params.set("x", "2"); params.delete("y"); params.sort();
    url.host = "[1::2]:81"; url.protocol = "https"; url.pathname = "/e/../f g"; url.hash = "h";
    const all = params.getAll("x"), made = new URLSearchParams("b=1&a=2"), keys = made.keys();
    const told = [
        url, url.origin, url.port, all, made.toString(), keys.next().value, params.has("x"),
        new URLSearchParams({ k: "v" }), new URLSearchParams(params), new URL("http://0x7f.1").host,
        URL.canParse("http://a b"), URL.parse("file:C|/x"), new URL("blob:http://a/").origin,
    ];
    let seen = "nothing thrown";
    try { new URL("http://a:x") } catch (error) { seen = typeof error }
    console.log(url, params);
"""


def test_a_script_that_tampers_with_intrinsics_gets_the_same_urls(engine: Engine) -> None:
    code = USED + "return { told, seen }"
    plain, tampered = run(engine, code), run(engine, TAMPERED + code)
    assert plain.value["told"][0] == "https://u:p@[1::2]:81/f%20g?x=2&%C3%A9=%EF%BF%BD+b#h"
    assert (tampered.value, tampered.output) == (plain.value, plain.output)


def test_a_tampered_iterator_is_not_asked_for_lists(engine: Engine) -> None:
    code = """
        Array.prototype[Symbol.iterator] = () => { throw new Error("tampered") };
        return new URLSearchParams([["a", 1], ["b", 2]]).toString()"""
    assert value_of(engine, code) == "a=1&b=2"


def test_tampered_methods_change_neither_what_is_shown_nor_what_leaves(engine: Engine) -> None:
    code = """
        const bad = () => "fake", url = new URL("http://a/?b=c"), params = url.searchParams;
        URL.prototype.toString = URLSearchParams.prototype.toString = URLSearchParams.prototype[Symbol.iterator] = bad;
        for (const key of ["href", "search"]) Object.defineProperty(URL.prototype, key, { get: bad });
        delete URL.prototype.toJSON;
        console.log(url, params);
        return [url, params]"""
    script = run(engine, code)
    assert script.output == ["URL { 'http://a/?b=c' } URLSearchParams { 'b=c' }"]
    assert script.value == ["http://a/?b=c", "b=c"]


def test_no_function_behind_the_globals_can_be_had(engine: Engine) -> None:
    code = """
        const had = new Set();
        Error.prepareStackTrace = (error, sites) => {
            for (const site of sites) for (const key of Reflect.ownKeys(Object.getPrototypeOf(site)))
                if (typeof site[key] === "function" && key !== "constructor") had.add(typeof site[key]());
            return "";
        };
        const bad = { get toString() { return () => new Error("x").stack } };
        for (const work of [() => new URL("x"), () => new URL(bad), () => URL.parse(bad), () => `${tools}`,
                            () => new URLSearchParams([1]), () => new URLSearchParams([[bad, bad]]),
                            () => { new URL("a:b").search = bad }, () => tools()])
            try { void work()?.stack } catch (error) { void error.stack }
        return [had.size > 0, had.has("function"), had.has("object")]"""
    assert value_of(engine, code) == [True, False, True]


def test_where_the_stack_ends_nothing_becomes_another_answer(engine: Engine) -> None:
    code = """
        let wrong = 0, ends = 0;
        const down = (text) => {
            try {
                if (!URL.canParse(text) || new URL(text).href !== text || URL.parse(text) === null) wrong++;
                const url = new URL("http://a/"); url.host = "b";
                if (url.host !== "b") wrong++;
                down(text);
            } catch (error) {
                ends++;
                if (!(error instanceof RangeError)) wrong++;
                throw error;
            }
        };
        try { down("http://a/b?c=d") } catch { }
        return [wrong, ends > 0, new URL("http://a").href]"""
    assert value_of(engine, code) == [0, True, "http://a/"]


LONG = {
    "a path": "new URL('http://a/' + 'a'.repeat(N))",
    "a path to be encoded": "new URL('http://a/' + 'a é'.repeat(N / 3))",
    "a way up": "new URL('http://a/' + '../'.repeat(N / 3))",
    "a way down and up": "new URL('http://a/' + 'a/'.repeat(N / 4) + '../'.repeat(N / 6))",
    "a way up below a long name": "new URL('http://a/' + 'x'.repeat(N / 2) + '/' + 'a/../'.repeat(N / 10))",
    "encoded dots": "new URL('http://a/' + '%2e%2E/'.repeat(N / 7))",
    "dots": "new URL('http://a/' + './'.repeat(N / 2))",
    "a way up in a file": "new URL('file:///C:/' + '../'.repeat(N / 3))",
    "drives": "new URL('file:///' + 'C|/'.repeat(N / 3))",
    "slashes": "new URL('http:' + '/'.repeat(N) + 'a')",
    "backslashes": "new URL('http://a/' + 'a\\\\'.repeat(N / 2))",
    "breaks": "new URL('http://a/' + 'a\\tb\\n'.repeat(N / 4))",
    "space around": "new URL(' '.repeat(N / 2) + 'a:' + ' '.repeat(N / 2))",
    "ats": "new URL('http://' + '@'.repeat(N) + 'a')",
    "colons of a password": "new URL('http://' + ':'.repeat(N) + '@a')",
    "a host": "new URL('http://' + 'a.'.repeat(N / 2))",
    "an encoded host": "new URL('http://' + '%61'.repeat(N / 3))",
    "numbers of a host": "URL.canParse('http://' + '1.'.repeat(N / 2))",
    "a number of a host": "URL.canParse('http://' + '1'.repeat(N))",
    "almost a number of a host": "URL.canParse('http://' + '1'.repeat(N) + 'a')",
    "brackets": "URL.canParse('http://' + '['.repeat(N))",
    "brackets and colons": "URL.canParse('http://' + '[]:'.repeat(N / 3))",
    "pieces": "URL.canParse('http://[' + '1:'.repeat(N / 2) + ']')",
    "gaps": "URL.canParse('http://[' + '1::'.repeat(N / 3) + ']')",
    "zeros of a port": "new URL('http://a:' + '0'.repeat(N) + '80')",
    "digits of a port": "URL.canParse('http://a:' + '9'.repeat(N))",
    "a scheme": "URL.canParse('a'.repeat(N))",
    "a fragment": "new URL('a:#' + '<é'.repeat(N / 2))",
    "parameters": "new URL('http://a/?' + 'a=%C3&'.repeat(N / 6)).searchParams.toString()",
    "empty parameters": "new URLSearchParams('&'.repeat(N)).size",
    "a parameter": "new URLSearchParams('+%é'.repeat(N / 3)).toString()",
    "parameters removed": "new URLSearchParams('a&b&'.repeat(N / 4)).delete('a')",
    "parameters sorted": "new URLSearchParams(Array.from(Array(N / 10), (_, i) => `k${i * 7 % 999}`).join('&')).sort()",
    "parameters of a URL that grow": "const u = new URL('http://a'); for (let i = 0; i < N / 10; i++) "
    "u.searchParams.append('k', 'v'); u.href",
    "a base": "new URL('x', 'http://a/' + 'a/'.repeat(N / 2))",
    "setters": "const u = new URL('http://a'); u.pathname = '../'.repeat(N / 3); u.search = '&'.repeat(N); "
    "u.hash = 'é'.repeat(N); u.host = 'a'.repeat(N); u.username = ':'.repeat(N)",
    "a text made of pieces": "let s = 'a:'; for (let i = 0; i < N / 2; i++) s += 'é '; new URL(s)",
    "what is shown": "console.log(new URL('a:' + 'é'.repeat(N)), new URLSearchParams('a&'.repeat(N / 2)))",
}


@pytest.mark.parametrize("code", LONG.values(), ids=LONG.keys())
def test_the_work_grows_with_the_length_and_no_faster(engine: Engine, code: str) -> None:
    """Each is a tenth of a second of work; what grew by the square would be stopped after ten."""
    script = Script(engine, f"const N = 250_000; {code}; return 'done'", slices=5000)
    assert (script.verdict, script.value) == (Verdict.NONE, "done")


def test_a_url_that_does_not_fit_into_memory_ends_the_run_and_not_the_engine(engine: Engine) -> None:
    script = run(engine, "new URL('a:' + 'é'.repeat(2e7))", max_memory_bytes=16 << 20)
    assert script.verdict == Verdict.MEMORY_LIMIT
    assert value_of(engine, "return new URL('http://a')") == "http://a/"
