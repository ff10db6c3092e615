from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.calls import access_yaml
from enclave_broker.broker.calls.access import AccessController
from enclave_broker.broker.calls.access_yaml import LineError, read_yaml
from enclave_broker.types.errors import ConfigurationError

POLICY = """\
# Who may do what.
default_policy: deny
rules:
  - pattern: public:*
    allow: true
  - pattern: "*:drop"
    allow: false
    unless: {role: [dba, root]}
    reason: only who looks after the database

  - allow: ask
    pattern: refunds:create
    when:
      amount:
        le: 1e3
      order.country: {in: ["NO", CH]}
      since: 2024-01-01
    approvers:
      role: supervisor
    expires_in: 14400
"""


@pytest.fixture(autouse=True)
def beside_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str | bytes) -> AccessController:
    data = text.encode() if isinstance(text, str) else text
    Path("policy.yaml").write_bytes(data)
    return AccessController.from_file("policy.yaml")


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    return str(caught.value)


# --- What a file says ------------------------------------------------------------------------------------------------


def test_rules_come_from_yaml_in_its_order_with_their_lines() -> None:
    access = load(POLICY)
    assert [(rule.pattern, rule.allow, rule.where) for rule in access.rules] == [
        ("public:*", True, "policy.yaml:4"),
        ("*:drop", False, "policy.yaml:6"),
        ("refunds:create", "ask", "policy.yaml:11"),
    ]
    assert access.check("public:drop") is True
    decision = access.explain("db:drop", {"role": "user"})
    assert (decision.verdict, decision.reason) == ("deny", "only who looks after the database")
    assert decision.where == "policy.yaml:6"
    assert access.check("db:drop", {"role": frozenset({"user", "root"})}) is True

    order: dict[str, Any] = {"amount": 999.5, "order": {"country": "NO"}, "since": "2024-01-01"}
    asked = access.explain("refunds:create", {}, order)
    assert (asked.verdict, asked.where) == ("ask", "policy.yaml:11")
    assert asked.rule is not None
    assert asked.rule.expires_in == 14400.0
    assert asked.rule.may_approve({"role": ["supervisor"]})
    unmet = access.explain("refunds:create", {}, {**order, "amount": 1001})
    assert (unmet.verdict, unmet.rule, unmet.where) == ("deny", None, "policy.yaml:2")


def test_a_policy_without_a_default_denies_and_may_have_no_rules() -> None:
    access = load("rules: []\n")
    assert (access.default_policy, access.rules) == ("deny", ())
    assert load('{"default_policy": "allow", "rules": []}').check("a") is True


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("1.5", 1.5), ("1e3", 1000.0), ("1E-2", 0.01), ("true", True), ("False", False),
        ("TRUE", True), ("null", None), ("~", None), ("x", "x"), ("'5'", "5"), ('"true"', "true"), ("NOPE", "NOPE"),
        ("2024-01-01", "2024-01-01"), ("tRuE", "tRuE"), ("'no'", "no"), ("1.2.3", "1.2.3"),
        ("a: [1, x]", {"a": [1, "x"]}), ("on: 1", {"on": 1}),
        ("1: 2", {"1": 2}), ("|\n  a\n  b\n", "a\nb\n"), ("", None),
    ],
)  # fmt: skip
def test_a_scalar_is_what_json_would_make_of_it_or_a_string(written: str, meant: Any) -> None:
    value = read_yaml(written.encode()).plain()
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.parametrize(
    "written",
    ["no", "Yes", "on", "OFF", "0x1F", "017", "1_000",
     "12:30", "1:30:00", ".inf", "-.Inf", ".nan", "+5", "1.", ".5", "1e999", "9" * 101, "<<", "="],
)  # fmt: skip
def test_a_scalar_that_yaml_and_json_read_differently_is_refused(written: str) -> None:
    with pytest.raises(LineError, match="may mean several things") as caught:
        read_yaml(f"a: 1\nb: {written}\n".encode())
    assert caught.value.line == 2


# --- What is wrong with it, and where --------------------------------------------------------------------------------

RULE = "rules:\n  - pattern: a:*\n    allow: true\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: a policy has default_policy, rules, each with a : behind its name"),
        ("- a", "1: a policy has default_policy, rules"),
        ("default_policy: deny", "1: a policy needs rules; rules is missing"),
        ("rules:\n", "1: rules is empty"),
        ("default_policy: allow\nrules: {a: b}", "2: rules is a list"),
        ("rules: []\ndefault_policy: ask", "2: default_policy is deny or allow, not 'ask'"),
        ("rules: []\ndefault-policy: deny", "2: unknown key 'default-policy'; did you mean default_policy?"),
        ("rules:\n  - a:*\n", "2: a rule has pattern, allow, unless, "),
        ("rules:\n\n  - pattern: a\n", "3: a rule needs pattern and allow; allow is missing"),
        (RULE + "    unles: {role: x}\n", "4: unknown key 'unles'; did you mean unless?"),
        (RULE + "    effect: x\n", "4: unknown key 'effect'; a rule has pattern, allow, unless, when, "),
        (RULE + "    unless:\n", "4: unless is empty; write its value, or leave it out"),
        (RULE + "    allow: false\n", "4: 'allow' stands twice, first in line 3"),
        (RULE + "    when: {n: 1, n: 2}\n", "4: 'n' stands twice, first in line 4"),
        (RULE + "    unless: admin\n", "4: rule 'a:*': unless is an object or a function, not 'admin'"),
        (RULE + "    when:\n      n:\n        le: 5\n        lte: 5\n",
         "7: rule 'a:*': when.n: unknown word 'lte'; did you mean le"),
        (RULE + "    when:\n      n:\n        le: [5]\n", "6: rule 'a:*': when.n.le: a number or a string, not [5]"),
        (RULE + "    when:\n      n: 1\n      m: {pattern: (}\n", "6: rule 'a:*': when.m.pattern: RE2 doesn't know"),
        (RULE + "    unless:\n      x: 1\n      role: []\n", "6: rule 'a:*': unless.role is an empty list"),
        (RULE + "    approvers: {role: x}\n", "4: rule 'a:*': approvers are asked only where allow is ask"),
        ("rules:\n- pattern: a b\n  allow: true", "2: rule 'a b': the pattern 'a b': ' ' can't be in a name"),
        ("rules:\n- allow: deny\n  pattern: a", "2: rule 'a': allow is true, false or ask, not 'deny'"),
        ("rules:\n- pattern: a\n  allow: yes", "3: 'yes' may mean several things"),
        ("rules:\n- pattern: a\n  allow: ask\n  expires_in: 4h", "4: rule 'a': expires_in must be seconds"),
        ("rules:\n- pattern: 5\n  allow: true", "2: pattern is a string; one that begins with {, [, ! or * stands in"),
        ("rules:\n- allow: true\n  pattern: {a,b}", "3: pattern is a string; one that begins with {"),
        ("rules:\n- allow: true\n  pattern: [ab]*", "3: "),
        ("rules:\n- allow: true\n  pattern: *:read", "3: "),
        ("rules:\n- allow: true\n  pattern: *read", "3: *read is an alias; write it out, or in quotes"),
        ("a: &a 1\nrules: *a", "2: *a is an alias"),
        ("rules: []\na: &a [&b [x, x], *b]", "2: *b is an alias"),
        ("rules: []\n? [a]\n: 1", "2: the name of a value is plain text"),
        ("rules: []\n<<: {a: 1}", "2: unknown key '<<'"),
        ("rules: []\ndefault_policy: !!str deny", "2: the tag 'tag:yaml.org,2002:str'; a policy has none"),
        ("rules: !!python/object/apply:os.system [x]", "1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("rules: []\n---\nrules: []", "2: a second document"),
        ("rules: [\n", "1: "),
        ("rules: []\n\tdefault_policy: deny", "2: "),
        ("rules: []\ndefault_policy: 'deny", "2: "),
        (b"rules: []\n# \xff", "2: it isn't UTF-8"),
        (b"rules: []\n\n# \x07", "3: the character '\\x07' can't be in YAML"),
        ("rules:\n" + "- " * 1_000, "2: lists and objects are nested too deep"),
        ("rules:\n" + "[" * 100_000, "2: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_what_is_wrong_is_said_with_file_and_line(
    text: str | bytes, message: str, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loader == "python":
        monkeypatch.setattr(access_yaml, "_LOADER", yaml.SafeLoader)
    assert refusal(text).startswith(f"policy.yaml:{message}")


@pytest.mark.parametrize("pattern", ["*:read", "{a,b}:*", "{a,b}:x", "[ab]:x"])
def test_a_pattern_that_yaml_takes_for_something_else_is_said_to_need_quotes(pattern: str) -> None:
    assert "stands in quotes" in refusal(f"rules:\n- allow: true\n  pattern: {pattern}")
    assert "stands in quotes" in refusal(f"rules:\n- {{pattern: {pattern}, allow: true}}")
    assert "stands in quotes" not in refusal("rules:\n- {pattern: a, allow: true")


def test_a_file_that_can_not_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^missing\.yaml: No such file or directory$"):
        AccessController.from_file("missing.yaml")
    Path("folder.yaml").mkdir()
    with pytest.raises(ConfigurationError, match=r"^folder\.yaml: Is a directory$"):
        AccessController.from_file(Path("folder.yaml"))


def test_a_file_of_any_size_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("large.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match=r"^large\.yaml: a policy has at most 16 MiB$"):
        AccessController.from_file("large.yaml")


pieces = st.sampled_from(
    ["rules", ":", " ", "\n", "  ", "- ", "pattern", "allow", "when", "unless", "true", "ask", "a:*", "{", "}", "[",
     "]", ",", "*", "&a", "!", "'", '"', "|", "#", "?", "5", "null", "\t", "default_policy", "le",
     "\u2028", "\ufeff", "%", "@"]
)  # fmt: skip


@given(st.lists(pieces, max_size=25).map("".join) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_whatever_a_file_holds_it_is_a_policy_or_a_line_is_said(text: str) -> None:
    try:
        load(text)
    except ConfigurationError as error:
        line = int(str(error).split(":")[1])
        assert 1 <= line <= len(text.splitlines()) + 1


@given(st.integers(0, len(POLICY)), pieces, st.integers(0, 8))
def test_a_policy_with_a_slip_is_a_policy_or_a_line_is_said(place: int, piece: str, gone: int) -> None:
    test = POLICY[:place] + piece + POLICY[place + gone :]
    try:
        load(test)
    except ConfigurationError as error:
        line = int(str(error).split(":")[1])
        assert 1 <= line <= test.count("\n") + 2


# --- Loading it again ------------------------------------------------------------------------------------------------

ALLOW = "rules:\n- {pattern: a, allow: true}\n"
DENY = "rules:\n- {pattern: a, allow: false, reason: no more}\n"
BROKEN = "rules:\n- {pattern: a, allow: true}\n- {pattern: a}\n"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def replace(text: str) -> None:
    """In one step, as an editor or a deployment should."""
    Path("new.yaml").write_text(text, encoding="utf-8")
    Path("new.yaml").replace("policy.yaml")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> AccessController:
    replace(ALLOW)
    return AccessController.from_file("policy.yaml", reload=True, clock=clock)


def test_a_changed_file_takes_the_place_of_all_rules_a_second_later_at_most(
    access: AccessController, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    replace(DENY)
    clock.now += 0.9
    assert access.check("a") is True
    clock.now += 0.1
    with caplog.at_level(logging.INFO, "enclave_broker.access"):
        assert access.check("a") is False
    assert caplog.messages == ["policy.yaml is loaded again: 1 rules"]
    assert access.explain("a").reason == "no more"
    Path("policy.yaml").write_text(ALLOW, encoding="utf-8")
    clock.now += 1
    decision = access.decide_name("a", {})
    assert decision is not None
    assert decision.verdict == "allow"
    clock.now += 1
    assert access.check("a") is True
    replace(DENY)
    clock.now += 0.9
    assert access.check("a") is True


def test_a_file_of_the_same_length_and_time_but_another_is_noticed(access: AccessController, clock: Clock) -> None:
    before = Path("policy.yaml").stat()
    Path("new.yaml").write_text(ALLOW.replace("true", "ask "), encoding="utf-8")
    os.utime("new.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
    Path("new.yaml").replace("policy.yaml")
    clock.now += 1
    assert access.explain("a").verdict == "ask"


def test_a_file_is_not_looked_at_again_unless_that_was_asked_for(clock: Clock) -> None:
    replace(ALLOW)
    access = AccessController.from_file("policy.yaml", clock=clock)
    replace(DENY)
    clock.now += 1000
    assert access.check("a") is True


def test_a_broken_file_keeps_the_rules_and_is_logged_once_with_its_line(
    access: AccessController, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    replace(BROKEN)
    for _ in range(5):
        clock.now += 1
        assert access.check("a") is True
    assert [(record.name, record.levelno) for record in caplog.records] == [("enclave_broker.access", logging.ERROR)]
    assert "policy.yaml:3: a rule needs pattern and allow; allow is missing" in caplog.text
    replace(DENY)
    clock.now += 1
    assert access.check("a") is False
    replace(BROKEN)
    clock.now += 1
    assert access.check("a") is False
    assert len(caplog.records) == 2


def test_a_file_that_is_gone_keeps_the_rules_and_is_logged_once(
    access: AccessController, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    Path("policy.yaml").unlink()
    for _ in range(3):
        clock.now += 1
        assert access.check("a") is True
    assert [record.getMessage() for record in caplog.records] == [
        "the policy isn't loaded again, the rules before stay: policy.yaml: No such file or directory"
    ]
    replace(DENY)
    clock.now += 1
    assert access.check("a") is False


def test_another_working_folder_changes_nothing(
    access: AccessController, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(DENY)
    monkeypatch.chdir(tmp_path.parent)
    clock.now += 1
    assert access.check("a") is False


def test_a_question_sees_one_policy_even_if_the_file_changes_meanwhile(clock: Clock) -> None:
    replace("rules:\n- {pattern: a, allow: true}\n- {pattern: '*', allow: false}\n")
    access = AccessController.from_file("policy.yaml", reload=True, clock=clock)

    class Changing(dict[str, Any]):
        """Facts whose look-up takes so long that another question comes in between."""

        def __getitem__(self, name: str) -> Any:
            replace(DENY)
            clock.now += 1
            assert access.check("a") is False
            return super().__getitem__(name)

    replace("rules:\n- {pattern: a, allow: false, unless: {x: 2}}\n- {pattern: a, allow: true}\n")
    clock.now += 1
    decision = access.explain("a", Changing(x=2))
    assert (decision.verdict, decision.where) == ("allow", "policy.yaml:2")
    assert access.explain("a").reason == "no more"
