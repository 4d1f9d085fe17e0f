"""
Metrics of several processes as those of one.

Rule 1: counters and histograms of processes that have ended stay in the sum, so they
        never fall.
Rule 2: of gauges only those are added that count something; others are this process's.

A sample is named by its name and labels, in one text: ``Samples`` are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

GROWING = ("counter", "histogram")
COUNTED = frozenset(
    {
        *("gateway_slots_in_use", "gateway_queue_waiting", "gateway_ledger_waiting"),
        "gateway_websockets_open",
    }
)
"""Gauges whose sum over the processes of a host is the host's."""

Samples = dict[str, float]


def growing(metrics: Iterable[Metric]) -> Samples:
    """What only grows."""
    return _samples(one for one in metrics if one.type in GROWING)


def counted(metrics: Iterable[Metric]) -> Samples:
    """What is there at this moment, and can be added."""
    return _samples(one for one in metrics if one.name in COUNTED)


def _samples(metrics: Iterable[Metric]) -> Samples:
    return {
        _key(sample.name, sample.labels): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def _key(name: str, labels: dict[str, str]) -> str:
    return json.dumps([name, *sorted(labels.items())])


class _Merged:
    """A registry of *own* metrics, to which those of *others* are added."""

    def __init__(self, own: Iterable[Metric], others: Samples) -> None:
        self._own = own
        self._others = others

    def collect(self) -> Iterator[Metric]:
        left = dict(self._others)
        families = []
        for metric in self._own:
            merged = Metric(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                more = left.pop(_key(sample.name, sample.labels), 0.0)
                merged.add_sample(sample.name, sample.labels, sample.value + more)
            families.append(merged)
        names = {}
        for metric in families:
            for suffix in ("", "_total", "_bucket", "_count", "_sum", "_created"):
                names[metric.name + suffix] = metric
        for key, value in left.items():  # with labels that this process has not had
            name, *labels = json.loads(key)
            if name in names:
                names[name].add_sample(name, dict(labels), value)
        yield from families


def rendered(registry: CollectorRegistry, others: Samples) -> bytes:
    """The metrics of *registry* with those of *others* added, as Prometheus text."""
    merged: Any = _Merged(registry.collect(), others)
    return generate_latest(merged)
