"""
What Prometheus reads: counted from records as they end, looked up when it asks.

Rule 1: the names are the contract's; a test compares them.
Rule 2: a label has a bounded number of values. What a client writes (a model's name)
        takes a place only once an account has served tokens for it, and is ``other``
        when there are too many. A name that the config holds always has its place.
Rule 3: a counter's child is looked up by its label values in a dict of our own; the
        library's ``labels`` takes longer than the count itself.
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
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.errors import UPSTREAM_CODES
from gateway.record import Record
from gateway.telemetry.merged_metrics import Samples, counted, growing, rendered

MAX_MODELS = 200  # of one account, as label values
OTHER = "other"
WAIT_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
FIRST_EVENT_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600)
LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
ENDINGS = {
    "ok": "completed",
    "incomplete": "incomplete",
    "client_gone": "client_gone",
}


class SlotUsage(Protocol):
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
        configured: whether the config names a model (second) for an account (first).
        lines_lost: log lines that could not be written.
        websockets: those of clients that are open now.

    Its methods are called on the event loop alone.
    """

    def __init__(
        self,
        slots: Callable[[], Iterable[SlotUsage]],
        accounts: Callable[[], Mapping[str, Mapping[str, Any]]],
        waiting: Callable[[], int] = lambda: 0,
        configured: Callable[[str, str], bool] = lambda account, model: False,
        lines_lost: Callable[[], int] = lambda: 0,
        websockets: Callable[[], int] = lambda: 0,
    ) -> None:
        # Else each counter has a second series that says when it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._configured = configured
        self._registry = CollectorRegistry()
        self._make_counters()
        self._make_histograms()
        self._models: dict[str, int] = {}  # how many of each account are counted
        self._labels: dict[tuple[str, str], str] = {}  # of a model, by account and name
        live = _LiveMetrics(slots, accounts, waiting, lines_lost, websockets)
        self._registry.register(live)

    def add(self, record: Record) -> None:
        """Count a record that has ended."""
        protocol, outcome = record.protocol, record.outcome
        self._requests[protocol, outcome, record.origin].inc()
        if record.stream and record.status == 200:
            # The same words in every protocol, as the client saw it.
            self._endings[protocol, ENDINGS.get(outcome, "failed")].inc()
        if record.queue_ms is not None:
            self._queue_wait.observe(record.queue_ms / 1000)
        if record.first_event_ms is not None:
            self._first_event.observe(record.first_event_ms / 1000)
        for attempt in record.attempts:
            if attempt.error_code in UPSTREAM_CODES:
                self._failures[attempt.account, attempt.error_code].inc()
        if record.account:
            self._count_tokens(record)

    def watch(self, collector: Collector) -> None:
        """Show what *collector* knows, too."""
        self._registry.register(collector)

    def commit_waited(self, seconds: float) -> None:
        """An ending has waited *seconds* for its row."""
        self._commit.observe(seconds)

    def lagged(self, seconds: float) -> None:
        """The event loop was *seconds* late."""
        self._lag.observe(seconds)

    def render(self, others: Samples | None = None) -> tuple[bytes, str]:
        """
        Everything as Prometheus text, and its content type.

        Args:
            others: what other processes of this host have counted.
        """
        return rendered(self._registry, others or {}), CONTENT_TYPE_LATEST

    def growing(self) -> Samples:
        """Counters and histograms, for another process."""
        return growing(self._registry.collect())

    def counted(self) -> Samples:
        """Gauges that can be added, for another process."""
        return counted(self._registry.collect())

    def _make_counters(self) -> None:
        self._requests = self._counter(
            "gateway_requests_total",
            "Requests that have ended.",
            ("protocol", "outcome", "origin"),
        )
        self._endings = self._counter(
            "gateway_stream_endings_total",
            "Streams by how they ended: completed, incomplete, failed, client_gone.",
            ("protocol", "ending"),
        )
        self._failures = self._counter(
            "gateway_upstream_failures_total",
            "Attempts that failed.",
            ("account", "code"),
        )
        self._tokens = self._counter(
            "gateway_tokens_total",
            "Tokens by kind; cached and cache_write are part of input,"
            " reasoning of output.",
            ("account", "model", "kind"),
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> _Children:
        return _Children(Counter(name, text, labels, registry=self._registry))

    def _make_histograms(self) -> None:
        self._queue_wait = self._histogram(
            "gateway_queue_wait_seconds", "Wait for the slots.", WAIT_S
        )
        self._first_event = self._histogram(
            "gateway_first_event_seconds",
            "From the request to the first output.",
            FIRST_EVENT_S,
        )
        self._lag = self._histogram(
            "gateway_event_loop_lag_seconds", "How late the event loop was.", LAG_S
        )
        self._commit = self._histogram(
            "gateway_ledger_commit_seconds",
            "Wait of an ending for its row in the ledger.",
            COMMIT_S,
        )

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=bounds, registry=self._registry)

    def _count_tokens(self, record: Record) -> None:
        account, usage, model = record.account, record.usage, ""
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cached", usage.cached_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                model = model or self._model_label(account, record.upstream_model)
                self._tokens[account, model, kind].inc(tokens)

    def _model_label(self, account: str, model: str) -> str:
        """Under which name tokens of *model* are counted, which has served some."""
        label = self._labels.get((account, model))
        if label is not None:
            return label
        if not self._configured(account, model):
            known = self._models.get(account, 0)
            if known >= MAX_MODELS:
                return OTHER
            self._models[account] = known + 1
        return self._labels.setdefault((account, model), model)


class _Children(dict[tuple[str, ...], Counter]):
    """A counter's children by their label values; each is made when it is counted."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __missing__(self, values: tuple[str, ...]) -> Counter:
        child = self[values] = self._counter.labels(*values)
        return child


class _LiveMetrics(Collector):
    """What other parts of the gateway know, read when Prometheus asks."""

    def __init__(
        self,
        slots: Callable[[], Iterable[SlotUsage]],
        accounts: Callable[[], Mapping[str, Mapping[str, Any]]],
        waiting: Callable[[], int],
        lines_lost: Callable[[], int],
        websockets: Callable[[], int],
    ) -> None:
        self._slots = slots
        self._accounts = accounts
        self._waiting = waiting
        self._lines_lost = lines_lost
        self._websockets = websockets

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: those parts may not exist yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        lost = CounterMetricFamily(
            "gateway_log_lines_lost_total", "Log lines that could not be written."
        )
        lost.add_metric((), self._lines_lost())
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
        sockets = GaugeMetricFamily(
            "gateway_websockets_open", "Websockets of clients that are open."
        )
        sockets.add_metric((), self._websockets())
        yield from (lost, in_use, waiting, available, rows, sockets)
