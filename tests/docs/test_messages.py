"""Runs every script of docs/reference/messages.md against the tools that the page shows: what each is told is there."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest

from enclave_broker import Broker, ExecutionResult
from tests.docs.commands import ROOT, demand
from tests.docs.page import app_of, tables

PAGE = (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8")
BROKEN = "await tools.reports.broken({})"


def rows(*head: str) -> list[tuple[str, ...]]:
    """The rows of all the page's tables with this head."""
    return [row for titles, found in tables(PAGE) if titles == head for row in found]


ERRORS = rows("script", "code", "message")
CALLS = rows("script", "error", "calls")
VALUES = rows("script", "value")

Results = dict[str, ExecutionResult[Any]]


async def run(scripts: set[str]) -> Results:
    """Each in a session of its own, on the page's broker."""
    app: dict[str, Any] = {"__name__": "app"}
    exec(compile(app_of(PAGE), "app.py", "exec"), app)
    async with app["broker"] as broker:
        return {script: await broker.execute(script, allowed_tools=app["ALLOWED"]) for script in sorted(scripts)}


@pytest.fixture(scope="module")
def results() -> Results:
    return asyncio.run(run({row[0] for row in ERRORS + CALLS + VALUES}))


def test_forty_different_mistakes_are_shown_at_least() -> None:
    scripts = [row[0] for row in ERRORS]
    assert len(set(scripts)) == len(scripts) >= 40


@pytest.mark.parametrize(("script", "code", "message"), ERRORS)
def test_a_wrong_script_is_told_what_the_page_says(results: Results, script: str, code: str, message: str) -> None:
    error = results[script].error
    assert error is not None
    demand(f"{code}: {message}", str(error))


@pytest.mark.parametrize(("script", "code", "message"), ERRORS)
def test_no_message_speaks_of_python(results: Results, script: str, code: str, message: str) -> None:
    error = results[script].error
    assert error is not None
    words = r"(?<!-)\b(None|True|False|str|int|float|bool|list|dict|tuple|kwargs|NoneType|pydantic|Traceback)\b"
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|\w+:\w+", "", error.message)  # a script's own words and tools' names
    assert [word for word in re.findall(words, unquoted) if word not in script] == []


@pytest.mark.parametrize(("script", "code", "calls"), CALLS)
def test_a_failed_script_lists_the_calls_that_took_effect(results: Results, script: str, code: str, calls: str) -> None:
    result = results[script]
    assert result.error is not None
    assert result.error.code == code
    assert ", ".join(f"{call.name} {call.outcome}" for call in result.calls) == calls
    for call in result.calls:
        assert (call.error is None) == (call.outcome == "done")
        assert call.started is not None or call.outcome in {"failed", "denied"}, "what took effect was started"


@pytest.mark.parametrize(("script", "value"), VALUES)
def test_some_mistakes_are_no_errors(results: Results, script: str, value: str) -> None:
    assert results[script].error is None
    assert json.dumps(results[script].value) == value


@pytest.mark.parametrize("length", [1, 250])
def test_a_refusal_lists_a_few_of_many_tools_only(length: int) -> None:
    async def told() -> str:
        async with Broker(tools={f"t:{i:0{length}}": lambda: None for i in range(20)}) as broker:
            return str((await broker.execute("await tools.weather({})")).error)

    message = asyncio.run(told())
    names = re.findall(r"t:\d+", message)
    assert len(names) == (10 if length == 1 else 1)
    assert ", … (line" in message


def test_the_log_has_under_the_error_id_what_the_script_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "enclave_broker.calls"):
        error = asyncio.run(run({BROKEN}))[BROKEN].error
    assert error is not None
    assert "hunter2" not in f"{error} {error.stack} {error.details}"
    found = re.search(r"error id (\w+)", error.message)
    assert found is not None
    (record,) = [record for record in caplog.records if found[1] in record.getMessage()]
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])
