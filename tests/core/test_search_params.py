from __future__ import annotations

import json
from typing import Any

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import run, value_of


@pytest.mark.parametrize(
    ("init", "text"),
    [
        ("", ""),
        ("undefined", ""),
        ("null", "null="),
        ("5", "5="),
        ("''", ""),
        ("'?'", ""),
        ("'a=1&b=2'", "a=1&b=2"),
        ("'?a=1'", "a=1"),
        ("'??a=1'", "%3Fa=1"),
        ("'a'", "a="),
        ("'=a'", "=a"),
        ("'='", "="),
        ("'&&a&&b&'", "a=&b="),
        ("'a=b=c'", "a=b%3Dc"),
        ("{}", ""),
        ("{ a: 1, b: [2, 3], c: null }", "a=1&b=2%2C3&c=null"),
        ("{ '\\ud835x': 1, xx: 2, '\\ud83dx': 3 }", "%EF%BF%BDx=3&xx=2"),
        ("JSON.parse('{ \"__proto__\": 1 }')", "__proto__=1"),
        ("Object.create({ inherited: 1 }, { hidden: { value: 1 } })", ""),
        ("[]", ""),
        ("[['a', 1], ['a', 2]]", "a=1&a=2"),
        ("[new Set(['a', 'b'])]", "a=b"),
        ("new Map([['a', 1], ['b', true]])", "a=1&b=true"),
        ("(function* () { yield ['a', 'b'] })()", "a=b"),
        ("new URLSearchParams('a=1')", "a=1"),
        ("new URL('http://h/?a=1').searchParams", "a=1"),
        ("() => 1", ""),
    ],
)
def test_it_is_made_from_text_pairs_and_records(engine: Engine, init: str, text: str) -> None:
    assert value_of(engine, f"return new URLSearchParams({init}).toString()") == text


@pytest.mark.parametrize(
    "code",
    [
        "new URLSearchParams([1])",
        "new URLSearchParams(['ab'])",
        "new URLSearchParams([['a']])",
        "new URLSearchParams([['a', 'b', 'c']])",
        "new URLSearchParams(new Set(['ab']))",
        "new URLSearchParams({ [Symbol.iterator]: 1 })",
        "new URLSearchParams({ [Symbol('s')]: 1 })",
        "new URLSearchParams(Symbol())",
        "URLSearchParams('a')",
        "new URLSearchParams().append('a')",
        "new URLSearchParams().set('a')",
        "new URLSearchParams().get()",
        "new URLSearchParams().getAll()",
        "new URLSearchParams().has()",
        "new URLSearchParams().delete()",
        "new URLSearchParams().forEach()",
        "new URLSearchParams().forEach({})",
        "URLSearchParams.prototype.keys.call({})",
        "URLSearchParams.prototype.size",
        "new URLSearchParams().keys().next.call({})",
    ],
)
def test_it_refuses_what_it_cannot_use(engine: Engine, code: str) -> None:
    assert run(engine, code).error["name"] == "TypeError"


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        ("a+b=c%20d", [["a b", "c d"]]),
        ("%2B=%26", [["+", "&"]]),
        ("%C3%A9=%F0%9F%98%80", [["é", "😀"]]),
        ("é=😀", [["é", "😀"]]),
        ("a=%", [["a", "%"]]),
        ("a=%zz%4", [["a", "%zz%4"]]),
        ("a=%ff%41", [["a", "\ufffdA"]]),
        ("a=%e2%82é", [["a", "\ufffdé"]]),
        ("a=%ef%bb%bfb", [["a", "\ufeffb"]]),
        ("a=%00", [["a", "\0"]]),
        ("a=%ED%A0%80", [["a", "\ufffd" * 3]]),
    ],
)
def test_a_query_is_decoded(engine: Engine, query: str, pairs: list[Any]) -> None:
    assert value_of(engine, f"return [...new URLSearchParams({json.dumps(query)})]") == pairs


def test_what_a_form_has_to_encode_is_encoded(engine: Engine) -> None:
    code = "return new URLSearchParams({ '': String.fromCharCode(...Array(128).keys()) + 'é\\ud800' }).toString()"
    kept = "*-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    encoded = "".join("+" if c == 32 else chr(c) if chr(c) in kept else f"%{c:02X}" for c in range(128))
    assert value_of(engine, code) == f"={encoded}%C3%A9%EF%BF%BD"


def test_pairs_are_found_set_and_removed(engine: Engine) -> None:
    code = """
        const params = new URLSearchParams("a=1&b=2&a=3&c=4"), seen = [];
        seen.push(params.get("a"), params.get("x"), params.getAll("a"), params.getAll("x"), params.size);
        seen.push(params.has("b"), params.has("b", 2), params.has("b", "3"), params.has("x"));
        seen.push(params.has("b", undefined));
        params.set("a", "5"); seen.push(`${params}`);
        params.set("d", "6"); seen.push(`${params}`);
        params.append("a", null); params.delete("a", "5"); seen.push(`${params}`);
        params.delete("a", undefined); params.delete("x"); seen.push(`${params}`, params.size);
        return seen"""
    assert value_of(engine, code) == [
        *("1", None, ["1", "3"], [], 4),
        *(True, True, False, False, True),
        *("a=5&b=2&c=4", "a=5&b=2&c=4&d=6", "b=2&c=4&d=6&a=null", "b=2&c=4&d=6", 3),
    ]


def test_sorting_is_by_code_units_and_stable(engine: Engine) -> None:
    code = """
        const params = new URLSearchParams("z=1&\\uffff=2&😀=3&a=4&z=0&a=1");
        params.sort();
        return [...params].map(([name, value]) => name + value)"""
    assert value_of(engine, code) == ["a4", "a1", "z1", "z0", "😀3", "\uffff2"]


def test_its_iterators_are_alive(engine: Engine) -> None:
    code = """
        const params = new URLSearchParams("a=1&b=2&c=3"), seen = [];
        for (const [name] of params) { seen.push(name); params.delete(name) }
        const keys = params.keys(); params.append("d", 4); seen.push(...keys, keys.next());
        params.forEach(function (value, name, all) { seen.push(value, name, all === params, this.own) }, { own: 7 });
        seen.push([...params.values()], [...params.entries()], params.keys().map((key) => key + key).toArray());
        seen.push(params[Symbol.iterator] === params.entries, String(params.keys()), Reflect.ownKeys(keys).length);
        return seen"""
    assert value_of(engine, code) == [
        *("a", "c", "b", "d", {"done": True}),
        *("2", "b", True, 7, "4", "d", True, 7),
        *(["2", "4"], [["b", "2"], ["d", "4"]], ["bb", "dd"]),
        *(True, "[object URLSearchParams Iterator]", 0),
    ]


def test_the_class_is_one_like_a_browser_s(engine: Engine) -> None:
    code = """
        class Own extends URLSearchParams {}
        const own = new Own("a=1");
        const names = "append delete get getAll has set sort forEach toString entries keys values";
        return [own instanceof URLSearchParams, String(Object.prototype.toString.call(own)), `${own}`,
                URLSearchParams.length, names.split(" ").map((name) => own[name].length),
                Object.keys(URLSearchParams.prototype).join(" ")]"""
    assert value_of(engine, code) == [
        *(True, "[object URLSearchParams]", "a=1", 0, [2, 1, 1, 1, 1, 2, 0, 1, 0, 0, 0, 0]),
        "size append delete get getAll has set sort forEach toString entries keys values",
    ]
