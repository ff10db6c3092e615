from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.calls.access import AccessController, Decision, Rule
from enclave_broker.broker.tools.names import is_name
from enclave_broker.types.errors import ConfigurationError

README = AccessController(
    default_policy="deny",
    rules=[
        Rule("public:*", allow=True),
        Rule("admin:*", allow=False, unless={"role": "admin"}),
        Rule("user:*:read", allow=True),
        Rule("user:*:write", allow=False, unless={"owner": True}),
    ],
)
REFUNDS = AccessController(
    rules=[
        Rule("refunds:create", allow=True, when={"amount": {"le": 100}}),
        Rule("refunds:create", allow="ask", approvers={"role": "supervisor"}, expires_in=4 * 3600),
    ]
)


def verdict(access: AccessController, name: str, facts: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    return access.explain(name, facts, args).verdict


# --- Which rule decides ----------------------------------------------------------------------------------------------


def test_the_rules_of_the_readme_decide_as_it_says() -> None:
    assert README.check("admin:delete", {"role": "user"}) is False
    assert README.check("user:profile:read", {}) is True
    assert README.check("admin:delete", {"role": "admin"}) is True
    assert README.check("admin:delete", {}) is False
    assert README.check("admin:delete", {"role": None}) is False
    assert README.check("public:status", {}) is True
    assert README.check("public:status") is True
    assert README.check("user:profile:write", {"owner": True}) is True
    assert README.check("user:profile:delete", {"owner": True, "role": "admin"}) is False


@pytest.mark.parametrize("owner", [False, 1, 1.0, "true", "True", None, [True], (True,), {True}, {"owner": True}])
def test_what_is_not_exactly_true_is_no_true_fact(owner: Any) -> None:
    assert README.check("user:profile:write", {"owner": owner}) is False


def test_the_first_rule_that_applies_decides() -> None:
    rules = [
        Rule("a", allow=False, when={"n": 1}),
        Rule("a", allow="ask", when={"n": {"le": 2}}),
        Rule("{a,b}", allow=True, when={"n": {"le": 3}}),
        Rule("*", allow=False),
        Rule("a", allow=True),
    ]
    access = AccessController(default_policy="allow", rules=rules)
    assert [access.explain("a", args={"n": n}).rule for n in (1, 2, 3, 4)] == rules[:4]
    assert access.explain("a").rule is rules[3]
    assert access.explain("b", args={"n": 1}).rule is rules[2]


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_the_default_decides_where_no_rule_applies(default: Any) -> None:
    access = AccessController(default_policy=default, rules=[Rule("a:*", allow=True, when={"n": 1})])
    decision = access.explain("a:b", args={"n": 2})
    assert decision == Decision(default, None, f"no rule applies, and the default is to {default}", "")
    assert access.check("b") is (default == "allow")


@pytest.mark.parametrize(("allow", "turned"), [(True, "deny"), (False, "allow"), ("ask", "allow")])
def test_unless_turns_the_verdict(allow: Any, turned: str) -> None:
    access = AccessController(rules=[Rule("a", allow=allow, unless={"x": 1, "y": "2"})])
    plain = {True: "allow", False: "deny", "ask": "ask"}[allow]
    assert verdict(access, "a", {"x": 1, "y": "2"}, {}) == turned
    assert [verdict(access, "a", facts, {}) for facts in ({"x": 1}, {"x": 1, "y": 2}, {})] == [plain] * 3


def test_a_call_that_a_person_has_to_be_asked_about_is_not_allowed() -> None:
    assert REFUNDS.check("refunds:create", {}, {"amount": 100}) is True
    assert REFUNDS.check("refunds:create", {}, {"amount": 100.5}) is False
    assert REFUNDS.check("refunds:create") is False
    rule = REFUNDS.explain("refunds:create", {}, {"amount": 250}).rule
    assert rule is not None
    assert (rule.allow, rule.expires_in) == ("ask", 14400.0)


def test_only_who_has_the_facts_of_the_approvers_may_approve() -> None:
    rule = Rule("a", allow="ask", approvers={"role": ["supervisor", "owner"], "tenant": "t1"})
    assert rule.may_approve({"role": frozenset({"support", "owner"}), "tenant": "t1"})
    assert not rule.may_approve({"role": frozenset({"owner"}), "tenant": "t2"})
    assert not rule.may_approve({"role": frozenset({"support"}), "tenant": "t1"})
    assert not rule.may_approve({})
    assert Rule("a", allow="ask").may_approve({})
    assert not Rule("a", allow="ask", approvers=lambda facts: facts["missing"]).may_approve({})


# --- Names -----------------------------------------------------------------------------------------------------------

EVERYTHING = AccessController(default_policy="allow", rules=[Rule("*", allow=True)])
NOT_NAMES = [
    "",
    " a",
    "a ",
    "a\n",
    "a\nb",
    "a\0",
    "\uff50ublic:x",
    "public:*",
    "a?",
    "[a]",
    "-a",
    ":a",
    "a" * 257,
    "\ud800",
    "é",
]


@pytest.mark.parametrize("name", [*NOT_NAMES, None, 1, b"public:x", ["public:x"]])
def test_what_is_no_name_is_denied_whatever_the_rules_say(name: Any) -> None:
    assert EVERYTHING.check(name, {"role": "admin", "owner": True}) is False
    decision = EVERYTHING.decide_name(name, {})
    assert decision is not None
    assert (decision.verdict, decision.rule) == ("deny", None)


@given(st.text(max_size=12) | st.from_regex(r"[Pp]ublic:?[\w*: \n]{0,4}", fullmatch=True))
def test_no_spelling_but_the_exact_one_is_allowed(name: str) -> None:
    assert README.check(name, {"role": "admin", "owner": True}) is (
        is_name(name)
        and (
            name.startswith(("public:", "admin:")) or (name.startswith("user:") and name.endswith((":read", ":write")))
        )
        and name not in {"user:read", "user:write"}
    )


# --- By the name alone -----------------------------------------------------------------------------------------------


def decided(access: AccessController, name: str, facts: Mapping[str, Any] | None = None) -> str | None:
    decision = access.decide_name(name, facts or {})
    return None if decision is None else decision.verdict


def test_the_name_alone_decides_where_no_rule_before_looks_at_arguments() -> None:
    access = AccessController(
        rules=[
            Rule("free", allow=True),
            Rule("secret", allow=False, unless={"role": "admin"}),
            Rule("*", allow=True, when={"n": 1}),
        ]
    )
    assert decided(access, "free") == "allow"
    assert decided(access, "secret") == "deny"
    assert decided(access, "secret", {"role": "admin"}) == "allow"
    assert decided(access, "other") is None
    assert decided(REFUNDS, "refunds:create") is None
    assert decided(REFUNDS, "refunds:list") == "deny"


def test_what_every_rule_denies_is_denied_by_name_whatever_they_look_at() -> None:
    rules = [
        Rule("sql", allow=False, when={"text": {"pattern": "DROP"}}),
        Rule("sql", allow=True, when=lambda args: "text" in args, unless={"suspended": True}),
        Rule("sql", allow=False, unless={"role": "dba"}),
    ]
    access = AccessController(rules=rules)
    assert decided(access, "sql", {"suspended": True}) == "deny"
    assert decided(access, "sql", {"suspended": True, "role": "dba"}) is None
    assert decided(access, "sql", {"role": "dba"}) is None
    assert decided(AccessController(rules=rules[:1]), "sql") == "deny"
    assert decided(AccessController(default_policy="allow", rules=rules[:1]), "sql") is None


rules = st.builds(
    Rule,
    st.sampled_from(["a", "*", "{a,b}", "?"]),
    allow=st.sampled_from([True, False, "ask"]),
    unless=st.sampled_from([None, None, {"x": 1}]),
    when=st.sampled_from([None, None, {"n": 1}, {"n": {"ge": 1}}, {"n": {"ne": 1}}]),
)


@given(st.lists(rules, max_size=5), st.sampled_from(["allow", "deny"]), st.sampled_from([{}, {"x": 1}, {"x": True}]))
def test_what_the_name_decides_no_arguments_change(listed: list[Rule], default: Any, facts: dict[str, Any]) -> None:
    access = AccessController(default_policy=default, rules=listed)
    decision = access.decide_name("a", facts)
    by_arguments = [access.decide("a", facts, args) for args in ({}, {"n": 1}, {"n": 2}, {"n": 0}, {"n": "1"})]
    if decision is not None:
        assert {each.verdict for each in by_arguments} == {decision.verdict}
        if decision.verdict != "deny":
            assert {each.rule for each in by_arguments} == {decision.rule}


# --- What explain says -----------------------------------------------------------------------------------------------


def test_explain_names_the_rule_its_reason_and_the_line_that_wrote_it() -> None:
    rule = Rule("a", allow=False, unless={"x": 1}, reason="only on Sundays")
    line = test_explain_names_the_rule_its_reason_and_the_line_that_wrote_it.__code__.co_firstlineno + 1
    access = AccessController(rules=[rule])
    assert access.explain("a") == Decision("deny", rule, "only on Sundays", f"test_access.py:{line}")
    turned = access.explain("a", {"x": 1})
    assert (turned.verdict, turned.reason) == ("allow", "the rule 'a' denies, but its `unless` holds")
    assert AccessController(rules=[Rule("a", allow=True)]).explain("a").reason == "the rule 'a' allows"
    assert Rule("a", allow=True, where="rules.db:7").where == "rules.db:7"


# --- The host's own conditions ---------------------------------------------------------------------------------------


def broken(_: Any) -> bool:
    raise KeyError("a secret")


def leaving(_: Any) -> bool:
    raise SystemExit(3)


def cancelled(_: Any) -> bool:
    raise asyncio.CancelledError


async def later(_: Any) -> bool:
    return True


def nothing(_: Any) -> Any:
    return None


def a_word(_: Any) -> Any:
    return "yes"


def a_coroutine(_: Any) -> Any:
    return later(_)


def test_functions_get_the_context_and_the_arguments() -> None:
    access = AccessController(
        rules=[
            Rule("a", allow=True, when=lambda args: args["n"] > 1, unless=lambda facts: facts["level"] < 3),
        ]
    )
    assert access.check("a", {"level": 3}, {"n": 2}) is True
    assert access.check("a", {"level": 2}, {"n": 2}) is False
    assert access.check("a", {"level": 3}, {"n": 1}) is False


@pytest.mark.parametrize("function", [broken, leaving, cancelled, nothing, a_word, a_coroutine])
@pytest.mark.parametrize("option", ["when", "unless"])
@pytest.mark.parametrize("allow", [True, False, "ask"])
def test_a_condition_that_can_not_tell_denies(
    function: Callable[[Any], bool], option: str, allow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    conditions: dict[str, Any] = {option: function}
    rule = Rule("a", allow=allow, **conditions)
    access = AccessController(default_policy="allow", rules=[rule, Rule("*", allow=True)])
    for _ in range(3):
        decision = access.explain("a", {"x": 1}, {"n": 1})
        assert (decision.verdict, decision.rule, decision.where) == ("deny", rule, rule.where)
        assert "a secret" not in decision.reason
    assert [(record.name, record.levelno) for record in caplog.records] == [("enclave_broker.access", logging.ERROR)]
    assert rule.where in caplog.text


def test_ctrl_c_in_a_condition_is_not_kept() -> None:
    def interrupted(_: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AccessController(rules=[Rule("a", allow=True, unless=interrupted)]).check("a")


class Later:
    async def __call__(self, facts: Any) -> bool:
        return True

    async def asked(self, facts: Any) -> bool:
        return True


async def yields_later(_: Any) -> Any:
    yield True


def yields(_: Any) -> Any:
    yield True


def takes_none() -> bool:
    return True


def takes_two(facts: Any, args: Any) -> bool:
    return True


UNFIT: list[tuple[Any, str]] = [
    (later, "is async"),
    (Later(), "is async"),
    (Later().asked, "is async"),
    (functools.partial(later), "is async"),
    (yields_later, "is async"),
    (yields, "yields"),
    (Later, "is the class Later"),
    (takes_none, "has to take one argument"),
    (takes_two, "has to take one argument"),
]


@pytest.mark.parametrize(("function", "message"), UNFIT)
@pytest.mark.parametrize("option", ["when", "unless", "approvers"])
def test_a_function_that_can_not_be_asked_at_once_is_refused_when_it_is_loaded(
    function: Any, message: str, option: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"rule 'a': {option} {message}"):
        Rule("a", allow="ask", **{option: function})


# --- What can't be loaded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allow": 1}, "rule 'a:*': allow is true, false or ask, not 1"),
        ({"allow": "deny"}, "rule 'a:*': allow is true, false or ask, not 'deny'"),
        ({"allow": None}, "rule 'a:*': allow is true, false or ask, not None"),
        ({"allow": True, "approvers": {"role": "x"}}, "rule 'a:*': approvers are asked only where allow is ask"),
        ({"allow": "ask", "expires_in": 0}, "rule 'a:*': expires_in must be more than 0"),
        ({"allow": "ask", "expires_in": True}, "rule 'a:*': expires_in must be seconds"),
        ({"allow": True, "reason": ""}, "rule 'a:*': reason is a text"),
        ({"allow": True, "reason": 5}, "rule 'a:*': reason is a text"),
        ({"allow": True, "unless": "admin"}, "rule 'a:*': unless is an object or a function, not 'admin'"),
        ({"allow": True, "unless": {}}, "rule 'a:*': unless is empty, so it would always hold"),
        ({"allow": True, "when": {}}, "rule 'a:*': when is empty"),
        ({"allow": True, "unless": {1: "x"}}, "rule 'a:*': unless: a name is a string"),
    ],
)
def test_a_rule_that_says_what_it_can_not_mean_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rule("a:*", **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("pattern", ["", "a b", "!a", "{a", 5, None])
def test_a_rule_whose_pattern_is_none_is_refused(pattern: Any) -> None:
    with pytest.raises(ConfigurationError, match="pattern"):
        Rule(pattern, allow=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"default_policy": "ask"}, r'default_policy is deny or allow, not \'ask\'; Rule\("\*", allow="ask"\)'),
        ({"default_policy": True}, "default_policy is deny or allow, not True"),
        ({"rules": Rule("a", allow=True)}, "rules is a list, even of one"),
        ({"rules": [("a", True)]}, r"made by Rule\(...\), not \('a', True\)"),
    ],
)
def test_a_policy_of_something_else_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AccessController(**options)


def test_what_was_loaded_stays_whatever_becomes_of_it() -> None:
    unless, listed = {"role": ["admin"]}, [Rule("a", allow=True)]
    rule = Rule("b", allow=False, unless=unless)
    access = AccessController(rules=[*listed, rule])
    unless["role"].append("user")
    listed.clear()
    assert access.check("a") is True
    assert access.check("b", {"role": "user"}) is False
    assert rule.unless == {"role": ["admin"]}
    with pytest.raises(AttributeError):
        rule.allow = True  # pyright: ignore[reportAttributeAccessIssue]


def test_threads_may_ask_at_once() -> None:
    access = AccessController(rules=[Rule(f"n{n}", allow=n % 2 == 0) for n in range(500)])
    wrong: list[str] = []

    def ask() -> None:
        wrong.extend(f"n{n}" for n in range(1000) if access.check(f"n{n}") is not (n < 500 and n % 2 == 0))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
