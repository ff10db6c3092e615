"""The numbers of a broker and their text, without a broker."""

from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from enclave_broker.broker.telemetry.counters import BOUNDS, MAX_TOOLS, NO_TOOL, OTHER_TOOLS, Counters, Levels
from enclave_broker.broker.telemetry.metrics import prometheus_text

LEVELS = Levels(sessions_open=2, sessions_kept=5, log_bytes=1234, workers=1, workers_memory_bytes=10_000_000)


def samples(counters: Counters) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of the labels' names."""
    text = prometheus_text(counters, LEVELS).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_calls_are_counted_by_tool_and_outcome() -> None:
    counters = Counters()
    for outcome in ("done", "done", "failed", "unknown", "not_run"):
        counters.call("orders:get", outcome, "", 0.1)
    counters.call(NO_TOOL, "denied", "UNKNOWN_TOOL", 0.1)
    found = samples(counters)
    assert found["enclave_calls_total", "done", "orders:get"] == 2
    assert found["enclave_calls_total", "failed", "orders:get"] == 1
    assert found["enclave_calls_total", "unknown", "orders:get"] == 1
    assert found["enclave_calls_total", "not_run", "orders:get"] == 1
    assert found["enclave_calls_total", "denied", NO_TOOL] == 1


def test_refused_calls_are_counted_by_code() -> None:
    counters = Counters()
    for code in ("RATE_LIMITED", "RATE_LIMITED", "ACCESS_DENIED"):
        counters.call("orders:get", "denied", code, 0.1)
    counters.call("orders:get", "failed", "NO_SUCH_ORDER", 0.1)
    found = samples(counters)
    assert {key[1]: value for key, value in found.items() if key[0] == "enclave_calls_refused_total"} == {
        "RATE_LIMITED": 2,
        "ACCESS_DENIED": 1,
    }


def test_durations_are_a_cumulative_histogram() -> None:
    counters = Counters()
    for seconds in (0.0005, BOUNDS[0], 0.3, 1_000.0):
        counters.call("orders:get", "done", "", seconds)
    found = samples(counters)
    bucket = "enclave_call_duration_seconds_bucket"
    assert found[bucket, "0.001", "orders:get"] == 2
    assert found[bucket, "0.25", "orders:get"] == 2
    assert found[bucket, "0.5", "orders:get"] == 3
    assert found[bucket, "300.0", "orders:get"] == 3
    assert found[bucket, "+Inf", "orders:get"] == 4
    assert found["enclave_call_duration_seconds_count", "orders:get"] == 4
    assert found["enclave_call_duration_seconds_sum", "orders:get"] == 0.0005 + BOUNDS[0] + 0.3 + 1_000.0


def test_executions_are_counted_by_how_they_ended() -> None:
    counters = Counters()
    counters.executions_started = 3
    counters.execution("completed", 0.2)
    counters.execution("failed", 0.2)
    found = samples(counters)
    assert found["enclave_executions_started_total",] == 3
    assert found["enclave_executions_finished_total", "completed"] == 1
    assert found["enclave_executions_finished_total", "failed"] == 1
    assert found["enclave_executions_finished_total", "cancelled"] == 0
    assert found["enclave_execution_duration_seconds_bucket", "0.25"] == 2


def test_what_goes_up_and_down_is_as_it_was_given() -> None:
    found = samples(Counters())
    assert found["enclave_sessions_open",] == 2
    assert found["enclave_sessions_kept",] == 5
    assert found["enclave_log_bytes",] == 1234
    assert found["enclave_workers",] == 1
    assert found["enclave_workers_memory_bytes",] == 10_000_000


def test_tools_that_come_and_go_make_no_endless_series() -> None:
    counters = Counters()
    for number in range(MAX_TOOLS + 50):
        counters.call(f"tool{number}", "done", "", 0.1)
    counters.call(NO_TOOL, "denied", "UNKNOWN_TOOL", 0.1)
    counters.call("tool0", "done", "", 0.1)
    assert len(counters.tools) == MAX_TOOLS + 2
    assert counters.tools[OTHER_TOOLS].outcomes["done"] == 50
    assert counters.tools["tool0"].outcomes["done"] == 2
    assert counters.tools[NO_TOOL].outcomes["denied"] == 1


def test_the_registry_of_the_process_has_none_of_it() -> None:
    prometheus_text(Counters(), LEVELS)
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("enclave")]


def test_a_copy_stays_as_it_was() -> None:
    counters = Counters()
    counters.call("orders:get", "denied", "RATE_LIMITED", 0.1)
    counters.executions_started = 1
    counters.execution("failed", 1.0)
    before, copy = samples(counters), counters.copy()
    counters.call("orders:get", "denied", "RATE_LIMITED", 0.2)
    counters.call("orders:put", "done", "", 0.1)
    counters.executions_started = 2
    counters.execution("failed", 1.0)
    assert samples(copy) == before
