"""
Counters and histograms that cost a request an addition each.

The library's own take a lock and half a dozen calls for one. These are counted on the
event loop alone, and become the library's when Prometheus asks: its names, its text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count(dict[tuple[str, ...], float]):
    """
    A counter: its value by those of its labels.

    Args:
        name: with ``_total``.
    """

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        super().__init__()
        self._name, self._text, self._labels = name, text, labels

    def __missing__(self, values: tuple[str, ...]) -> float:
        return 0.0

    def metric(self) -> Metric:
        """What Prometheus reads."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, value in self.items():
            family.add_metric(values, value)
        return family


class Spread:
    """
    A histogram without labels.

    Args:
        bounds: the upper ends of its buckets, without the last, endless one.
    """

    __slots__ = ("_name", "_text", "_bounds", "_counts", "_sum")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def metric(self) -> Metric:
        """What Prometheus reads."""
        buckets, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts):
            below += count
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]  # it has none
            buckets.append((le, float(below)))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric((), buckets, self._sum)
        return family


class Counted(Collector):
    """All of a process's, in their order."""

    def __init__(self) -> None:
        self._all: list[Count | Spread] = []

    def count(self, name: str, text: str, labels: tuple[str, ...]) -> Count:
        """A new counter."""
        made = Count(name, text, labels)
        self._all.append(made)
        return made

    def spread(self, name: str, text: str, bounds: Sequence[float]) -> Spread:
        """A new histogram."""
        made = Spread(name, text, bounds)
        self._all.append(made)
        return made

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        for one in self._all:
            yield one.metric()
