from __future__ import annotations

from typing import Any

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import NOW, Script, fired, fulfilled, rejected, run, value_of


def test_tools_joins_the_names_with_colons(engine: Engine) -> None:
    script = run(
        engine, "tools.a.b({ n: 1 }); tools.one(); tools.x.y.z(); tools['odd:name'](); tools.o['get-by-id']({})"
    )
    assert script.calls == [
        ("a:b", {"n": 1}),
        ("one", {}),
        ("x:y:z", {}),
        ("odd:name", {}),
        ("o:get-by-id", {}),
    ]


def test_tools_is_no_thenable_and_has_no_symbols(engine: Engine) -> None:
    code = "return [tools, tools.a].map((t) => [typeof t.then, typeof t.toJSON, typeof t[Symbol.iterator], typeof t])"
    assert value_of(engine, code) == [["undefined"] * 3 + ["function"]] * 2
    assert value_of(engine, "return (await tools.a) === tools.a && tools.a.b === tools.a.b") is True


def test_tools_has_every_name_even_those_of_functions(engine: Engine) -> None:
    script = run(
        engine,
        "tools.ns.name(); tools.ns.length(); tools.ns.call({ a: 1 }); tools.ns.__proto__(); tools.ns.constructor()",
    )
    assert [name for name, _ in script.calls] == ["ns:name", "ns:length", "ns:call", "ns:__proto__", "ns:constructor"]


@pytest.mark.parametrize("code", ["tools.a = 1", "'use strict'; tools.a.b = 1", "new tools.a()", "tools()"])
def test_tools_can_be_neither_changed_nor_constructed(engine: Engine, code: str) -> None:
    assert run(engine, code).error["name"] == "TypeError"


@pytest.mark.parametrize(
    "code", ["'' + tools", "`${tools.orders}`", "tools.orders.get + 1", "tools.a == 1", "+tools.a"]
)
def test_a_tool_that_is_used_as_text_is_an_error_that_says_how_it_is_called(engine: Engine, code: str) -> None:
    script = run(engine, code)
    assert (script.error["name"], script.calls) == ("TypeError", [])
    assert "is neither text nor number: call " in script.error["message"]
    assert value_of(engine, "try { `${tools.a.b}` } catch (e) { return e.message }") == (
        "the tool a:b is neither text nor number: call it, and await what it gives"
    )
    assert value_of(engine, "try { '' + tools } catch (e) { return e.message }") == (
        "tools is neither text nor number: call a tool, as await tools.namespace.name(args)"
    )


def test_tools_may_have_the_names_that_conversions_look_for(engine: Engine) -> None:
    script = run(engine, "tools.toString(); tools.ns.valueOf({ a: 1 }); tools['Symbol.toPrimitive']()")
    assert [name for name, _ in script.calls] == ["toString", "ns:valueOf", "Symbol.toPrimitive"]


def test_parallel_maps_a_list_in_order(engine: Engine) -> None:
    script = Script(engine, "return await parallel(['a', 'b'], async (name, i) => [await callTool(name), i])")
    assert [name for name, _ in script.calls] == ["a", "b"]
    script.deliver(fulfilled(2, "second"), fulfilled(1, "first"))
    assert script.value == [["first", 0], ["second", 1]]


def test_parallel_keeps_to_its_concurrency(engine: Engine) -> None:
    script = Script(engine, "return await parallel([1, 2, 3], (n) => callTool('t', { n }), { concurrency: 2 })")
    assert len(script.calls) == 2
    assert script.deliver(fulfilled(1, "x")) == [[1, 3, "t", {"n": 3}]]
    script.deliver(fulfilled(2, "y"), fulfilled(3, "z"))
    assert script.value == ["x", "y", "z"]


def test_parallel_fails_with_the_first_error_and_starts_nothing_more(engine: Engine) -> None:
    script = Script(engine, "return await parallel([1, 2, 3, 4], (n) => callTool('t', { n }), { concurrency: 2 })")
    script.deliver(rejected(1, code="X", message="no"))
    assert script.error["code"] == "X"
    script.deliver(fulfilled(2))
    assert (len(script.calls), script.ended) == (2, True)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("return await parallel([], () => 1)", []),
        ("return await parallel(new Set([1, 2]), (n) => n * 2)", [2, 4]),
        ("return await parallel('ab', (c) => c + c)", ["aa", "bb"]),
        ("return await parallel([1, 2], (n) => n, { concurrency: 1 })", [1, 2]),
    ],
)
def test_parallel_takes_what_can_be_iterated(engine: Engine, code: str, value: Any) -> None:
    assert value_of(engine, code) == value


@pytest.mark.parametrize(
    "code",
    ["parallel([1])", "parallel(5, () => 1)", "parallel([1], () => 1, { concurrency: 0 })", "parallel([1], 1)"],
)
def test_parallel_refuses_what_it_cannot_use(engine: Engine, code: str) -> None:
    assert run(engine, f"await {code}").error["name"] == "TypeError"


def test_sleep_is_a_timer_that_is_awaited(engine: Engine) -> None:
    script = Script(engine, "await sleep(1500.5); return Date.now()")
    assert script.effects == [[3, 1, 1500.5]]
    assert script.deliver(fired(1, NOW + 1501)) == [[5, NOW + 1501]]


def test_timers_pass_their_arguments_and_can_be_cleared(engine: Engine) -> None:
    code = """
        setTimeout((...args) => console.log(...args), 10, "a", 2);
        const gone = setTimeout(() => console.log("never"));
        clearTimeout(gone); clearTimeout(gone); clearTimeout(undefined); clearTimeout(99);
        await sleep(20)"""
    script = Script(engine, code)
    assert script.effects == [[3, 1, 10], [3, 2, 0], [4, 2], [3, 3, 20]]
    assert script.deliver(fired(2), fired(1)) == [[2, 0, "a 2"]]
    assert script.deliver(fired(3)) == [[5]]


def test_an_interval_is_set_again_under_a_new_id_until_it_is_cleared(engine: Engine) -> None:
    code = """
        let n = 0;
        const handle = setInterval(() => { console.log(++n); if (n === 3) clearInterval(handle) }, 10);
        await new Promise((resolve) => setTimeout(resolve, 100))"""
    script = Script(engine, code)
    assert script.effects == [[3, 1, 10], [3, 2, 100]]
    assert script.deliver(fired(1)) == [[3, 3, 10], [2, 0, "1"]]
    assert script.deliver(fired(3)) == [[3, 4, 10], [2, 0, "2"]]
    assert script.deliver(fired(4)) == [[3, 5, 10], [2, 0, "3"], [4, 5]]
    assert script.deliver(fired(5), fired(2)) == [[5]]


@pytest.mark.parametrize(
    ("delay", "ms"), [("-5", 0), ("NaN", 0), ("'7'", 7), ("Infinity", 2147483647), ("undefined", 0)]
)
def test_a_delay_is_brought_into_its_range(engine: Engine, delay: str, ms: float) -> None:
    assert run(engine, f"setTimeout(() => {{}}, {delay})").effects[0] == [3, 1, ms]


def test_a_timer_that_throws_is_reported_and_ends_nothing(engine: Engine) -> None:
    script = Script(engine, "setTimeout(() => { throw new Error('late') }); await sleep(5); return 1")
    assert script.deliver(fired(1)) == [[8, "Error: late"]]
    assert script.deliver(fired(2)) == [[5, 1]]


def test_the_clock_is_the_step_s_and_stands_still_within_it(engine: Engine) -> None:
    code = """
        const first = [Date.now(), +new Date(), performance.now(), performance.timeOrigin];
        await callTool("a");
        return [...first, Date.now(), performance.now(), new Date().toISOString()]"""
    script = Script(engine, code, now=1_000.0)
    script.deliver(fulfilled(1, now=2_500.75))
    assert script.value == [1000, 1000, 0, 1000, 2500, 1500.75, "1970-01-01T00:00:02.500Z"]


def test_times_are_utc(engine: Engine) -> None:
    code = "return [new Date(2020, 0, 1).getTime(), new Date(0).getTimezoneOffset(), String(new Date(0))]"
    assert value_of(engine, code) == [1577836800000, 0, "Thu Jan 01 1970 00:00:00 GMT+0000"]


def test_randomness_comes_from_the_seed(engine: Engine) -> None:
    code = "return [Math.random(), Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(20))]]"
    first = value_of(engine, code, seed=7)
    assert first == value_of(engine, code, seed=7)
    other = value_of(engine, code, seed=8)
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert all(0 <= number < 1 for number in first[:2])
    assert len(set(first[3])) > 10
    assert first[2][14] == "4"
    assert first[2][19] in "89ab"


def test_get_random_values_refuses_what_it_cannot_fill(engine: Engine) -> None:
    for given in ("new Float64Array(1)", "[1]", "{}", "new Uint8Array(65537)"):
        assert run(engine, f"crypto.getRandomValues({given})").error["message"].startswith("getRandomValues: ")
    assert value_of(engine, "const a = new Uint16Array(3); return crypto.getRandomValues(a) === a") is True


def test_structured_clone_copies_deeply(engine: Engine) -> None:
    code = """
        const source = {
            list: [1, { d: new Date(5) }], map: new Map([[1, new Set([2])]]), re: /x/gi,
            bytes: new Uint8Array([1, 2, 3]).subarray(1),
            error: new TypeError("q"), buffer: new ArrayBuffer(2), boxed: Object(1), big: 5n, undef: undefined,
        };
        source.self = source;
        const copy = structuredClone(source);
        return [
            copy !== source && copy.self === copy, copy.list[1].d instanceof Date && +copy.list[1].d,
            copy.map.get(1).has(2), String(copy.re), [...copy.bytes],
            copy.error instanceof TypeError && copy.error.message, copy.buffer.byteLength,
            typeof copy.boxed, copy.big === 5n, "undef" in copy, copy.list !== source.list,
        ]"""
    assert value_of(engine, code) == [True, 5, True, "/x/gi", [2, 3], "q", 2, "object", True, True, True]


@pytest.mark.parametrize("given", ["() => 1", "Symbol('s')", "{ a() {} }", "Promise.resolve()", "new WeakMap()"])
def test_structured_clone_refuses_what_has_no_copy(engine: Engine, given: str) -> None:
    assert run(engine, f"structuredClone({given})").error["name"] == "DataCloneError"


def test_text_is_encoded_and_decoded_as_utf_8(engine: Engine) -> None:
    assert value_of(engine, "return [...new TextEncoder().encode('é€😀\\ud800')]") == list("é€😀\ufffd".encode())
    assert value_of(engine, "return new TextDecoder().decode(new TextEncoder().encode('é€😀'))") == "é€😀"
    code = "const t = new Uint8Array(4); return [new TextEncoder().encodeInto('é€x', t), [...t]]"
    assert value_of(engine, code) == [{"read": 1, "written": 2}, [0xC3, 0xA9, 0, 0]]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"a\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x28\xa1",
        b"\xf0\x80",
    ],
)
def test_bytes_that_are_no_utf_8_are_replaced_as_python_does(engine: Engine, data: bytes) -> None:
    code = f"return new TextDecoder().decode(new Uint8Array({list(data)}))"
    assert value_of(engine, code) == data.decode("utf-8", "replace")
    fatal = f"new TextDecoder('utf-8', {{ fatal: true }}).decode(new Uint8Array({list(data)}))"
    assert run(engine, fatal).error["name"] == "TypeError"


def test_a_text_decoder_takes_a_stream_and_drops_one_byte_order_mark(engine: Engine) -> None:
    code = """
        const decoder = new TextDecoder(), out = [];
        for (const byte of [0xef, 0xbb, 0xbf, 0xf0, 0x9f, 0x98, 0x80, 0xef, 0xbb, 0xbf, 0xc3])
            out.push(decoder.decode(new Uint8Array([byte]), { stream: true }));
        out.push(decoder.decode());
        return out.join("")"""
    assert value_of(engine, code) == "😀\ufeff\ufffd"
    assert (
        value_of(engine, "return new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array([239, 187, 191]))")
        == "\ufeff"
    )
    assert run(engine, "new TextDecoder('latin1')").error["name"] == "RangeError"


def test_base64_works(engine: Engine) -> None:
    assert value_of(engine, "return [btoa('hi'), atob('aGk=')]") == ["aGk=", "hi"]


def test_what_would_show_more_than_the_script_s_inputs_is_not_there(engine: Engine) -> None:
    names = (
        "WeakRef FinalizationRegistry SharedArrayBuffer Atomics gc std os print require process fetch host scriptArgs"
    )
    code = f"return '{names}'.split(' ').filter((name) => name in globalThis)"
    assert value_of(engine, code) == []
    assert run(engine, "await import('std')").error["name"] == "ReferenceError"


def test_every_function_that_is_promised_is_there(engine: Engine) -> None:
    names = (
        "callTool parallel sleep setTimeout clearTimeout setInterval clearInterval structuredClone TextEncoder "
        "TextDecoder atob btoa queueMicrotask URIError DOMException URL URLSearchParams"
    )
    assert (
        value_of(engine, f"return '{names}'.split(' ').filter((name) => typeof globalThis[name] !== 'function')") == []
    )
