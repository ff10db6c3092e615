from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import command


def test_list_has_a_line_for_each_tool(shop: Path) -> None:
    done = command("tools", "list", folder=shop)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["crash", "hang", "orders:get", "orders:search", "talk", "whoami"]
    assert lines[3] == "orders:search  read        Orders, of one region or of all."
    assert lines[0] == "crash          write"


def test_describe_shows_description_effect_and_schemas(shop: Path) -> None:
    done = command("tools", "describe", "orders:search", folder=shop)
    assert done.code == 0
    head, rest = done.out.split("\narguments\n")
    assert head == "orders:search\nOrders, of one region or of all.\n\nNewest first.\n\neffect  read\n"
    arguments, result = (json.loads(part) for part in rest.split("\nresult\n"))
    assert list(arguments["properties"]) == ["region"]
    assert result["type"] == "array"


APP_WITH_SECRETS = """
from enclave_broker import Broker, ToolContext

broker = Broker(secrets={"payments": "canary-of-the-secret", "other": "another-secret"})

@broker.tool(secrets=["payments", "other"])
async def pay(context: ToolContext) -> None: ...
"""


def test_describe_shows_the_names_of_secrets_and_no_value(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP_WITH_SECRETS, encoding="utf-8")
    done = command("tools", "describe", "pay", folder=tmp_path)
    assert "\nsecrets  payments, other\n" in done.out
    assert "canary" not in done.out + done.err


def test_describe_of_an_unknown_tool_names_the_nearest(shop: Path) -> None:
    done = command("tools", "describe", "orders.serach", folder=shop)
    assert done.code == 2
    assert "there is no tool 'orders.serach'; did you mean orders:search" in done.err


def test_describe_of_a_name_that_a_pattern_takes_shows_the_route(shop: Path) -> None:
    app = (shop / "app.py").read_text(encoding="utf-8")
    route = "async def any_report(name, args):\n    return name\nbroker.router.register('reports:*', any_report)\n"
    (shop / "app.py").write_text(f"{app}\n{route}", encoding="utf-8")
    done = command("tools", "describe", "reports:daily", folder=shop)
    assert (done.code, done.out.splitlines()[0]) == (0, "reports:daily  (of the route reports:*)")
    assert command("tools", "describe", "reports:*", folder=shop).out.splitlines()[0] == "reports:*"


def test_call_prints_the_tools_value_as_json(shop: Path) -> None:
    done = command("tools", "call", "orders:get", '{"id": 2}', folder=shop)
    assert (done.code, done.out, done.err) == (0, "2\n", "looking for 2\n")


def test_call_without_arguments_gives_an_empty_object(shop: Path) -> None:
    done = command("tools", "call", "whoami", "--as", "bob", "--role", "admin", folder=shop)
    assert (done.code, done.out) == (0, '["bob", "admin"]\n')


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("orders:get", '{"id": 9}', "error NO_SUCH_ORDER: no order 9\n"),
        ("orders:get", '{"id": "9"}', "error VALIDATION_ERROR: invalid arguments for orders:get: id: "),
        ("orders:git", "{}", "error UNKNOWN_TOOL: unknown tool 'orders:git'; did you mean orders:get"),
        ("../etc", "{}", "error UNKNOWN_TOOL: "),
    ],
)
def test_a_call_that_fails_shows_code_and_message_and_exits_with_1(
    shop: Path, name: str, arguments: str, message: str
) -> None:
    done = command("tools", "call", name, arguments, folder=shop)
    assert (done.code, done.out) == (1, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('{"id": 1', "error: JSON:1:9: Expecting ',' delimiter\n    1 | {\"id\": 1\n      |         ^\n"),
        ("{\n 'id': 1}", "error: JSON:2:2: "),
        ("[1]", 'error: the arguments of a call are a JSON object, such as {"id": 7}, not [1]\n'),
        ('{"id": NaN}', "error: JSON: "),
        ('{"id": "\\ud800"}', "error: JSON: "),
        ("[" * 100_000, "error: JSON"),
    ],
)
def test_bad_json_exits_with_2_and_shows_where_it_breaks(shop: Path, arguments: str, message: str) -> None:
    done = command("tools", "call", "orders:get", arguments, folder=shop)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_tools_needs_to_be_told_what_to_do(shop: Path) -> None:
    done = command("tools", folder=shop)
    assert done.code == 2
    assert "ACTION" in done.err
