"""What Prometheus sees."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config.schema import Account
from gateway.record import AttemptRecord, Record
from gateway.telemetry import metrics as metrics_module
from gateway.telemetry.metrics import Metrics
from gateway.usage import Usage

CONTRACT = {
    "gateway_requests_total": {"protocol", "outcome", "origin"},
    "gateway_stream_endings_total": {"protocol", "ending"},
    "gateway_slots_in_use": {"scope", "name"},
    "gateway_queue_waiting": {"scope", "name"},
    "gateway_queue_wait_seconds": set(),
    "gateway_first_event_seconds": set(),
    "gateway_upstream_failures_total": {"account", "code"},
    "gateway_account_available": {"account"},
    "gateway_tokens_total": {"account", "model", "kind"},
    "gateway_event_loop_lag_seconds": set(),
    "gateway_log_lines_lost_total": set(),
}
SUFFIX = re.compile(r"_(bucket|sum|count)$")


class Slots(NamedTuple):
    scope: str
    name: str
    in_use: int
    waiting: int


SLOTS = [Slots("user", "alice", 3, 2), Slots("account", "openai-1", 1, 0)]
ACCOUNTS = {"openai-1": {"available": True}, "openai-2": {"available": False}}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: SLOTS, lambda: ACCOUNTS, lambda: 7)


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values, in the order of the label names."""
    text, _ = metrics.render()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def ended(outcome: str = "ok", origin: str = "", **fields: object) -> Record:
    record = Record("r", 0.0, 0.0, protocol="responses", stream=True, status=200)
    record.account = record.upstream_model = "openai-1"
    record.upstream_model = "gpt-5"
    record.set_outcome(outcome, origin)
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_the_names_and_labels_are_those_of_the_contract(metrics: Metrics) -> None:
    record = ended(queue_ms=1.0, first_event_ms=1.0, usage=Usage(1, 1, 1, 1, 1, 1))
    record.attempts.append(
        AttemptRecord(1, "openai-2", 0.0, 1.0, 500, "upstream_status")
    )
    metrics.add(record)
    metrics.lagged(0.001)
    text, content_type = metrics.render()

    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            name = SUFFIX.sub("", sample.name)
            labels.setdefault(name, set()).update(set(sample.labels) - {"le"})

    assert CONTRACT == {name: labels[name] for name in CONTRACT}
    assert content_type.startswith("text/plain")


def test_nothing_of_this_process_or_its_library_is_shown(metrics: Metrics) -> None:
    assert [] == [key for key in read(metrics) if not key[0].startswith("gateway_")]


def test_no_series_says_when_a_counter_was_made(metrics: Metrics) -> None:
    """As the library's own do: they would be more series than the counters."""
    metrics.add(ended(queue_ms=1.0, usage=Usage(1, 0, 0, 0, 1)))

    assert [] == [key for key in read(metrics) if key[0].endswith("_created")]


def test_requests_are_counted_by_how_they_ended(metrics: Metrics) -> None:
    metrics.add(ended())
    metrics.add(ended())
    metrics.add(ended("failed", "upstream"))

    samples = read(metrics)
    # in the order origin, outcome, protocol
    assert 2 == samples["gateway_requests_total", "", "ok", "responses"]
    assert 1 == samples["gateway_requests_total", "upstream", "failed", "responses"]


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        pytest.param("ok", "completed", id="ok"),
        pytest.param("incomplete", "incomplete", id="incomplete"),
        pytest.param("failed", "failed", id="failed"),
        pytest.param("refused", "failed", id="refused-after-a-keepalive"),
        pytest.param("client_gone", "client_gone", id="client-gone"),
    ],
)
def test_streams_are_counted_by_their_ending(
    metrics: Metrics, outcome: str, ending: str
) -> None:
    metrics.add(ended(outcome))
    metrics.add(ended(outcome, stream=False))
    metrics.add(ended(outcome, status=429))

    samples = read(metrics)
    assert 1 == samples["gateway_stream_endings_total", ending, "responses"]
    assert 1 == len(
        [key for key in samples if key[0] == "gateway_stream_endings_total"]
    )


def test_waits_are_seconds(metrics: Metrics) -> None:
    metrics.add(ended(queue_ms=1500.0, first_event_ms=2500.0))
    metrics.add(ended())
    metrics.commit_waited(0.002)
    metrics.lagged(0.25)

    samples = read(metrics)
    for name, total in (
        ("queue_wait", 1.5),
        ("first_event", 2.5),
        ("ledger_commit", 0.002),
        ("event_loop_lag", 0.25),
    ):
        assert total == samples[f"gateway_{name}_seconds_sum",]
        assert 1 == samples[f"gateway_{name}_seconds_count",]


def lines_of(text: bytes, name: str) -> list[str]:
    """What *text* says about one metric."""
    return [line for line in text.decode().splitlines() if name in line]


def test_a_wait_counts_for_the_first_bound_that_it_does_not_exceed(
    metrics: Metrics,
) -> None:
    """Written to the byte as the library writes a histogram of its own."""
    name, text = "gateway_queue_wait_seconds", "Wait for the slots."
    registry = CollectorRegistry()
    own = Histogram(name, text, buckets=metrics_module.WAIT_S, registry=registry)
    same = [(lines_of(generate_latest(registry), name), metrics.render())]
    for bound in metrics_module.WAIT_S:
        for seconds in (bound, bound * 0.75, bound + 0.001):
            metrics.add(ended(queue_ms=seconds * 1000))
            own.observe(seconds * 1000 / 1000)
    same.append((lines_of(generate_latest(registry), name), metrics.render()))

    for expected, (rendered, _) in same:
        assert expected == lines_of(rendered, name)


def test_labels_are_written_as_the_library_writes_them(metrics: Metrics) -> None:
    registry = CollectorRegistry()
    own = Counter(
        "gateway_upstream_failures_total",
        "Attempts that failed.",
        ("account", "code"),
        registry=registry,
    )
    for account in ("b", 'q"uo\\te\n', "ä", "b"):
        attempt = AttemptRecord(1, account, 0.0, 1.0, 500, "upstream_status")
        metrics.add(ended(attempts=[attempt]))
        own.labels(account, "upstream_status").inc()

    name = "gateway_upstream_failures"
    expected = lines_of(generate_latest(registry), name)
    assert 5 == len(expected)
    assert expected == lines_of(metrics.render()[0], name)


def test_failed_attempts_are_counted_even_of_a_request_that_went_well(
    metrics: Metrics,
) -> None:
    tries = [
        AttemptRecord(1, "openai-1", 0.0, 1.0, 503, "upstream_overloaded"),
        AttemptRecord(2, "openai-2", 1.0, 2.0, 400, "passed_on"),
        AttemptRecord(3, "openai-2", 1.0, 2.0, 200),
    ]
    metrics.add(ended(attempts=tries))

    samples = read(metrics)
    failures = {key: samples[key] for key in samples if "failures" in key[0]}
    assert {
        ("gateway_upstream_failures_total", "openai-1", "upstream_overloaded"): 1
    } == failures


def test_tokens_are_counted_by_kind(metrics: Metrics) -> None:
    metrics.add(ended(usage=Usage(100, 20, 10, 4, 50, 30)))
    metrics.add(ended(usage=Usage(1, None, 0, 0, 1, None)))
    metrics.add(ended("refused", "gateway", account="", upstream_model=""))

    samples = read(metrics)
    tokens = {
        key[2]: samples[key] for key in samples if key[0] == "gateway_tokens_total"
    }
    assert {
        "input": 101,
        "cached": 20,
        "cache_write": 10,
        "output": 51,
        "reasoning": 30,
    } == tokens


def test_made_up_model_names_are_counted_as_other(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_MODELS", 3)
    for number in range(50):
        model = f"made-up-{number}"
        metrics.add(ended(upstream_model=model, usage=Usage(1, 0, 0, 0, 0)))

    samples = read(metrics)
    models = {
        key[3]: samples[key] for key in samples if key[0] == "gateway_tokens_total"
    }
    assert {"made-up-0": 1, "made-up-1": 1, "made-up-2": 1, "other": 47} == models


def model_labels(metrics: Metrics) -> dict[str, float]:
    """Every model label of the token counts, with its input tokens."""
    samples = read(metrics)
    return {
        key[3]: samples[key]
        for key in samples
        if key[0] == "gateway_tokens_total" and key[2] == "input"
    }


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"outcome": "failed", "origin": "upstream"}, id="failed"),
        pytest.param({"outcome": "failed", "origin": "client"}, id="passed-on"),
        pytest.param({"outcome": "client_gone", "origin": "client"}, id="client-gone"),
        pytest.param({"usage": Usage(0, 0, 0, 0, 0, 0)}, id="nothing-but-zeros"),
    ],
)
def test_a_model_that_served_no_tokens_takes_no_label(
    metrics: Metrics, fields: dict[str, Any]
) -> None:
    for number in range(metrics_module.MAX_MODELS + 1):
        metrics.add(ended(**fields, upstream_model=f"made-up-{number}"))
    metrics.add(ended(usage=Usage(7, 0, 0, 0, 0)))

    assert {"gpt-5": 7} == model_labels(metrics)


def test_each_account_has_its_own_label_limit(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_MODELS", 1)
    for account in ("openai-1", "openai-2"):
        for model in ("a", "b", "b"):
            fields = {"account": account, "upstream_model": model}
            metrics.add(ended(**fields, usage=Usage(1, 0, 0, 0, 0)))

    samples = read(metrics)
    keys = [key[1:] for key in samples if key[0] == "gateway_tokens_total"]
    assert [
        (account, "input", model)
        for account in ("openai-1", "openai-2")
        for model in ("a", "other")
    ] == sorted(keys)


def test_a_configured_model_keeps_its_label_above_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_MODELS", 1)
    account = Account("openai-1", "", models=("gpt-5", "*"), rename={"a": "gpt-6"})
    metrics = Metrics(
        lambda: SLOTS,
        lambda: ACCOUNTS,
        configured=lambda _, model: account.names(model),
    )
    for model in ("first", "second", "gpt-5", "gpt-6", "third", "a", "gpt-5"):
        metrics.add(ended(upstream_model=model, usage=Usage(1, 0, 0, 0, 0)))

    assert {"first": 1, "other": 3, "gpt-5": 2, "gpt-6": 1} == model_labels(metrics)


def test_gauges_are_read_when_the_metrics_are_read(metrics: Metrics) -> None:
    samples = read(metrics)

    # in the order name, scope
    assert 3 == samples["gateway_slots_in_use", "alice", "user"]
    assert 2 == samples["gateway_queue_waiting", "alice", "user"]
    assert 1 == samples["gateway_slots_in_use", "openai-1", "account"]
    assert 1 == samples["gateway_account_available", "openai-1"]
    assert 0 == samples["gateway_account_available", "openai-2"]
    assert 7 == samples["gateway_ledger_waiting",]


def test_lost_lines_are_those_that_the_log_counts() -> None:
    lost = 3
    metrics = Metrics(lambda: [], lambda: {}, lines_lost=lambda: lost)
    assert 3 == read(metrics)["gateway_log_lines_lost_total",]
    lost = 5
    assert 5 == read(metrics)["gateway_log_lines_lost_total",]


def test_two_instances_share_nothing() -> None:
    """Each has a registry of its own."""
    first, second = (Metrics(lambda: [], lambda: {}) for _ in range(2))
    first.add(ended())

    assert [] == [key for key in read(second) if key[0] == "gateway_requests_total"]
