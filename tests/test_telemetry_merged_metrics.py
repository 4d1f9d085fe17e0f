"""Metrics of several processes as those of one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.merged_metrics import counted, growing, rendered


class Process:
    """What one process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gateway_requests_total", "R.", ("outcome",), registry=self.registry
        )
        self.wait = Histogram("gateway_wait_seconds", "W.", registry=self.registry)
        self.slots = Gauge(
            "gateway_slots_in_use", "S.", ("name",), registry=self.registry
        )
        self.available = Gauge(
            "gateway_account_available", "A.", registry=self.registry
        )


def values(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_and_counting_gauges_are_added() -> None:
    one, other = Process(), Process()
    one.requests.labels("ok").inc(3)
    other.requests.labels("ok").inc(4)
    other.requests.labels("failed").inc()  # which the first has not had
    one.wait.observe(0.1)
    other.wait.observe(9.0)
    one.slots.labels("alice").set(2)
    other.slots.labels("alice").set(1)
    one.available.set(1)
    other.available.set(1)
    metrics = list(other.registry.collect())
    found = values(rendered(one.registry, {**growing(metrics), **counted(metrics)}))

    assert 7 == found["gateway_requests_total", "ok"]
    assert 1 == found["gateway_requests_total", "failed"]
    assert 2 == found["gateway_wait_seconds_count",]
    assert 2 == found["gateway_wait_seconds_bucket", "+Inf"]
    assert 1 == found["gateway_wait_seconds_bucket", "0.1"]
    assert 3 == found["gateway_slots_in_use", "alice"]
    assert 1 == found["gateway_account_available",]


def test_what_is_there_now_does_not_count_as_growing() -> None:
    one = Process()
    one.slots.labels("alice").set(2)
    one.requests.labels("ok").inc()

    assert all("slots" not in key for key in growing(one.registry.collect()))
    assert 1 == len(counted(one.registry.collect()))
    assert values(rendered(one.registry, {'["gone_total"]': 1.0}))
