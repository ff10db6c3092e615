"""GET /metrics: what it says, and to whom."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from enclave_broker import Broker, Principal
from tests.http.live import Live, refusal, serving

KEYS = {
    "Bearer scraper": Principal("prometheus", tenant="operators", roles=frozenset({"metrics"})),
    "Bearer a": Principal("ann", tenant="acme", roles=frozenset({"admin"})),
    "Bearer o": Principal("olga", tenant="other", roles=frozenset({"numbers"})),
}
SCRAPER, ANN, OLGA = ({"Authorization": key} for key in KEYS)


async def by_key(request: Request) -> Principal:
    return KEYS[request.headers["authorization"]]


def samples(response: httpx.Response) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of the labels' names."""
    assert response.status_code == 200, response.text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_are_prometheus_text_about_calls_and_runs(live: Live) -> None:
    live.run("await tools.orders.get({ id: 1 }); await tools.orders.get({ id: 2 })")
    live.run("await tools.orders.get({ id: 9 })")
    live.run("await callTool('made:up', {})")
    response = live.client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    found = samples(response)
    assert found["enclave_calls_total", "done", "orders:get"] == 2
    assert found["enclave_calls_total", "failed", "orders:get"] == 1
    assert found["enclave_calls_total", "denied", "(none)"] == 1
    assert found["enclave_calls_refused_total", "UNKNOWN_TOOL"] == 1
    assert found["enclave_call_duration_seconds_count", "orders:get"] == 3
    assert found["enclave_executions_started_total",] == 3
    assert found["enclave_executions_finished_total", "completed"] == 1
    assert found["enclave_executions_finished_total", "failed"] == 2
    assert found["enclave_execution_duration_seconds_count",] == 3
    assert (found["enclave_sessions_open",], found["enclave_sessions_kept",]) == (0, 3)
    assert found["enclave_log_bytes",] > 0


def test_what_goes_on_is_counted_while_it_does(live: Live) -> None:
    with live.streaming("await tools.wait({})") as stream:
        stream.next("tool_call")
        found = samples(live.client.get("/metrics"))
        assert found["enclave_sessions_open",] == 1
        live.client.post(f"/sessions/{stream.id}/cancel")
        stream.next("final")
    found = samples(live.client.get("/metrics"))
    assert found["enclave_sessions_open",] == 0
    assert found["enclave_calls_total", "unknown", "wait"] == 1
    assert found["enclave_executions_finished_total", "cancelled"] == 1


def test_workers_are_counted_with_their_memory() -> None:
    with serving(Broker()) as live:
        live.run("return 1")
        found = samples(live.client.get("/metrics"))
    assert found["enclave_workers",] >= 1
    assert found["enclave_workers_memory_bytes",] > 1_000_000


def test_nothing_of_a_script_or_a_principal_is_in_it(shop: Broker) -> None:
    with serving(shop, auth=by_key) as live:
        live.post("await callTool('xyzzy', { xyzzy: 'xyzzy' }).catch(() => 0); throw new Error('xyzzy')", headers=ANN)
        text = live.client.get("/metrics", headers=SCRAPER).text
    assert samples_of_refused(text) == {"UNKNOWN_TOOL"}
    assert not [word for word in ("xyzzy", "ann", "acme", "prometheus", "operators") if f'"{word}' in text]


def samples_of_refused(text: str) -> set[str]:
    return {
        sample.labels["code"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "enclave_calls_refused_total"
    }


def test_who_is_unknown_is_refused(shop: Broker) -> None:
    with serving(shop, auth=by_key) as live:
        assert refusal(live.client.get("/metrics")) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "TRACE"])
def test_without_the_role_there_is_nothing_at_this_path(shop: Broker, method: str) -> None:
    with serving(shop, auth=by_key) as live:
        answers = [live.client.request(method, path, headers=ANN) for path in ("/metrics", "/nothing")]
    here, nowhere = ((answer.status_code, answer.content, {**answer.headers, "date": ""}) for answer in answers)
    assert here == nowhere
    assert here[0] == 404


def test_the_role_is_the_hosts_to_choose(shop: Broker) -> None:
    with serving(shop, auth=by_key, metrics_role="numbers") as live:
        assert live.client.get("/metrics", headers=OLGA).status_code == 200
        assert refusal(live.client.get("/metrics", headers=SCRAPER)) == (404, "NOT_FOUND")


def test_other_methods_are_refused_to_who_may_read_it(live: Live) -> None:
    assert live.client.head("/metrics").status_code == 200
    response = live.client.post("/metrics")
    assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"
