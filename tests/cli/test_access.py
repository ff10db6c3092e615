"""The app sets `broker.access` itself: the broker takes no such option yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import SHOP, command

POLICY = """\
rules:
  - pattern: orders:search
    allow: true
  - pattern: orders:get
    allow: true
    when: {id: {le: 2}}
  - pattern: orders:get
    allow: ask
  - pattern: whoami
    allow: false
    unless: {role: admin}
    reason: only admins
  - pattern: talk
    allow: false
    unless: {plan: pro, beta: true}
  - {pattern: "free:*", allow: true}
  - {pattern: "known:*", allow: true}
"""
GOVERNED = SHOP + (
    "\nfrom enclave_broker.broker.calls.access import AccessController\n"
    'broker.access = AccessController.from_file("policy.yaml")\n'
    "async def anything(name, args):\n    return name\n"
    'broker.router.register("free:*", anything)\n'
    'broker.router.register("known:*", anything, requires_auth=True)\n'
)


@pytest.fixture
def governed(folder: Path) -> Path:
    (folder / "app.py").write_text(GOVERNED, encoding="utf-8")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [
        (["orders:get", "--args", '{"id": 2}'], 0,
         "allow\nrule    orders:get\nwhere   policy.yaml:4\nreason  the rule 'orders:get' allows\n"),
        (["orders:get", "--args", '{"id": 3}'], 1, "ask\nrule    orders:get\nwhere   policy.yaml:7\n"),
        (["whoami", "--as", "bob"], 1, "deny\nrule    whoami\nwhere   policy.yaml:9\nreason  only admins\n"),
        (["whoami", "--as", "bob", "--role", "user", "--role", "admin"], 0, "allow\nrule    whoami\n"),
        (["whoami", "--claim", "role=admin"], 1, "deny\nrule    whoami\n"),  # a claim is no role
        (["talk", "--claim", "plan=pro", "--claim", "beta=true"], 0, "allow\nrule    talk\n"),
        (["free:any"], 0, "allow\nrule    free:*\n"),  # a route takes it
        (["known:x", "--as", "bob"], 0, "allow\nrule    known:*\n"),
        (["known:x"], 1, "deny\nreason  the tool wants to know who is asking: say it, as --as SUBJECT\n"),
        (["crash"], 1, "deny\nwhere   policy.yaml:1\nreason  no rule applies, and the default is to deny\n"),
    ],
)  # fmt: skip
def test_check_says_the_verdict_the_rule_and_its_line(
    governed: Path, arguments: list[str], code: int, out: str
) -> None:
    done = command("access", "check", *arguments, folder=governed)
    assert (done.code, done.out[: len(out)], done.err) == (code, out, "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["orders:get"], 2, "the rules for orders:get look at the arguments: say them, as --args"),
        (["orders:get", "--args", '{"id": "x"}'], 1, "error VALIDATION_ERROR: invalid arguments for orders:get"),
        (["whoami", "--args", '{"idd": 1}'], 1, "error VALIDATION_ERROR: invalid arguments for whoami: idd: unknown"),
        (["orders:search", "--args", '{"idd": 1}'], 1, "error VALIDATION_ERROR"),
        (["orders:git"], 1, "the broker has no tool orders:git; did you mean orders:get"),
        (["talk", "--claim", "plan"], 2, "--claim is a name and a value, such as plan=pro, not plan"),
    ],
)
def test_what_can_not_be_judged_is_said(governed: Path, arguments: list[str], code: int, message: str) -> None:
    done = command("access", "check", *arguments, folder=governed)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_wrong_policy_is_shown_with_its_line(governed: Path) -> None:
    (governed / "policy.yaml").write_text(POLICY.replace("unless", "unles", 1), encoding="utf-8")
    done = command("access", "check", "whoami", folder=governed)
    assert done.code == 2
    assert "policy.yaml:11: unknown key 'unles'; did you mean unless?" in done.err


def test_a_broker_without_rules_says_so(shop: Path) -> None:
    done = command("access", "check", "whoami", folder=shop)
    assert done.code == 2
    assert "the broker has no access controller" in done.err


# -- the app's own facts ---------------------------------------------------------------------------------------------


def test_check_asks_the_apps_own_facts_about_whoever_asks(governed: Path) -> None:
    told = "{'plan': 'pro' if principal.subject == 'bob' else 'free', 'beta': True}"
    facts = f"async def facts(principal):\n    return {told}\n"
    app = GOVERNED + facts + "broker.context = facts\n"
    (governed / "app.py").write_text(app, encoding="utf-8")
    assert command("access", "check", "talk", "--as", "bob", folder=governed).code == 0
    assert command("access", "check", "talk", "--as", "eve", folder=governed).code == 1
    # what the host says stands over what the principal claims
    assert command("access", "check", "talk", "--as", "eve", "--claim", "plan=pro", folder=governed).code == 1


def test_check_says_when_the_apps_own_facts_fail(governed: Path) -> None:
    (governed / "app.py").write_text(GOVERNED + "broker.context = lambda principal: 1 / 0\n", encoding="utf-8")
    done = command("access", "check", "talk", "--as", "bob", folder=governed)
    assert done.code == 2
    assert "context=" in done.err
    assert "ZeroDivisionError" in done.err
