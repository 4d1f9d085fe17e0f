"""What Prometheus reads of the engine that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class SlotsOver(NamedTuple):
    """How many slots of a user or account are in use beyond its limit."""

    scope: str
    name: str
    over: int


class EngineMetrics(Collector):
    """
    Args:
        is_up: whether the engine decides.
        over: where more runs than the limit says.
    """

    def __init__(
        self, is_up: Callable[[], bool], over: Callable[[], Iterable[SlotsOver]]
    ) -> None:
        self._is_up = is_up
        self._over = over

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Both, as they are now."""
        up = GaugeMetricFamily(
            "gateway_engine_up", "1 while the engine decides who is next."
        )
        up.add_metric((), float(self._is_up()))
        over = GaugeMetricFamily(
            "gateway_slots_over",
            "Slots in use beyond the limit, by all processes.",
            labels=("scope", "name"),
        )
        for one in self._over():
            over.add_metric((one.scope, one.name), one.over)
        yield from (up, over)
