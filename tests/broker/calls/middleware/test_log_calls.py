from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker import ConfigurationError, Principal, ToolError
from enclave_broker.broker.calls.middleware.log_calls import LogCalls
from enclave_broker.broker.calls.middleware.redact import Redact
from tests.broker.calls.middleware.support import Door, Handler, Records, a_call, around, error_of, own_log, spawn
from tests.broker.sessions.support import jumping, run_jumping, turns


class Written:
    """A logger of its own, with what was written to it: records, and lines as a file would have them."""

    def __init__(self) -> None:
        self.logger = logging.Logger("host.calls", logging.INFO)  # noqa: LOG001 none that another test gets
        self.file = io.StringIO(newline="")
        to_file = logging.StreamHandler(self.file)
        to_file.setFormatter(logging.Formatter("%(levelname)s %(message)s tool=%(tool)s by=%(subject)s %(session_id)s"))
        self.logger.addHandler(to_file)
        to_list = Records()
        self.records = to_list.records
        self.logger.addHandler(to_list)

    @property
    def text(self) -> str:
        return self.file.getvalue()


@pytest.fixture
def written() -> Written:
    return Written()


def only(written: Written) -> Any:
    (record,) = written.records
    return record


def test_a_call_is_one_record_with_all_its_facts() -> None:
    written = Written()

    async def works() -> Any:
        await asyncio.sleep(2)
        return {"name": "Alice"}

    async def scenario() -> None:
        assert await around(Handler(works), LogCalls(written.logger))(a_call()) == {"name": "Alice"}

    run_jumping(scenario)
    record = only(written)
    assert record.levelno == logging.INFO
    assert record.name == "host.calls"
    assert (record.tool, record.subject, record.tenant) == ("users:get", "alice", "acme")
    assert (record.session_id, record.call_id) == ("s_1", "c_1")
    assert (record.outcome, record.code) == ("done", "-")
    assert record.duration == pytest.approx(2, abs=0.001)
    assert (record.args_bytes, record.result_bytes) == (len('{"id":7}'), len('{"name":"Alice"}'))
    assert not hasattr(record, "arguments")
    message = record.getMessage()
    assert message.startswith("tool call users:get by 'alice': done in 2.00000")
    assert "'s_1'" in message
    assert "'c_1'" in message


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ToolError("no", code="LOCKED"), "LOCKED"),
        (KeyError("secret"), "EXECUTION_ERROR"),
        (SystemExit(3), "EXECUTION_ERROR"),
    ],
    ids=repr,
)
@jumping
async def test_a_failure_is_logged_by_its_code_and_passes(fault: BaseException, code: str) -> None:
    written = Written()
    assert await error_of(around(Handler(fault), LogCalls(written.logger))(a_call())) is fault
    record = only(written)
    assert (record.outcome, record.code, record.result_bytes) == ("failed", code, None)
    assert "secret" not in written.text


@jumping
async def test_a_cancellation_is_logged_as_one_and_passes() -> None:
    written = Written()
    task = await spawn(around(Door(), LogCalls(written.logger)), a_call())
    task.cancel()
    await turns()
    assert task.cancelled()
    assert (only(written).outcome, only(written).code) == ("cancelled", "-")


@jumping
async def test_arguments_and_results_are_in_no_record_unless_asked_for(written: Written) -> None:
    call = a_call(args={"q": "canary-of-arguments"})
    await around(Handler("canary-of-results"), LogCalls(written.logger))(call)
    await error_of(around(Handler(ToolError("canary-of-errors")), LogCalls(written.logger))(call))
    everything = written.text + "".join(str(vars(record)) for record in written.records)
    assert "canary" not in everything


@jumping
async def test_arguments_that_are_asked_for_are_redacted(written: Written) -> None:
    args = {"q": "x", "Password": "canary1", "deep": [{"api_key": "canary2"}]}
    await around(Handler(1), LogCalls(written.logger, args=True))(a_call(args=args))
    redact = Redact(patterns=["canary."])
    await around(Handler(1), LogCalls(written.logger, args=True, redact=redact))(a_call(args=args))
    first, second = (record.__dict__["arguments"] for record in written.records)
    assert first == '{"q":"x","Password":"[redacted]","deep":[{"api_key":"[redacted]"}]}'
    assert second == first
    assert "canary" not in written.text
    assert '"q":"x"' in written.text
    assert args["Password"] == "canary1"


@jumping
async def test_names_are_sensitive_word_by_word_as_in_history(written: Written) -> None:
    args = {"accessToken": "canary1", "x-api-key": "canary2", "userPin": 1234, "max_tokens": 5, "shipping": "fast"}
    await around(Handler(1), LogCalls(written.logger, args=True))(a_call(args=args))
    hidden = '"accessToken":"[redacted]","x-api-key":"[redacted]","userPin":"[redacted]"'
    assert only(written).__dict__["arguments"] == f'{{{hidden},"max_tokens":5,"shipping":"fast"}}'


@jumping
async def test_long_arguments_are_cut_and_very_long_ones_left_out(written: Written) -> None:
    invoke = around(Handler(1), LogCalls(written.logger, args=True))
    await invoke(a_call(args={"q": "x" * 10_000}))
    await invoke(a_call(args={"q": "x" * 100_000}))
    first, second = (record.__dict__["arguments"] for record in written.records)
    assert len(first) == 2_000
    assert second == "[too long]"


HOSTILE = [
    "a\nERROR forged",
    "a\r\nb",
    "\u2028",
    "\u2029",
    "\x85",
    "\x1b[2J",
    "\x00",
    "\u202eabc",
    "\x0b\x0c\x1c",
    "\ud800",
]


@pytest.mark.parametrize("odd", HOSTILE, ids=ascii)
@jumping
async def test_nothing_in_a_call_forges_a_line(odd: str) -> None:
    written = Written()
    call = a_call(
        name=odd,
        id=odd,
        session_id=odd,
        principal=Principal(odd, tenant=odd),
        args={odd: odd} if odd != "\ud800" else {},
    )
    invoke = around(Handler(ToolError("no", code=odd)), LogCalls(written.logger, args=True))
    await error_of(invoke(call))
    text = written.text
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    record = only(written)
    for name in ("tool", "subject", "tenant", "session_id", "call_id", "code", "arguments"):
        assert getattr(record, name).isprintable(), name


@given(subject=st.text(min_size=1, max_size=400), session_id=st.text(max_size=400))
def test_whatever_the_texts_are_a_record_is_one_line_of_bounded_length(subject: str, session_id: str) -> None:
    written = Written()
    call = a_call(principal=Principal(subject), session_id=session_id)
    run_jumping(lambda: invoke_in(written, call))
    assert written.text[:-1].isprintable()
    assert len(written.text) < 20_000
    if subject.isprintable() and len(subject) <= 256:
        assert only(written).subject == subject


async def invoke_in(written: Written, call: Any) -> None:
    await around(Handler(1), LogCalls(written.logger))(call)


@jumping
async def test_a_value_of_unknown_size_is_no_reason_to_fail(written: Written) -> None:
    shared: list[Any] = ["x"]
    for _ in range(60):
        shared = [shared, shared]
    for value in (object(), shared, "x" * (6 << 20)):
        assert await around(Handler(value), LogCalls(written.logger))(a_call()) is value
    assert [record.__dict__["result_bytes"] for record in written.records] == [None] * 3


@jumping
async def test_a_log_that_fails_costs_no_result() -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise OSError("the disk is full")

    written = Written()
    written.logger.addFilter(broken)
    with own_log() as told:
        assert await around(Handler("result"), LogCalls(written.logger))(a_call()) == "result"
        fault = ToolError("x")
        assert await error_of(around(Handler(fault), LogCalls(written.logger))(a_call())) is fault
    assert ["users:get" in record.getMessage() for record in told] == [True, True]


@jumping
async def test_the_level_is_the_hosts_choice(written: Written) -> None:
    await around(Handler(1), LogCalls(written.logger, level=logging.DEBUG))(a_call())
    assert written.records == []
    await around(Handler(1), LogCalls(written.logger, level=logging.WARNING))(a_call())
    assert only(written).levelname == "WARNING"


@pytest.mark.parametrize(
    "options", [{"logger": "calls"}, {"logger": None}, {"logger": logging.getLogger("x"), "args": "yes"}], ids=str
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="LogCalls"):
        LogCalls(**options)
