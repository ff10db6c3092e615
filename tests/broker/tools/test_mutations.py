"""A million names that look like a registered one, and aren't: no route takes them."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from enclave_broker.broker.tools.router import Router

MUTATIONS = 1_000_000
NAMES = ["users:delete", "Admin:wipe", "orders:get-by-id", "a.b/c@d_e:9", "__proto__", "fs:read:file"]
PATTERNS = ["db:*", "admin:{drop,users:*}", "v[0-9]:*:[a-f]?", "*:read", "*secret*", "[!a-z]x:*", "?1"]
FITTING = ["db:query", "admin:drop", "admin:users:x", "v1:any:ab", "files:read", "topsecret:x", "Xx:y", "b1"]

NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_.:/@-")


def look_alikes() -> dict[str, list[str]]:
    """For each character of a name those that some normal form, in some case, makes of it."""
    found: dict[str, list[str]] = {}
    for code in range(0x80, 0x20000):
        character = chr(code)
        plain = unicodedata.normalize("NFKC", character)
        for same in {plain, plain.lower(), plain.upper(), plain.casefold(), unicodedata.normalize("NFKD", plain)[:1]}:
            if len(same) == 1 and same in NAME_CHARACTERS:
                found.setdefault(same, []).append(character)
    return found


def hostile_characters() -> list[str]:
    blanks = [
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in {"Zs", "Zl", "Zp", "Cc", "Cf"}
    ]
    combining = [chr(code) for code in range(0x300, 0x370)]
    signs = [c for c in map(chr, range(0x21, 0x7F)) if c not in NAME_CHARACTERS]
    separators = [*"\u2024\u2025\u2044\u2215\u2236\u02d0\ua789\uff1a\uff0f\uff0e\ufe55\u2010\u2011\u2212\u00ad"]
    cyrillic = [*"асеорхуіѕԁһАВЕКМНОРСТХ"]  # noqa: RUF001 that is the point
    others = [
        "\ud800",
        "\udfff",
        "\ufffd",
        "\ufeff",
        "\U0001f511",
        "\U000e0061",
        "%00",
        "%3A",
        "\\x00",
        "\\u0000",
        "\r\n",
    ]
    return [*blanks, *combining, *signs, *separators, *cyrillic, *others]


def changed_once(name: str, alike: dict[str, list[str]], hostile: list[str]) -> Iterator[str]:
    """Each character replaced, followed and preceded by each hostile one, and by all that look like it."""
    for at in range(len(name) + 1):
        for character in hostile:
            yield name[:at] + character + name[at:]
            yield name[:at] + character + name[at + 1 :]
        for character in alike.get(name[at : at + 1], ()):
            yield name[:at] + character + name[at + 1 :]
            yield name[:at] + character * 2 + name[at + 1 :]


def one_change() -> Iterator[str]:
    alike, hostile = look_alikes(), hostile_characters()
    for name in [*NAMES, *FITTING]:
        yield from (unicodedata.normalize(form, name + "\u0301") for form in ("NFC", "NFD", "NFKC", "NFKD"))
        yield from changed_once(name, alike, hostile)


def other_names() -> Iterator[str]:
    """The characters are a name's; it is another name, or too long, or begins as none does."""
    for name in NAMES:
        yield from (name.upper(), name.swapcase(), name.title(), name[::-1], name * 30, name + ":", name + name)
        for at in range(len(name) + 1):
            yield from (
                name[:at],
                name[at:],
                name[:at] + name[at + 1 :],
                name[:at] + name[at : at + 1].swapcase() + name[at + 1 :],
            )
            for character in sorted(NAME_CHARACTERS):
                yield name[:at] + character + name[at:]
                yield name[:at] + character + name[at + 1 :]


def two_changes() -> Iterator[str]:
    """One in each half of a name, by chance."""
    chance, alike, hostile = Random(3), look_alikes(), hostile_characters()
    while True:
        for name in NAMES:
            half = len(name) // 2
            left, right = (list(changed_once(part, alike, hostile)) for part in (name[:half], name[half:]))
            right = chance.sample([*right, name[half:].upper(), name[half:].swapcase()], 300)
            yield from (start + end for start in chance.sample([*left, name[:half].swapcase()], 300) for end in right)


def is_meant(name: str) -> bool:
    """Whether a route takes it by right: said a second time, for these patterns only, and without any of our code."""
    if not 1 <= len(name) <= 256 or not NAME_CHARACTERS.issuperset(name) or name[0] in ".:/@-":
        return False
    return (
        name in NAMES
        or name.startswith(("db:", "admin:users:"))
        or name == "admin:drop"
        or name.endswith(":read")
        or "secret" in name
        or (len(name) >= 3 and name[1:3] == "x:" and not ("a" <= name[0] <= "z"))
        or (len(name) == 2 and name[1] == "1")
        or (name[0] == "v" and name[1:2].isdigit() and name[2:3] == ":" and is_meant_of_v(name[3:]))
    )


def is_meant_of_v(rest: str) -> bool:
    return len(rest) >= 3 and rest[-3] == ":" and "a" <= rest[-2] <= "f"


async def handler(name: str, args: dict[str, Any]) -> None: ...


def test_a_million_mutations_of_names_lead_to_no_route() -> None:
    router = Router()
    for pattern in [*NAMES, *PATTERNS]:
        router.register(pattern, handler)
    for name in [*NAMES, *FITTING]:
        assert router.match(name) is not None, name
        assert is_meant(name), name
    match = router.match
    asked = 0
    for mutations in (one_change(), other_names(), two_changes()):
        for name in islice(mutations, MUTATIONS - asked):
            asked += 1
            if match(name) is not None:
                assert is_meant(name), name
    assert asked == MUTATIONS


def test_what_a_name_may_become_is_still_found_where_a_pattern_means_it() -> None:
    router = Router()
    for pattern in [*NAMES, *PATTERNS]:
        router.register(pattern, handler)
    for name in islice(other_names(), 5_000):
        assert (router.match(name) is not None) == is_meant(name), name
