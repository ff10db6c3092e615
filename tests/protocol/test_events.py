"""Section "Events": each row of the table, and the lines that they are."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise

import pytest

from tests.protocol.client import HOLD, Enclave, hold, unique
from tests.protocol.streams import Json

BROKEN = "const line = 'a\\u2028b\\u2029c\\u0085d\\x0be\\x0cf\\x1cg\\rh'; console.log(line); return line"
EVERYTHING = """
console.log('a'); console.info('b'); console.debug('c'); console.warn('d'); console.error('e');
await tools.my.log({ level: 'info' }); await tools.my.progress({});
await tools.nothing({}).catch(() => 0); await tools.bad.crash({}).catch(() => 0);
Promise.reject(new Error('lost'));
"""


# -- lines -----------------------------------------------------------------------------------------------------------


def test_events_are_one_json_object_a_line_with_a_newline_after_each(enclave: Enclave) -> None:
    body = enclave.post("console.log(1); return 2").content
    assert body.endswith(b"}\n")
    lines = body.removesuffix(b"\n").split(b"\n")
    assert [json.loads(line)["type"] for line in lines] == ["session_init", "stdout", "final"]


def test_only_newline_ends_a_line(enclave: Enclave) -> None:
    run = enclave.run(BROKEN)
    assert run.types == ["session_init", "stdout", "final"]
    assert run.result == "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\rh"
    assert run.printed == f"{run.result}\n"


def test_an_event_has_version_session_seq_type_and_payload_and_nothing_else(enclave: Enclave) -> None:
    for event in enclave.run(EVERYTHING).events:
        assert set(event) == {"protocolVersion", "sessionId", "seq", "type", "payload"}


def test_no_type_is_sent_that_existing_clients_drop(enclave: Enclave) -> None:
    types = set(enclave.run(EVERYTHING).types)  # schema.py knows the rest of the table
    called = {"tool_call", "tool_progress", "tool_result_applied"}
    assert types - {"heartbeat"} == {"session_init", "stdout", "log", *called, "final"}


# -- session_init ----------------------------------------------------------------------------------------------------


def test_session_init_is_always_first_and_says_how_to_cancel(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        first = watch.next()
        assert watch.events[0]["type"] == "session_init"
        assert first["cancelUrl"] == f"/sessions/{watch.id}/cancel"
        assert enclave.request("POST", first["cancelUrl"]).status_code == 200
        assert watch.end().code == "SESSION_CANCELLED"


def test_session_init_is_first_also_when_nothing_can_run(enclave: Enclave) -> None:
    assert enclave.run("return 1 +").types == ["session_init", "final"]
    assert enclave.run("//" + "x" * 300_000).types == ["session_init", "final"]


def test_session_init_says_when_the_session_expires(enclave: Enclave) -> None:
    (first,) = (run := enclave.run("return 1", limits={"sessionTtlMs": 7_000})).of("session_init")
    info = enclave.info(run.id)
    assert info["expiresAt"] - info["createdAt"] == 7_000
    told = datetime.fromisoformat(first["expiresAt"]).timestamp() * 1_000
    assert abs(told - info["expiresAt"]) <= 1


def test_session_init_says_that_nothing_is_encrypted(enclave: Enclave) -> None:
    (first,) = enclave.run("return 1").of("session_init")
    assert first["encryption"] == {"enabled": False}


# -- stdout and log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["log", "info"])
def test_stdout_has_the_formatted_line_of_console_log_and_info_with_its_newline(enclave: Enclave, method: str) -> None:
    run = enclave.run(f"console.{method}('a', 1, {{ b: [true, null] }}); console.{method}()")
    first, second = run.of("stdout")
    assert set(first) == {"chunk"}
    assert first["chunk"].startswith("a 1 {")
    assert first["chunk"].endswith("}\n")
    assert first["chunk"].count("\n") == 1
    assert second == {"chunk": "\n"}


def test_stdout_has_a_line_of_several_lines_in_one_chunk(enclave: Enclave) -> None:
    assert enclave.run("console.log('a\\nb')").of("stdout") == [{"chunk": "a\nb\n"}]


@pytest.mark.parametrize("level", ["debug", "warn", "error"])
def test_log_has_level_and_message_of_console_debug_warn_and_error(enclave: Enclave, level: str) -> None:
    run = enclave.run(f"console.{level}('careful', 1)")
    assert run.types == ["session_init", "log", "final"]
    (log,) = run.of("log")
    assert (log["level"], log["message"]) == (level, "careful 1")


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_log_has_what_a_tool_says_and_its_data(enclave: Enclave, level: str) -> None:
    run = enclave.run(f"await tools.my.log({{ level: '{level}' }})")
    first, second = run.of("log")
    assert first == {"level": level, "message": "said by a tool"}
    assert second == {"level": level, "message": "with data", "data": {"order": 7, "tags": ["a"]}}


# -- calls -----------------------------------------------------------------------------------------------------------


def call_events(run_events: list[Json]) -> list[str]:
    """Types, and phases, of what is about calls."""
    names = ("tool_call", "tool_progress", "tool_result_applied")
    return [e["payload"].get("phase", e["type"]) for e in run_events if e["type"] in names]


CALLED = ["tool_call", "connecting", "processing", "tool_result_applied"]


def test_tool_call_has_id_name_and_arguments(enclave: Enclave) -> None:
    args = {"a": [1, 2.5, None, {"b": "é"}], "c": True}
    (call,) = enclave.run(f"await callTool('echo', {json.dumps(args)})").of("tool_call")
    assert set(call) == {"callId", "toolName", "args"}
    assert (call["toolName"], call["args"]) == ("echo", args)


def test_tool_call_without_arguments_has_an_empty_object(enclave: Enclave) -> None:
    (call,) = enclave.run("await callTool('ping')").of("tool_call")
    assert call["args"] == {}


def test_a_call_shows_as_call_connecting_processing_and_applied(enclave: Enclave) -> None:
    run = enclave.run("await tools.orders.get({ id: 1 })")
    assert call_events(run.events) == CALLED
    assert len({event["payload"]["callId"] for event in run.events if "callId" in event["payload"]}) == 1


@pytest.mark.parametrize("call", ["tools.orders.get({ id: 99 })", "tools.bad.crash({})"])
def test_a_call_that_failed_shows_the_same_and_the_script_may_catch_it(enclave: Enclave, call: str) -> None:
    run = enclave.run(f"try {{ await {call} }} catch (error) {{ return error.code }}")
    assert call_events(run.events) == CALLED
    assert run.result in {"NO_SUCH_ORDER", "EXECUTION_ERROR"}


@pytest.mark.parametrize("call", ["tools.nothing({})", "tools.orders.get({ id: 'x' })"])
def test_a_call_that_was_refused_is_applied_too(enclave: Enclave, call: str) -> None:
    run = enclave.run(f"await {call}.catch(() => 0)")
    shown = call_events(run.events)
    assert (shown[0], shown[-1]) == ("tool_call", "tool_result_applied")


def test_tool_progress_of_calls_at_once_is_told_apart_by_call_id(enclave: Enclave) -> None:
    run = enclave.run("await parallel([1, 2, 3], async (id) => tools.orders.get({ id }))")
    for id in {call["callId"] for call in run.of("tool_call")}:
        assert call_events([event for event in run.events if event["payload"].get("callId") == id]) == CALLED


def test_a_handlers_own_progress_is_merged_to_at_most_one_event_in_100_ms(enclave: Enclave) -> None:
    progress = enclave.run("await tools.my.progress({})").of("tool_progress")
    assert [event["phase"] for event in progress[:2]] == ["connecting", "processing"]
    own = progress[2:]
    assert own
    assert {event["phase"] for event in own} <= {"sending", "receiving", "processing"}
    assert all(event["totalBytes"] == 400 for event in own)
    done = [event["bytesReceived"] for event in own]
    assert done == sorted(set(done))
    assert done[-1] <= 400
    times = [event["elapsedMs"] for event in own]
    assert all(later - earlier >= 99 for earlier, later in pairwise(times)), times


# -- heartbeat -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [50, 1])
def test_a_heartbeat_has_its_time_and_comes_as_often_as_asked_but_not_below_50_ms(
    enclave: Enclave, interval: int
) -> None:
    with enclave.watching(hold(unique("gate")), config={"heartbeatIntervalMs": interval}) as watch:
        times = [datetime.fromisoformat(watch.next("heartbeat")["ts"]).timestamp() for _ in range(12)]
        enclave.cancel(watch.id)
        watch.end()
    fours = [later - earlier for earlier, later in zip(times, times[4:], strict=False)]
    assert times[-1] - times[0] >= 0.5  # eleven times 50 ms, less what wake-ups may bring together
    assert min(fours) < 0.3  # somewhere at least four came about as often as they were asked for


@pytest.mark.parametrize("interval", [20_000, 60_000])
def test_a_heartbeat_interval_of_20_s_and_above_is_taken(enclave: Enclave, interval: int) -> None:
    assert enclave.run("return 1", config={"heartbeatIntervalMs": interval}).result == 1
    assert enclave.run("return 1", limits={"heartbeatIntervalMs": interval}).result == 1


def test_heartbeats_are_made_only_while_a_reader_is_attached(enclave: Enclave) -> None:
    key, often = unique("gate"), {"heartbeatIntervalMs": 50}
    with enclave.watching(hold(key), config=often, detach=True) as watch:
        for _ in range(12):  # the server looks after readers that have been there for a while
            watch.next("heartbeat")
        left_after = watch.events[-1]["seq"]
    with enclave.watching(hold(key), config=often) as clock:
        for _ in range(20):
            clock.next("heartbeat")
        enclave.open(key)
    unseen = enclave.replay(watch.id, f"?fromSeq={left_after + 1}", first=left_after + 1)
    assert len(unseen.of("heartbeat")) <= 10
    assert unseen.result == "waited"


# -- deadline_exceeded -----------------------------------------------------------------------------------------------


def test_deadline_exceeded_comes_before_the_final_with_elapsed_and_budget(enclave: Enclave) -> None:
    run = enclave.run("console.log(1); await sleep(60000)", limits={"deadlineMs": 100})
    assert run.types == ["session_init", "stdout", "deadline_exceeded", "final"]
    (exceeded,) = run.of("deadline_exceeded")
    assert exceeded["budgetMs"] == 100
    assert exceeded["elapsedMs"] >= 100


# -- final -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("return null", None),
        ("return false", False),
        ("return 0", 0),
        ("return ''", ""),
        ("return [1, 'é', { a: null }]", [1, "é", {"a": None}]),
    ],
)
def test_final_has_ok_and_the_result(enclave: Enclave, code: str, result: object) -> None:
    final = enclave.run(code).final
    assert set(final) == {"ok", "result", "stats"}
    assert final["ok"] is True
    assert final["result"] == result
    assert type(final["result"]) is type(result)


@pytest.mark.parametrize("code", ["return", "return undefined", "", "await sleep(0)"])
def test_final_has_no_result_for_undefined(enclave: Enclave, code: str) -> None:
    assert "result" not in enclave.run(code).final


def test_final_has_the_error_with_message_code_and_stack(enclave: Enclave) -> None:
    final = enclave.run("function fails() { throw new Error('no') } fails()").final
    assert final["ok"] is False
    assert "result" not in final
    assert set(final["error"]) == {"message", "code", "stack"}
    assert (final["error"]["message"], final["error"]["code"]) == ("no", "EXECUTION_ERROR")
    assert "fails" in final["error"]["stack"]


def test_final_has_statistics(enclave: Enclave) -> None:
    stats = enclave.run("console.log('é'); await tools.orders.get({ id: 1 }); await callTool('ping')").final["stats"]
    assert set(stats) == {"durationMs", "toolCallCount", "stdoutBytes"}
    assert (stats["toolCallCount"], stats["stdoutBytes"]) == (2, 3)


@pytest.mark.parametrize(
    "code",
    [
        "return 1",
        "throw 1",
        "return 1 +",
        "tools.orders.get({ id: 1 }); tools.bad.crash({}); sleep(5).then(() => console.log(1)); return 1",
        "tools.my.log({ level: 'info' }).then(() => console.log('late')); throw new Error('no')",
        "function f() { return f() } f()",
        "await new Promise(() => {})",
    ],
)
def test_exactly_one_final_is_sent_and_it_is_the_last(enclave: Enclave, code: str) -> None:
    run = enclave.run(code)
    assert run.types.count("final") == 1
    assert run.types[-1] == "final"
    assert enclave.replay(run.id).events == run.events


def test_exactly_one_final_is_sent_to_each_of_several_readers(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(HOLD.replace("KEY", key)) as first, enclave.following(first.id) as second:
        first.next("tool_call")
        enclave.open(key)
        assert first.end().events == second.end().events
