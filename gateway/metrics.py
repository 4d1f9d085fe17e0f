"""
What Prometheus reads: counted from records as they end, looked up when it asks.

Rule 1: the names are the contract's; a test compares them.
Rule 2: a label has a bounded number of values. What a client writes (a model's name)
        counts only once an upstream has answered to it, and is ``other`` when there
        are too many.
Rule 3: nothing is computed for a gauge before somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.record import Record

MAX_MODELS = 200  # of one account, as label values
OTHER = "other"
WAIT_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
FIRST_EVENT_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600)
LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
NO_FAILURE = ("", "passed_on")  # the latter: the client's own mistake
ENDINGS = {
    "ok": "completed",
    "incomplete": "incomplete",
    "client_gone": "client_gone",
}
TOKENS = ("input", "cached", "cache_write", "output", "reasoning")

# One more series for each one, with the moment it was made: nobody asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission


class SlotCount(Protocol):
    """The slots of one user or account, at this moment."""

    @property
    def scope(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def in_use(self) -> int: ...
    @property
    def waiting(self) -> int: ...


class Metrics:
    """
    Args:
        slots: every user's and account's slots now.
        accounts: every account's state now; "available" says whether it takes work.
        waiting: the ledger's entries that are not written yet.
    """

    def __init__(
        self,
        slots: Callable[[], Iterable[SlotCount]],
        accounts: Callable[[], Mapping[str, Mapping[str, Any]]],
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, set[str]] = {}
        self._make_counters()
        self._make_histograms()
        self._registry.register(_Now(slots, accounts, waiting))

    def add(self, record: Record) -> None:
        """Count a record that has ended."""
        protocol = record.protocol
        self._requests.labels(protocol, record.outcome, record.origin).inc()
        if record.stream and record.status == 200:
            self._endings.labels(protocol, _ending(record)).inc()
        if record.queue_ms is not None:
            self._queue_wait.observe(record.queue_ms / 1000)
        if record.first_event_ms is not None:
            self._first_event.observe(record.first_event_ms / 1000)
        for attempt in record.attempts:
            if attempt.error_code not in NO_FAILURE:
                self._failures.labels(attempt.account, attempt.error_code).inc()
        self._count_tokens(record)

    def commit_waited(self, seconds: float) -> None:
        """An ending has waited *seconds* for its row."""
        self._commit.observe(seconds)

    def lagged(self, seconds: float) -> None:
        """The event loop was *seconds* late."""
        self._lag.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """Everything as Prometheus text, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _make_counters(self) -> None:
        own = self._registry
        self._requests = Counter(
            "gateway_requests_total",
            "Requests that have ended.",
            ("protocol", "outcome", "origin"),
            registry=own,
        )
        self._endings = Counter(
            "gateway_stream_endings_total",
            "Streams by how they ended: completed, incomplete, failed, client_gone.",
            ("protocol", "ending"),
            registry=own,
        )
        self._failures = Counter(
            "gateway_upstream_failures_total",
            "Attempts that failed.",
            ("account", "code"),
            registry=own,
        )
        self._tokens = Counter(
            "gateway_tokens_total",
            "Tokens by kind; cached and cache_write are part of input,"
            " reasoning of output.",
            ("account", "model", "kind"),
            registry=own,
        )

    def _make_histograms(self) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=self._registry)

        self._queue_wait = histogram(
            "gateway_queue_wait_seconds", "Wait for the slots.", WAIT_S
        )
        self._first_event = histogram(
            "gateway_first_event_seconds",
            "From the request to the first output.",
            FIRST_EVENT_S,
        )
        self._lag = histogram(
            "gateway_event_loop_lag_seconds", "How late the event loop was.", LAG_S
        )
        self._commit = histogram(
            "gateway_ledger_commit_seconds",
            "Wait of an ending for its row in the ledger.",
            COMMIT_S,
        )

    def _count_tokens(self, record: Record) -> None:
        usage, account = record.usage, record.account
        if not account:
            return
        counts = (
            usage.input_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        )
        model = self._model(account, record.upstream_model)
        for kind, count in zip(TOKENS, counts):
            if count:
                self._tokens.labels(account, model, kind).inc(count)

    def _model(self, account: str, model: str) -> str:
        known = self._models.setdefault(account, set())
        if model not in known:
            if len(known) >= MAX_MODELS:
                return OTHER
            known.add(model)
        return model


class _Now(Collector):
    """The gauges: read from the rooms when they are asked for."""

    def __init__(
        self,
        slots: Callable[[], Iterable[SlotCount]],
        accounts: Callable[[], Mapping[str, Mapping[str, Any]]],
        waiting: Callable[[], int],
    ) -> None:
        self._slots = slots
        self._accounts = accounts
        self._waiting = waiting

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the rooms may not be there yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All gauges, now."""
        labels = ("scope", "name")
        in_use = GaugeMetricFamily(
            "gateway_slots_in_use", "Slots that are held.", labels=labels
        )
        waiting = GaugeMetricFamily(
            "gateway_queue_waiting", "Requests that wait for a slot.", labels=labels
        )
        for count in self._slots():
            in_use.add_metric((count.scope, count.name), count.in_use)
            waiting.add_metric((count.scope, count.name), count.waiting)
        available = GaugeMetricFamily(
            "gateway_account_available",
            "1 while the account takes requests.",
            labels=("account",),
        )
        for name, state in self._accounts().items():
            available.add_metric((name,), 1.0 if state["available"] else 0.0)
        rows = GaugeMetricFamily(
            "gateway_ledger_waiting", "Ledger entries that are not written yet."
        )
        rows.add_metric((), self._waiting())
        yield from (in_use, waiting, available, rows)


def _ending(record: Record) -> str:
    """The word for the ending that a client saw, the same in every protocol."""
    return ENDINGS.get(record.outcome, "failed")
