"""Nobody's text begins a line of the log: a real server whose tool says and raises what would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.http.served import Served, served

EVIL = "\n2026-01-01 ERROR forged\r\x1b[2J\x1b[31mred\u2028 forged\u2029 forged\x85 forged\u202e\x9b31m"
APP = f"""\
import logging
from enclave_broker import Broker

EVIL = {EVIL!a}
broker = Broker()

@broker.tool("orders:get", effect="read")
def get(id: int) -> int:
    return id

@broker.tool("talk")
def talk() -> None:
    logging.getLogger("shop").warning("I said %s", EVIL, extra={{"order": 7, "note": EVIL, "odd": {{1, }}}})
    logging.getLogger("enclave_broker.shop").error("and " + EVIL)
    raise ValueError("I raise" + EVIL)
"""
DRIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
CALL = "await tools.orders.get({ id: 1 })"


def said(server: Served, code: str) -> list[str]:
    """What it wrote, by lines of whoever splits only at line feeds, without its first: where it serves."""
    server.client.post("/sessions", json={"code": code, "metadata": {}})
    server.end()
    return [line.removesuffix("\n") for line in server.said[1:]]


def records(server: Served, code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(server, code)]


def test_no_line_of_the_text_log_is_forged(tmp_path: Path) -> None:
    with served(tmp_path, app=APP) as server:
        lines = said(server, "await tools.talk({})")
    assert [line for line in lines if not line.startswith(("[", "    "))] == []
    assert [re.match(r"\[(.*?)\]", line)[1] for line in lines if line[0] == "["] == [  # pyright: ignore[reportOptionalSubscript]
        "shop",
        "enclave_broker.shop",
        "enclave_broker.calls",
    ]
    assert not DRIVING.search("".join(lines))
    assert r"[shop] I said \n2026-01-01 ERROR forged\r\x1b[2J" in lines[0]
    assert "    2026-01-01 ERROR forged" in "\n".join(lines)  # in the traceback, where lines are indented


def test_every_line_of_the_json_log_is_one_object(tmp_path: Path) -> None:
    with served(tmp_path, "--log-format", "json", app=APP) as server:
        lines = said(server, "await tools.talk({})")
    assert all(line.isascii() and line.isprintable() for line in lines)
    shop, ours, failure, audit = (json.loads(line) for line in lines)
    assert shop["message"] == f"I said {EVIL}"
    assert (shop["order"], shop["note"], shop["odd"]) == (7, EVIL, "{1}")
    assert ours["message"] == f"and {EVIL}"
    assert EVIL in failure["error"]
    assert audit["logger"] == "enclave_broker.audit"
    assert audit["outcome"] == "failed"


def test_where_it_serves_is_a_line_of_the_json_log_at_any_level(tmp_path: Path) -> None:
    options = ("--log-format", "json", "--host", "0.0.0.0", "--no-auth")
    with served(tmp_path, *options, environ={"ENCLAVE_BROKER_LOG_LEVEL": "ERROR"}) as server:
        server.hear("is let in")
        assert server.client.get("/healthz").status_code == 200
    serving, let_in = (json.loads(line) for line in server.said)
    assert (serving["level"], serving["logger"]) == ("info", "enclave_broker.serve")
    assert serving["message"] == f"serving at {server.url}, API at {server.url}/docs"
    assert let_in["message"].startswith("anybody who can reach it is let in")


def test_the_json_log_has_a_record_with_fields_for_each_call(tmp_path: Path) -> None:
    with served(tmp_path, "--log-format", "json", app=APP) as server:
        (record,) = records(server, CALL)
    assert record["level"] == "info"
    assert record["event"] == "tool_call"
    assert (record["tool"], record["route"], record["outcome"]) == ("orders:get", "orders:get", "done")
    assert (record["subject"], record["tenant"]) == ("anonymous", None)
    assert (record["attempts"], record["args_bytes"], record["result_bytes"]) == (1, 8, 1)
    assert record["session_id"].startswith("s_")
    assert record["call_id"].startswith("c_")
    assert set(record) >= {"time", "logger", "message", "rule", "error_code", "duration_ms", "args_hash", "by_host"}


def test_the_text_log_has_a_line_for_each_call_when_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, "--audit", app=APP) as server:
        (line,) = said(server, CALL)
    assert line.startswith('[enclave_broker.audit] event="tool_call" session_id="s_')
    assert ' tool="orders:get" ' in line


@pytest.mark.parametrize(
    ("arguments", "environ", "lines"),
    [
        ([], {}, 0),
        ([], {"ENCLAVE_BROKER_LOG_LEVEL": "INFO"}, 1),
        (["--no-audit"], {"ENCLAVE_BROKER_LOG_LEVEL": "INFO"}, 0),
        (["--log-format", "json", "--no-audit"], {}, 0),
        (["--log-format", "json"], {"ENCLAVE_BROKER_LOG_LEVEL": "ERROR"}, 1),
    ],
)
def test_who_wants_audit_lines_says_so(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], lines: int
) -> None:
    with served(tmp_path, *arguments, app=APP, environ=environ) as server:
        assert len([line for line in said(server, CALL) if "enclave_broker.audit" in line]) == lines
