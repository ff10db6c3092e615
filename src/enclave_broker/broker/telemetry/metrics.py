"""The counters as Prometheus text, through a registry of the broker's own: the global one is the host's.

Pure, so that a thread can do it; http/metrics.py is who may ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from enclave_broker.broker.telemetry.counters import BOUNDS, Counters, Durations, Levels

__all__ = ["prometheus_text"]

_LE = [*(repr(bound) for bound in BOUNDS), "+Inf"]


def prometheus_text(counters: Counters, levels: Levels) -> bytes:
    """The text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counters, levels))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, counters: Counters, levels: Levels) -> None:
        self._counters = counters
        self._levels = levels

    def describe(self) -> Iterable[Metric]:
        """Nothing: else registering would collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._executions()
        yield from self._calls()

    def _gauges(self) -> Iterator[Metric]:
        levels = self._levels
        for name, what, value in (
            ("enclave_sessions_open", "Sessions that are not over.", levels.sessions_open),
            ("enclave_sessions_kept", "Sessions that can be read, those that are over included.", levels.sessions_kept),
            ("enclave_log_bytes", "What the logs of these sessions hold.", levels.log_bytes),
            ("enclave_workers", "Worker processes that are ready.", levels.workers),
            ("enclave_workers_memory_bytes", "Memory of the worker processes.", levels.workers_memory_bytes),
        ):
            yield GaugeMetricFamily(name, what, value=value)

    def _executions(self) -> Iterator[Metric]:
        counters = self._counters
        yield CounterMetricFamily("enclave_executions_started", "Scripts begun.", value=counters.executions_started)
        finished = CounterMetricFamily("enclave_executions_finished", "Scripts that are over.", labels=["status"])
        for status in ("completed", "failed", "cancelled"):
            finished.add_metric([status], counters.executions_finished[status])
        yield finished
        durations = HistogramMetricFamily("enclave_execution_duration_seconds", "From a script's start to its end.")
        _add(durations, [], counters.executions)
        yield durations

    def _calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("enclave_calls", "Tool calls that are over.", labels=["tool", "outcome"])
        durations = HistogramMetricFamily(
            "enclave_call_duration_seconds", "From a call's request to its outcome.", labels=["tool"]
        )
        for tool, counts in self._counters.tools.items():
            for outcome, number in counts.outcomes.items():
                calls.add_metric([tool, outcome], number)
            _add(durations, [tool], counts.durations)
        refused = CounterMetricFamily("enclave_calls_refused", "Tool calls that the policy refused.", labels=["code"])
        for code, number in self._counters.refused.items():
            refused.add_metric([code], number)
        yield from (calls, durations, refused)


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    family.add_metric(labels, list(zip(_LE, accumulate(durations.counts), strict=True)), durations.total)
