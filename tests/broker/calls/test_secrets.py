"""Where values of secrets come from, when they are asked for, and what is said when one can't be had."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enclave_broker.broker.calls import secrets as module
from enclave_broker.broker.calls.secrets import Env, File, Secrets
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.types.errors import ConfigurationError, SecretError

VALUE = "canary-of-the-secret"


@pytest.fixture
async def threads() -> AsyncIterator[HandlerThreads]:
    threads = HandlerThreads()
    yield threads
    threads.close()


async def value_of(source: Any, threads: HandlerThreads) -> str:
    return (await Secrets({"key": source}, threads).reveal("tool", ["key"])).values["key"]


# --- Where a value comes from ----------------------------------------------------------------------------------------


async def test_a_plain_text_is_its_own_value(threads: HandlerThreads) -> None:
    assert await value_of(VALUE, threads) == VALUE


async def test_a_variable_is_read_at_each_start(monkeypatch: pytest.MonkeyPatch, threads: HandlerThreads) -> None:
    secrets = Secrets({"key": Env("ENCLAVE_TEST_KEY")}, threads)
    for value in ("the first value", "the second one"):
        monkeypatch.setenv("ENCLAVE_TEST_KEY", value)
        assert (await secrets.reveal("tool", ["key"])).values == {"key": value}


async def test_a_file_is_read_at_each_start_without_its_line_end(tmp_path: Path, threads: HandlerThreads) -> None:
    file = tmp_path / "key"
    secrets = Secrets({"key": File(file), "other": File(str(file))}, threads)
    for text, value in {
        "the first value": "the first value",
        "the second one\n": "the second one",
        "the third one\r\n": "the third one",
        "  of two\nlines \n\n": "  of two\nlines \n",
    }.items():
        file.write_bytes(text.encode())
        assert (await secrets.reveal("tool", ["key", "other"])).values == {"key": value, "other": value}


async def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: HandlerThreads
) -> None:
    (tmp_path / "key").write_text(VALUE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    source = File("key")
    monkeypatch.chdir("/")
    assert await value_of(source, threads) == VALUE


async def test_a_function_is_called_at_each_start_and_one_that_may_block_in_a_thread(threads: HandlerThreads) -> None:
    ran: list[threading.Thread] = []

    def blocking() -> str:
        ran.append(threading.current_thread())
        return f"the value {len(ran)}"

    secrets = Secrets({"key": blocking}, threads)
    assert (await secrets.reveal("tool", ["key"])).values["key"] == "the value 1"
    assert (await secrets.reveal("tool", ["key"])).values["key"] == "the value 2"
    assert threading.current_thread() not in ran


async def test_an_async_function_is_called_in_the_loop(threads: HandlerThreads) -> None:
    async def fetch() -> str:
        assert asyncio.get_running_loop()
        return VALUE

    assert await value_of(fetch, threads) == VALUE
    assert await value_of(partial(fetch), threads) == VALUE


async def test_only_what_is_asked_for_is_revealed_and_it_can_not_be_changed(threads: HandlerThreads) -> None:
    def unwanted() -> str:
        raise AssertionError("nobody asked for it")

    revealed = await Secrets({"key": VALUE, "other": unwanted}, threads).reveal("tool", ["key"])
    assert dict(revealed.values) == {"key": VALUE}
    with pytest.raises(TypeError):
        revealed.values["key"] = "x"  # type: ignore[index]


# --- When it can't be had --------------------------------------------------------------------------------------------


def leaking() -> str:
    raise ValueError(VALUE)


async def leaking_later() -> str:
    raise SystemExit(VALUE)


async def cancelled() -> str:
    raise asyncio.CancelledError(VALUE)


async def late() -> str:
    raise TimeoutError(VALUE)


UNAVAILABLE: dict[str, tuple[Any, str]] = {
    "a variable that isn't set": (Env("ENCLAVE_TEST_NONE"), "ENCLAVE_TEST_NONE is not set"),
    "a variable that is short": (Env("ENCLAVE_TEST_SHORT"), "less than 8"),
    "a file that isn't there": (File("/nowhere/at/all"), "/nowhere/at/all can't be read"),
    "a folder": (File("/"), "can't be read"),
    "a file without end": (File("/dev/zero"), "too long"),
    "a function that raises": (leaking, "raised ValueError at"),
    "an async function that raises SystemExit": (leaking_later, "raised SystemExit at"),
    "one that is cancelled from inside": (cancelled, "raised CancelledError at"),
    "one that is late by itself": (late, "raised TimeoutError at"),
    "one that gives nothing": (lambda: None, "not NoneType"),
    "one that gives bytes": (VALUE.encode, "not bytes"),
    "one that gives little": (lambda: "1234567", "less than 8"),
    "one that gives much": (lambda: "x" * 4_097, "more than 4,096"),
    "one that gives half a character": (lambda: VALUE + "\ud800", "Unicode"),
}


@pytest.mark.parametrize(("source", "reason"), UNAVAILABLE.values(), ids=UNAVAILABLE)
async def test_a_value_that_can_not_be_had_is_refused_by_name_and_only_the_log_says_why(
    source: Any,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    threads: HandlerThreads,
) -> None:
    monkeypatch.setenv("ENCLAVE_TEST_SHORT", "1234567")
    with pytest.raises(SecretError) as refused:
        await value_of(source, threads)
    error = refused.value
    assert error.code == "SECRET_ERROR"
    assert error.message == "tool 'tool' needs the secret 'key', and it can't be had"
    assert error.__cause__ is error.__context__ is None
    assert reason in caplog.text
    assert VALUE not in caplog.text
    assert "1234567" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


async def test_a_file_that_is_no_text_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, threads: HandlerThreads
) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"canary-\xff-bytes")
    with pytest.raises(SecretError):
        await value_of(File(file), threads)
    assert "not UTF-8" in caplog.text
    assert "canary" not in caplog.text


async def test_a_source_that_gives_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, threads: HandlerThreads
) -> None:
    monkeypatch.setattr(module, "SOURCE_SECONDS", 0.01)
    with pytest.raises(SecretError, match="'key'"):
        await value_of(asyncio.Event().wait, threads)
    assert "nothing came within 0.01 s" in caplog.text


async def test_whoever_waits_for_a_value_can_be_cancelled(threads: HandlerThreads) -> None:
    waiting = asyncio.ensure_future(value_of(asyncio.Event().wait, threads))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# --- What is refused where it is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ({"key": "1234567"}, "less than 8"),
        ({"key": ""}, "less than 8"),
        ({"key": "x" * 4_097}, "more than 4,096"),
        ({"key": VALUE + "\udc80"}, "Unicode"),
        ({"key": VALUE.encode()}, "not bytes"),
        ({"key": None}, "not NoneType"),
        ({"a key": VALUE}, "name"),
        ({"1key": VALUE}, "name"),
        ({"": VALUE}, "name"),
        ({"schlüssel": VALUE}, "name"),
        ({"key\n": VALUE}, "name"),
        ({"x" * 65: VALUE}, "name"),
        ({1: VALUE}, "name"),
        ([VALUE], "mapping"),
        (VALUE, "mapping"),
    ],
)
def test_a_wrong_source_or_name_is_refused_without_showing_a_value(sources: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refused:
        Secrets(sources, HandlerThreads())
    assert VALUE not in str(refused.value)
    assert "1234567" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "A=B", "A\0", None, 1])
def test_what_can_be_no_variable_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="Env"):
        Env(name)


@pytest.mark.parametrize("path", ["", None, 1])
def test_what_can_be_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="File"):
        File(path)


def test_a_name_that_no_secret_has_is_refused() -> None:
    secrets = Secrets({"key": VALUE, "other": Env("X")}, HandlerThreads())
    secrets.check("tool refund", ["key", "other"])
    with pytest.raises(ConfigurationError, match=r"tool refund: no secret is called 'kye'; known are key, other"):
        secrets.check("tool refund", ["key", "kye"])
    with pytest.raises(ConfigurationError, match="the broker has none"):
        Secrets(None, HandlerThreads()).check("tool refund", ["key"])


async def test_no_value_is_in_a_repr(threads: HandlerThreads) -> None:
    secrets = Secrets({"key": VALUE, "other": Env("X"), "file": File("/x/y")}, threads)
    revealed = await secrets.reveal("tool", ["key"])
    assert repr(secrets) == "Secrets(key, other, file)"
    assert VALUE not in repr(revealed)
    assert (repr(Env("X")), repr(File("/x/y"))) == ("Env('X')", "File('/x/y')")


# --- What was a value before -----------------------------------------------------------------------------------------


async def test_the_last_values_of_a_name_and_those_of_the_call_are_scrubbed_too(threads: HandlerThreads) -> None:
    values = [f"the value {number:03d}" for number in range(8)]
    waiting = iter(values)
    secrets = Secrets({"key": lambda: next(waiting), "other": "another secret"}, threads)
    first = await secrets.reveal("tool", ["key"])
    await secrets.reveal("tool", ["other"])
    for _ in values[1:-1]:
        await secrets.reveal("tool", ["key"])
    last = await secrets.reveal("tool", ["key"], first.scrubber)
    assert last.values["key"] == values[-1]
    assert [last.scrubber.text(value) == "[secret key]" for value in values] == [True, *[False] * 3, *[True] * 4]
    assert last.scrubber.text("another secret") == "another secret"
    assert [first.scrubber.text(value) == "[secret key]" for value in values] == [True, *[False] * 7]
