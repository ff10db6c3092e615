from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.tools.globs import compile_glob, compile_globs
from enclave_broker.types.errors import ConfigurationError

# --- The language, a second time: by trying everything ---------------------------------------------------------------


def spellings(pattern: str) -> Iterator[str]:
    """The pattern with each of its outermost braces replaced by each of its choices."""
    depth, start, choices = 0, -1, list[str]()
    at = piece = 0
    while at < len(pattern):
        match pattern[at]:
            case "\\":
                at += 1
            case "[" if depth == 0:
                at = pattern.index("]", at)
            case "{":
                depth += 1
                if depth == 1:
                    start, piece = at, at + 1
            case "," if depth == 1:
                choices.append(pattern[piece:at])
                piece = at + 1
            case "}":
                depth -= 1
                if depth == 0:
                    choices.append(pattern[piece:at])
                    for choice in choices:
                        yield from spellings(pattern[:start] + choice + pattern[at + 1 :])
                    return
            case _:
                pass
        at += 1
    yield pattern


def fits(pattern: str, name: str) -> bool:
    """A pattern without braces, by trying every length of every star."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(fits(pattern[1:], name[taken:]) for taken in range(len(name) + 1))
    if not name:
        return False
    if pattern[0] == "?":
        return fits(pattern[1:], name[1:])
    if pattern[0] == "\\":
        return pattern[1] == name[0] and fits(pattern[2:], name[1:])
    if pattern[0] == "[":
        end = pattern.index("]")
        inside = pattern[1:end]
        negated = inside.startswith("!")
        inside = inside[negated:]
        chars = set[str]()
        while inside:
            if len(inside) > 2 and inside[1] == "-":
                chars |= {chr(code) for code in range(ord(inside[0]), ord(inside[2]) + 1)}
                inside = inside[3:]
            else:
                chars.add(inside[0])
                inside = inside[1:]
        return ((name[0] in chars) != negated) and fits(pattern[end + 1 :], name[1:])
    return pattern[0] == name[0] and fits(pattern[1:], name[1:])


LETTERS = "ab:-"
pieces = st.one_of(
    st.sampled_from(
        ["*", "**", "?", "a", "b", ":", "A", "\\a", "\\*", "[ab]", "[!a]", "[a-c]", "[!a-b:]", "[-a]", "[a-]"]
    )
)


def in_braces(before: str, choices: list[str], after: str) -> str:
    return f"{before}{{{','.join(choices)}}}{after}"


def with_braces(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(in_braces, inner, st.lists(inner, min_size=1, max_size=3).filter(any), inner)


sequences = st.recursive(st.lists(pieces, max_size=4).map("".join), with_braces, max_leaves=6).filter(
    lambda pattern: pattern[:1] not in {"", ":"}  # no name begins with a colon
)


@given(sequences, st.text(LETTERS + "Ac*\n", max_size=6))
def test_a_pattern_fits_what_trying_everything_finds(pattern: str, name: str) -> None:
    spelled = list(spellings(pattern))
    if not any(spelled):
        with pytest.raises(ConfigurationError):
            compile_glob(pattern)
        return
    assert compile_glob(pattern).matches(name) == any(fits(each, name) for each in spelled)


@given(
    st.lists(st.sampled_from(["*", "*a", "*b", "?", "[!a]", "a", "b"]), min_size=1, max_size=7),
    st.text("ab", max_size=8),
)
def test_many_stars_fit_what_trying_everything_finds(pattern: list[str], name: str) -> None:
    assert compile_glob("".join(pattern)).matches(name) == fits("".join(pattern), name)


@given(sequences.filter(lambda pattern: any(spellings(pattern))), st.text(LETTERS, max_size=6))
def test_a_name_that_fits_begins_with_the_literal_prefix(pattern: str, name: str) -> None:
    glob = compile_glob(pattern)
    assert not glob.matches(name) or name.startswith(glob.literal_prefix)
    assert not glob.exact or glob.matches(glob.literal_prefix)


@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_a_configuration_error(pattern: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert compile_glob(pattern).matches("orders:get") in {True, False}


# --- By example ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("db:*", ["db:", "db:query", "db:admin:drop", "db:a/b"], ["db", "xdb:query", "DB:query", "api:x"]),
        ("user:*:read", ["user:profile:read", "user::read", "user:a:b:read"], ["user:read", "user:profile:reads"]),
        ("*", ["a", "a:b/c", "two\nlines"], []),
        ("orders:{get,list*}", ["orders:get", "orders:list", "orders:listAll"], ["orders:gets", "orders:put"]),
        ("orders{,:archive}", ["orders", "orders:archive"], ["orders:"]),
        ("{a,b{c,d}}:x", ["a:x", "bc:x", "bd:x"], ["b:x", "ac:x"]),
        ("v[0-9]:?", ["v1:a"], ["va:a", "v1:", "v1:ab"]),
        ("[!x]:get", ["a:get", "é:get"], ["x:get", ":get"]),
        ("a\\*b", ["a*b"], ["axb", "ab"]),
        ("a[b-]c", ["abc", "a-c"], ["aac"]),
        ("users:get", ["users:get"], ["users:get\n", "users:Get", "users:get ", "Users:get", "users:g\u0435t"]),
        ("*a*b", ["ab", "xaxb", "aab", "abab"], ["ba", "abx"]),
        ("*a*b*", ["ab", "aba", "abba", "xaxbxax"], ["ba", "bba"]),
        ("a*ab", ["aab", "axab"], ["ab", "aabx"]),
    ],
)
def test_the_language_by_example(pattern: str, fitting: list[str], other: list[str]) -> None:
    glob = compile_glob(pattern)
    assert [name for name in fitting if not glob.matches(name)] == []
    assert [name for name in other if glob.matches(name)] == []


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "empty"),
        ("!admin:*", "negation"),
        ("#comment", "comment"),
        ("a#b", "comment"),
        ("+(a|b)", "{a,b}"),
        ("@(a)", "{a,b}"),
        ("?(a)", "{a,b}"),
        ("admin:[", "[ without ]"),
        ("admin:]", "without what opens it"),
        ("admin:{a,b", "{ without }"),
        ("a}", "without what opens it"),
        ("a,b", "without what opens it"),
        ("[]", "empty brackets"),
        ("[!]", "empty brackets"),
        ("[^a]", "[!a]"),
        ("[z-a]", "wrong way round"),
        ("{}", "empty braces"),
        ("{,}", "fits no name"),
        ("a b", "can't be in a name"),
        (" a", "can't be in a name"),
        ("a\n", "can't be in a name"),
        ("ünter:*", "can't be in a name"),
        ("a\\", "needs a character"),
        ("a\\\x00", "needs a character"),
        ("a" * 1025, "1024"),
        ("db{1..3}:*", "{1..3} is no range here: write {1,2,3} or [1-3]"),
        ("{x,{a..c}}", "no range here"),
        (".a", "none begins with ."),
        (":*", "none begins with :"),
        ("{a,b}" * 13, "too many patterns"),
        ("{" * 40, "nested too deep"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compile_glob(pattern)
    assert reason in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("pattern", [None, 5, ["a"], b"a"])
def test_a_pattern_that_is_no_string_is_refused(pattern: object) -> None:
    with pytest.raises(ConfigurationError, match="a string"):
        compile_glob(pattern)  # pyright: ignore[reportArgumentType] what untyped code may do


@pytest.mark.parametrize(
    ("pattern", "prefix", "exact"),
    [("db:*", "db:", False), ("db:get", "db:get", True), ("db:{a,b}", "db:", False), ("d\\*b:?", "d*b:", False)],
)
def test_the_literal_prefix_ends_at_the_first_special_character(pattern: str, prefix: str, exact: bool) -> None:
    glob = compile_glob(pattern)
    assert (glob.literal_prefix, glob.exact) == (prefix, exact)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "pattern",
    ["*a" * 511 + "b", "{a,*aa}" * 6 + "b", "*" + "?" * 500 + "b*", "{" + ",".join(["*a*a*a*a*ab"] * 60) + "}"],
)
def test_a_hostile_pattern_and_name_are_done_at_once(pattern: str) -> None:
    # Backtracking would take longer than the universe has.
    glob = compile_glob(pattern)
    assert not any(glob.matches("a" * length) for length in range(200, 256))


HOSTILE_LISTS = [
    [f"{{a,b}}{{c,d}}{{e,f}}{{g,h}}{{i,j}}{{k,l}}{{m,n}}{{o,p}}{{q,r}}*x{at}" for at in range(1_000)],
    ["*" + "a*" * 400] * 3,
    [f"*a?{at}" for at in range(1_000)],
    [f"*{'a*' * 20}{at}" for at in range(40)],
    ["[" + "a-z" * 300 + "]x"] * 4,
    ["{" + ",".join(f"*{at}a*" for at in range(200)) + "}"],
    ["x" * 1_000] * 1_000,
]


@pytest.mark.parametrize("patterns", HOSTILE_LISTS)
def test_a_list_that_is_much_work_as_a_whole_is_refused(patterns: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"more than|are the most"):
        compile_globs(patterns)


def test_a_list_of_many_names_and_a_few_patterns_is_taken() -> None:
    names = [f"{'x' * 240}:{at}" for at in range(1_000)]
    beginnings = [f"orders{at}:*" for at in range(1_000)]
    others = [f"*:{{get,list}}{at}?" for at in range(40)]
    globs = compile_globs([*names, *beginnings, *others])
    assert globs is not None
    fitting = ["orders7:a", "a:list39b", "a:get0b", *names]
    assert [name for name in fitting if not any(glob.matches(name) for glob in globs)] == []
    others = ["orders7", "a:list3", "a:list40b", names[0][1:], names[0] + "0"]
    assert [name for name in others if any(glob.matches(name) for glob in globs)] == []


@given(st.lists(sequences.filter(lambda pattern: any(spellings(pattern))), max_size=12), st.text(LETTERS, max_size=6))
def test_a_list_fits_what_one_of_its_patterns_fits(patterns: list[str], name: str) -> None:
    globs = compile_globs(patterns)
    assert globs is not None
    assert any(glob.matches(name) for glob in globs) == any(compile_glob(each).matches(name) for each in patterns)


@given(sequences.filter(lambda pattern: any(spellings(pattern))))
def test_the_example_of_a_pattern_fits_it(pattern: str) -> None:
    glob = compile_glob(pattern)
    assert glob.matches(glob.example)


def test_a_pattern_of_the_hosts_own_may_be_larger_than_a_list() -> None:
    pattern = f"{{{','.join(f'*{at}a*' for at in range(100, 240))}}}{{,:x}}"
    assert compile_glob(pattern).matches("x239ax")
    with pytest.raises(ConfigurationError, match="1,024 characters together"):
        compile_globs([pattern])


def test_globs_of_one_pattern_are_equal_and_show_it() -> None:
    assert compile_glob("a:*") == compile_glob("a:*") != compile_glob("a:?")
    assert str(compile_glob("a:*")) == "a:*"
