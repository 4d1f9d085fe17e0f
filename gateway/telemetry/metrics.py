"""
What Prometheus reads: counted from records as they end, looked up when it asks.

Rule 1: the names are the contract's; a test compares them.
Rule 2: a label has a bounded number of values. What a client writes (a model's name)
        takes a place only once an account has served tokens for it, and is ``other``
        when there are too many. A name that the config holds always has its place.
Rule 3: counting is one look-up and one addition; families, samples and gauges are
        made when somebody asks. Both happen on the event loop, so there is no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.record import Record
from gateway.usage import Usage

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
        configured: whether the config names a model (second) for an account (first).
        lines_lost: log lines that could not be written.
    """

    def __init__(
        self,
        slots: Callable[[], Iterable[SlotCount]],
        accounts: Callable[[], Mapping[str, Mapping[str, Any]]],
        waiting: Callable[[], int] = lambda: 0,
        configured: Callable[[str, str], bool] = lambda account, model: False,
        lines_lost: Callable[[], int] = lambda: 0,
    ) -> None:
        self._lines_lost = lines_lost
        self._configured = configured
        self._make_counters()
        self._make_histograms()
        self._models: dict[str, int] = {}  # how many of each account are counted
        # By account and model, one number for each of TOKENS.
        self._token_counts: dict[tuple[str, str], list[int]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(self._counted))
        self._registry.register(_Now(slots, accounts, waiting))

    def add(self, record: Record) -> None:
        """Count a record that has ended."""
        protocol, outcome = record.protocol, record.outcome
        requests, endings = self._requests, self._endings
        key = protocol, outcome, record.origin
        requests[key] = requests.get(key, 0) + 1
        if record.stream and record.status == 200:
            # The same words in every protocol, as the client saw it.
            end = protocol, ENDINGS.get(outcome, "failed")
            endings[end] = endings.get(end, 0) + 1
        if record.queue_ms is not None:
            self._queue_wait.observe(record.queue_ms / 1000)
        if record.first_event_ms is not None:
            self._first_event.observe(record.first_event_ms / 1000)
        for attempt in record.attempts:
            if attempt.error_code not in NO_FAILURE:
                failure = attempt.account, attempt.error_code
                self._failures[failure] = self._failures.get(failure, 0) + 1
        if record.account:
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
        self._requests = _Counter(
            "gateway_requests_total",
            "Requests that have ended.",
            ("protocol", "outcome", "origin"),
        )
        self._endings = _Counter(
            "gateway_stream_endings_total",
            "Streams by how they ended: completed, incomplete, failed, client_gone.",
            ("protocol", "ending"),
        )
        self._failures = _Counter(
            "gateway_upstream_failures_total",
            "Attempts that failed.",
            ("account", "code"),
        )

    def _make_histograms(self) -> None:
        self._queue_wait = _Histogram(
            "gateway_queue_wait_seconds", "Wait for the slots.", WAIT_S
        )
        self._first_event = _Histogram(
            "gateway_first_event_seconds",
            "From the request to the first output.",
            FIRST_EVENT_S,
        )
        self._lag = _Histogram(
            "gateway_event_loop_lag_seconds", "How late the event loop was.", LAG_S
        )
        self._commit = _Histogram(
            "gateway_ledger_commit_seconds",
            "Wait of an ending for its row in the ledger.",
            COMMIT_S,
        )

    def _count_tokens(self, record: Record) -> None:
        usage, key = record.usage, (record.account, record.upstream_model)
        counts = self._token_counts.get(key)
        if counts is None:
            if not _has_tokens(usage):
                return
            counts = self._new_token_counts(*key)
        # One by one: a loop costs more than all five additions.
        if usage.input_tokens:
            counts[0] += usage.input_tokens
        if usage.cached_tokens:
            counts[1] += usage.cached_tokens
        if usage.cache_write_tokens:
            counts[2] += usage.cache_write_tokens
        if usage.output_tokens:
            counts[3] += usage.output_tokens
        if usage.reasoning_tokens:
            counts[4] += usage.reasoning_tokens

    def _new_token_counts(self, account: str, model: str) -> list[int]:
        """Where to count *model*, which is not counted yet."""
        if not self._configured(account, model):
            known = self._models.get(account, 0)
            if known >= MAX_MODELS:
                model = OTHER
            else:
                self._models[account] = known + 1
        return self._token_counts.setdefault((account, model), [0] * len(TOKENS))

    def _counted(self) -> Iterator[Metric]:
        """All that is counted, as families."""
        yield from (self._requests.family(), self._endings.family())
        yield self._failures.family()
        tokens = _Counter(
            "gateway_tokens_total",
            "Tokens by kind; cached and cache_write are part of input,"
            " reasoning of output.",
            ("account", "model", "kind"),
        )
        for key, counts in self._token_counts.items():
            tokens.update({(*key, kind): n for kind, n in zip(TOKENS, counts) if n})
        yield tokens.family()
        lost = CounterMetricFamily(
            "gateway_log_lines_lost_total", "Log lines that could not be written."
        )
        lost.add_metric((), self._lines_lost())
        yield lost
        waits = (self._queue_wait, self._first_event, self._lag, self._commit)
        yield from (one.family() for one in waits)


def _has_tokens(usage: Usage) -> bool:
    """Whether *usage* holds any of TOKENS."""
    return bool(
        usage.input_tokens
        or usage.cached_tokens
        or usage.cache_write_tokens
        or usage.output_tokens
        or usage.reasoning_tokens
    )


class _Counter(dict[tuple[str, ...], int]):
    """What has been counted, by the values of *labels*."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        super().__init__()
        self._about = name, text, labels

    def family(self) -> Metric:
        """Everything so far; no sample for what was never counted."""
        name, text, labels = self._about
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in self.items():
            family.add_metric(values, count)
        return family


class _Histogram:
    """Seconds, counted by the first of *bounds* that they do not exceed."""

    __slots__ = ("_about", "_bounds", "_counts", "_sum")

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self._about = name, text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self) -> Metric:
        """Everything so far, zeros too."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts)))
        return HistogramMetricFamily(*self._about, buckets, self._sum)


class _Collected(Collector):
    """What was counted, in the form that the library writes."""

    def __init__(self, counted: Callable[[], Iterable[Metric]]) -> None:
        self._counted = counted

    def collect(self) -> Iterable[Metric]:
        """All counters and histograms."""
        return self._counted()


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
