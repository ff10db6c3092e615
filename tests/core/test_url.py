from __future__ import annotations

import json

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import Script, run, value_of
from tests.core.urls import NOT_ASCII, URLS

PARTS = "origin protocol username password host hostname port pathname search hash"


@pytest.mark.parametrize(("text", "base", "href"), URLS)
def test_a_url_is_what_the_standard_says(engine: Engine, text: str, base: str | None, href: str | None) -> None:
    given = json.dumps([text] if base is None else [text, base])
    code = f"""
        const given = {given};
        let made = null;
        try {{ made = new URL(...given).href }} catch (error) {{ if (!(error instanceof TypeError)) throw error }}
        return [made, made && new URL(made).href, URL.parse(...given)?.href ?? null, URL.canParse(...given)]"""
    assert value_of(engine, code) == [href, href, href, href is not None]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "https://u:p@Abc.de:8443/a/b?c=d#e",
            ["https://abc.de:8443", "https:", "u", "p", "abc.de:8443", "abc.de", "8443", "/a/b", "?c=d", "#e"],
        ),
        ("http://a:80?#", ["http://a", "http:", "", "", "a", "a", "", "/", "", ""]),
        ("wss://[::1]:444/", ["wss://[::1]:444", "wss:", "", "", "[::1]:444", "[::1]", "444", "/", "", ""]),
        ("file://h/a", ["null", "file:", "", "", "h", "h", "", "/a", "", ""]),
        ("mailto:a@b?subject=c", ["null", "mailto:", "", "", "", "", "", "a@b", "?subject=c", ""]),
        ("a://h:80/b", ["null", "a:", "", "", "h:80", "h", "80", "/b", "", ""]),
        ("a:/.//b", ["null", "a:", "", "", "", "", "", "//b", "", ""]),
        ("a:", ["null", "a:", "", "", "", "", "", "", "", ""]),
    ],
)
def test_a_url_has_its_parts(engine: Engine, text: str, parts: list[str]) -> None:
    assert value_of(engine, f"const u = new URL('{text}'); return '{PARTS}'.split(' ').map((k) => u[k])") == parts


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("blob:https://a:443/b", "https://a"),
        ("blob:http://a:81/b", "http://a:81"),
        ("blob:ftp://a/b", "null"),
        ("blob:file:///b", "null"),
        ("blob:blob:https://a/", "null"),
        ("blob:b", "null"),
    ],
)
def test_a_blob_has_the_origin_of_its_path(engine: Engine, text: str, origin: str) -> None:
    assert value_of(engine, f"return new URL('{text}').origin") == origin


@pytest.mark.parametrize(
    ("text", "name", "value", "href"),
    [
        ("http://a/b", "href", "https://c/d?e#f", "https://c/d?e#f"),
        ("http://a/", "protocol", "https", "https://a/"),
        ("http://a/", "protocol", "WSS://x", "wss://a/"),
        ("http://a:443/", "protocol", "https:", "https://a/"),
        ("http://a/", "protocol", "foo", "http://a/"),
        ("foo://a/", "protocol", "http", "foo://a/"),
        ("foo://a/", "protocol", "b\na\tr", "bar://a/"),
        ("http://a/", "protocol", "", "http://a/"),
        ("http://a/", "protocol", "1x", "http://a/"),
        ("http://u@a/", "protocol", "file", "http://u@a/"),
        ("http://a:81/", "protocol", "file", "http://a:81/"),
        ("http://a/", "protocol", "file", "file://a/"),
        ("file:///a", "protocol", "http", "file:///a"),
        ("http://a/", "username", "u:é", "http://u%3A%C3%A9@a/"),
        ("http://u@a/", "username", "", "http://a/"),
        ("file://h/", "username", "u", "file://h/"),
        ("mailto:x", "username", "u", "mailto:x"),
        ("a:///b", "username", "u", "a:///b"),
        ("http://a/", "password", "p@\t", "http://:p%40%09@a/"),
        ("http://u:p@a/", "password", "", "http://u@a/"),
        ("file://h/", "password", "p", "file://h/"),
        ("http://a/", "host", "B.c:81", "http://b.c:81/"),
        ("http://a:81/", "host", "b", "http://b:81/"),
        ("http://a:81/", "host", "b:80", "http://b/"),
        ("http://a:81/", "host", "b:", "http://b:81/"),
        ("http://a/", "host", "b:82x", "http://b:82/"),
        ("http://a/", "host", "b:x", "http://b/"),
        ("http://a/", "host", "b:65536", "http://b/"),
        ("http://a/", "host", "b/c?d#e", "http://b/"),
        ("http://a/", "host", "b\\c", "http://b/"),
        ("http://a/", "host", "[::1]:81", "http://[::1]:81/"),
        ("http://a/", "host", "[::1", "http://a/"),
        ("http://a/", "host", "b c", "http://a/"),
        ("http://a/", "host", "", "http://a/"),
        ("http://a/", "host", ":81", "http://a/"),
        ("http://a/", "host", "u@b", "http://a/"),
        ("http://a/", "host", "0x7f.1", "http://127.0.0.1/"),
        ("http://a/", "host", "münchen.de", "http://a/"),
        ("foo://a/", "host", "", "foo:///"),
        ("foo://u@a/", "host", "", "foo://u@a/"),
        ("foo:/a", "host", "b", "foo://b/a"),
        ("mailto:a", "host", "b", "mailto:a"),
        ("file://h/a", "host", "", "file:///a"),
        ("file:///a", "host", "localhost", "file:///a"),
        ("file:///a", "host", "h:80", "file:///a"),
        ("http://a:81/", "hostname", "b", "http://b:81/"),
        ("http://a:81/", "hostname", "b:82", "http://a:81/"),
        ("http://a/", "hostname", "[1::]", "http://[1::]/"),
        ("http://a/", "port", "8080", "http://a:8080/"),
        ("http://a:81/", "port", "80", "http://a/"),
        ("http://a:81/", "port", "", "http://a/"),
        ("http://a/", "port", "82x9", "http://a:82/"),
        ("http://a:81/", "port", "x", "http://a:81/"),
        ("http://a:81/", "port", "65536", "http://a:81/"),
        ("http://a/", "port", "\t8\n2", "http://a:82/"),
        ("file://h/", "port", "1", "file://h/"),
        ("http://a/b", "pathname", "c d?#/../é", "http://a/%C3%A9"),
        ("http://a/b", "pathname", "?#", "http://a/%3F%23"),
        ("http://a/b", "pathname", "", "http://a/"),
        ("http://a/b", "pathname", "\\c", "http://a/c"),
        ("a://b/c", "pathname", "", "a://b"),
        ("a:/c", "pathname", "", "a:/"),
        ("a:/c", "pathname", "//d", "a:/.//d"),
        ("mailto:a", "pathname", "b", "mailto:a"),
        ("file:///C:/a", "pathname", "D|/../x", "file:///D:/x"),
        ("http://a/?b", "search", "c=d e'#", "http://a/?c=d%20e%27%23"),
        ("http://a/?b", "search", "?", "http://a/?"),
        ("http://a/?b", "search", "??c", "http://a/??c"),
        ("http://a/?b#c", "search", "", "http://a/#c"),
        ("a:b", "search", "c'", "a:b?c'"),
        ("http://a/#b", "hash", "c `#", "http://a/#c%20%60#"),
        ("http://a/#b", "hash", "#", "http://a/#"),
        ("http://a/#b", "hash", "", "http://a/"),
        ("mailto:a", "hash", "b", "mailto:a#b"),
    ],
)
def test_a_part_is_set_where_the_value_fits(engine: Engine, text: str, name: str, value: str, href: str) -> None:
    code = f"const url = new URL({json.dumps(text)}); url.{name} = {json.dumps(value)}; return url.href"
    assert value_of(engine, code) == href


def test_an_href_that_is_no_url_is_an_error_and_changes_nothing(engine: Engine) -> None:
    code = "const url = new URL('http://a/'); try { url.href = 'b' } catch (e) { return [e.name, url.href] }"
    assert value_of(engine, code) == ["TypeError", "http://a/"]


def test_origin_and_search_params_cannot_be_set(engine: Engine) -> None:
    code = "const u = new URL('http://a/?b=1'); u.origin = 'http://c'; u.searchParams = 'd'; return u"
    assert value_of(engine, code) == "http://a/?b=1"
    assert run(engine, "'use strict'; new URL('http://a/').origin = 1").error["name"] == "TypeError"


def test_the_parameters_and_the_url_are_one(engine: Engine) -> None:
    code = """
        const url = new URL("http://a/?x=1&y=a%20b#h"), params = url.searchParams, seen = [];
        params.append("z", "é&"); seen.push(url.href);
        params.delete("x"); seen.push(url.search);
        url.search = "?p=2"; seen.push(`${params}`);
        params.set("p", "3"); url.pathname = "/q"; seen.push(`${url}`);
        url.href = "http://b/?k=v"; seen.push(params.get("k"), url.searchParams === params);
        params.sort(); params.delete("k"); seen.push(url.toJSON(), url.search);
        return seen"""
    assert value_of(engine, code) == [
        "http://a/?x=1&y=a+b&z=%C3%A9%26#h",
        "?y=a+b&z=%C3%A9%26",
        "p=2",
        "http://a/q?p=3#h",
        "v",
        True,
        "http://b/",
        "",
    ]


def test_a_query_stays_as_it_is_written_until_its_parameters_change(engine: Engine) -> None:
    code = """
        const url = new URL("http://a/??a=~%20'"), before = [url.searchParams.get("?a"), url.href];
        url.searchParams.append("b", "");
        return [...before, url.href]"""
    assert value_of(engine, code) == ["~ '", "http://a/??a=~%20%27", "http://a/?%3Fa=%7E+%27&b="]


@pytest.mark.parametrize("text", NOT_ASCII)
def test_a_host_that_is_not_ascii_is_refused_and_the_way_out_is_told(engine: Engine, text: str) -> None:
    error = run(engine, f"new URL({json.dumps(text)})").error
    assert error["name"] == "TypeError"
    assert "its host has characters that aren't ASCII: give it in Punycode (xn--…)" in error["message"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("new URL('a/b')", "Invalid URL: a/b (it is relative, and there is no base)"),
        ("new URL('a', 'mailto:x')", "Invalid URL: a (it is relative, and only a fragment can be to its base)"),
        ("new URL('a', 'b')", "Invalid base URL: b (it is relative, and there is no base)"),
        ("new URL('http://')", "Invalid URL: http:// (it has no host)"),
        ("new URL('http://a:99999')", "Invalid URL: http://a:99999 (its port is no number up to 65535)"),
        ("new URL('http://a b')", "Invalid URL: http://a b (its host has a character that no host may have)"),
        ("new URL('http://1.2.3.4.5')", "Invalid URL: http://1.2.3.4.5 (its IPv4 address has more than four parts)"),
        ("new URL('http://[1]')", "Invalid URL: http://[1] (its IPv6 address isn't one)"),
        ("new URL('http://[1')", "Invalid URL: http://[1 (its host has a [ without ])"),
        ("new URL('x'.repeat(1e6))", f"Invalid URL: {'x' * 200}… (it is relative, and there is no base)"),
        ("new URL()", "URL: not enough arguments (0 of 1)"),
        ("URL.canParse()", "URL.canParse: not enough arguments (0 of 1)"),
        ("URL.parse()", "URL.parse: not enough arguments (0 of 1)"),
    ],
)
def test_an_error_says_what_is_wrong_and_where_it_was_made(engine: Engine, code: str, message: str) -> None:
    error = run(engine, f"\n  {code}").error
    assert (error["name"], error["message"], error["line"]) == ("TypeError", message, 2)


def test_an_error_of_a_value_s_own_conversion_is_the_script_s(engine: Engine) -> None:
    code = """
        const bad = { toString() { throw "mine" } }, seen = [], url = new URL("http://a/");
        for (const work of [() => new URL(bad), () => new URL("a", bad), () => URL.canParse(bad),
                            () => URL.parse("a:b", bad), () => { url.host = bad }, () => { url.href = bad }])
            try { seen.push(work()) } catch (error) { seen.push(error) }
        return seen"""
    assert value_of(engine, code) == ["mine"] * 6


def test_the_class_is_one_like_a_browser_s(engine: Engine) -> None:
    code = """
        class Own extends URL { get twice() { return this.host + this.host } }
        const own = new Own({ toString: () => "http://a" }), keys = [];
        for (const key in own) keys.push(key);
        return [own.twice, own instanceof URL, Object.prototype.toString.call(own), typeof own.href, keys.join(" "),
                URL.length, URL.name, Object.keys(URL), Object.keys(globalThis).includes("URL"),
                new URL("http://a/") + "", URL.parse("b", "http://a/") instanceof URL]"""
    names = "twice href origin protocol username password host hostname port pathname search searchParams hash"
    assert value_of(engine, code) == [
        *("aa", True, "[object URL]", "string", f"{names.removeprefix('twice ')} toString toJSON", 1, "URL"),
        *(["canParse", "parse"], False, "http://a/", True),
    ]


@pytest.mark.parametrize(
    "code",
    ["URL('http://a')", "URL.prototype.href", "URL.prototype.toString.call({})", "new URL(Symbol())", "URL.call({})"],
)
def test_it_cannot_be_used_as_what_it_is_not(engine: Engine, code: str) -> None:
    assert run(engine, code).error["name"] == "TypeError"


def test_a_url_leaves_the_engine_and_is_shown_as_its_text(engine: Engine) -> None:
    code = """
        const url = Object.assign(new URL("http://a/?b=c"), { note: 1 }), plain = new URL("its:'");
        console.log(url, [url.searchParams], { plain });
        tools.t({ url, params: url.searchParams });
        console.log(JSON.stringify([url, url.searchParams]));
        return [url, url.searchParams, new Map([["k", plain]])]"""
    script = Script(engine, code)
    shown = "URL { 'http://a/?b=c', note: 1 } [ URLSearchParams { 'b=c' } ] { plain: URL { 'its:\\'' } }"
    assert script.output == [shown, '["http://a/?b=c",{}]']
    assert script.calls == [("t", {"url": "http://a/?b=c", "params": "b=c"})]
    assert script.value == ["http://a/?b=c", "b=c", {"k": "its:'"}]


@pytest.mark.parametrize("given", ["new URL('a:b')", "[new URLSearchParams()]"])
def test_it_has_no_structured_clone(engine: Engine, given: str) -> None:
    assert run(engine, f"structuredClone({given})").error["name"] == "DataCloneError"
