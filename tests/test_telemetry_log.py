"""Every line is one JSON object, with the processors and without."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.telemetry import log
from gateway.telemetry.redaction import MAX_DETAIL_CHARS
from gateway.usage import Usage
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log
from tests.ledger_places import record_of

WHEN = "2026-11-24T12:00:00.000001Z"
ID = "9b2f0c1e-request"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process-wide state is restored."""
    for name in ("_output", "_redaction"):
        monkeypatch.setattr(log, name, getattr(log, name))
    before = structlog.get_config()
    with logging_to(Log()):
        yield
    log.bind("")
    structlog.configure(**before)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_now", lambda: WHEN)


@pytest.fixture
def lines() -> Log:
    """Every line that the test makes, at level info."""
    return set_up()


def set_up(level: str = "info") -> Log:
    lines = Log()
    log.set_up(level, "json", lines)  # type: ignore[arg-type]
    return lines


def say(event: str, level: str = "info", **facts: Any) -> None:
    getattr(log.get(), level)(event, **facts)


# --- the canonical line -------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({}, id="ordinary"),
        pytest.param({"usage": Usage(), "account": ""}, id="nothing-known"),
        pytest.param({"queue_ms": 0.04, "duration_ms": 1234.56}, id="rounded"),
        pytest.param({"detail": "é" * 1999, "model": "x" * 900}, id="long-but-fits"),
        pytest.param({"detail": "é" * 2001, "model": "m" * 9000}, id="shortened"),
        pytest.param(
            {"dropped": ("a", "b"), "estimated": True, "unknown_stop": "x"},
            id="all-there-is",
        ),
        pytest.param({"session": 'a"b\\c\n€\U0001f600'}, id="escaped"),
        pytest.param({"upstream_request_id": "\udcff"}, id="half-a-pair"),
        pytest.param({"status": 2**70}, id="a-number-of-no-size"),
    ],
)
@pytest.mark.usefixtures("frozen")
def test_the_canonical_line_is_what_the_processors_would_make(
    lines: Log, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]
) -> None:
    record = record_of(ID, **facts)
    log.bind("another-request")
    log.finished(record)
    monkeypatch.setattr(log, "_output", replace(log._output, direct=False))
    log.finished(record)

    short, long = lines.text
    assert long == short
    assert {
        "timestamp": WHEN,
        "event": "request.finished",
        "request_id": ID,
    }.items() <= (json.loads(short).items())


def test_the_canonical_keys_are_in_the_order_of_the_contract(lines: Log) -> None:
    log.finished(
        record_of(ID, detail="why", dropped=("seed",), estimated=True, unknown_stop="x")
    )

    [line] = lines.lines
    assert (
        "timestamp level event request_id response_id user account protocol"
        " upstream_protocol model upstream_model stream outcome origin error_code"
        " status attempts queue_ms first_event_ms duration_ms input_tokens"
        " cached_tokens output_tokens reasoning_tokens upstream_request_id client"
        " session key detail unknown_stop dropped estimated"
    ).split() == list(line)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_it_is_written_from_info_on(level: str) -> None:
    lines = set_up(level)
    log.finished(record_of(ID))

    assert (level in ("debug", "info")) == bool(lines.lines)


def test_captured_lines_include_the_canonical_line(lines: Log) -> None:
    with capture_logs() as captured:
        log.finished(record_of(ID))
    log.finished(record_of("later"))

    [line] = captured
    assert (ID, "request.finished") == (line["request_id"], line["event"])
    assert ["later"] == [line["request_id"] for line in lines.lines]


def test_people_read_it_in_their_own_form() -> None:
    out = io.StringIO()
    log.set_up("info", "console", out)
    log.finished(record_of(ID))

    assert "request.finished" in out.getvalue()
    assert not out.getvalue().startswith("{")


# --- every line ---------------------------------------------------------------------


async def test_each_line_of_a_request_has_its_id(lines: Log) -> None:
    async def serve(request_id: str) -> None:
        log.bind(request_id)
        await asyncio.sleep(0)
        say("attempt.failed", "warning", account="main")

    await asyncio.gather(serve("one"), serve("two"))
    say("server.stopped")
    log.bind("three")
    say("attempt.failed", "warning", request_id="given")

    assert [
        ["timestamp", "level", "event", "account", "request_id"],
        ["timestamp", "level", "event", "account", "request_id"],
        ["timestamp", "level", "event"],
        ["timestamp", "level", "event", "request_id"],
    ] == [list(line) for line in lines.lines]
    assert ["one", "two", None, "given"] == [
        line.get("request_id") for line in lines.lines
    ]


@pytest.mark.parametrize("fraction", ["000000", "000001", "250000", "999999"])
def test_times_are_utc_with_microseconds(
    lines: Log, monkeypatch: pytest.MonkeyPatch, fraction: str
) -> None:
    texts = ["2026-12-31T23:59:59", "2027-01-01T00:00:00", "2026-12-31T23:59:58"]
    moments = [
        int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 10**9
        + int(fraction) * 1000
        + 999
        for text in texts
    ]
    clock = SimpleNamespace(**vars(log.time) | {"time_ns": lambda: moments.pop(0)})
    monkeypatch.setattr(log, "time", clock)
    for _ in texts:
        say("server.started")

    timestamps = [line["timestamp"] for line in lines.lines]
    assert [f"{text}.{fraction}Z" for text in texts] == timestamps


def test_times_are_those_of_the_clock(lines: Log) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    say("server.started")

    [line] = lines.lines
    written = datetime.fromisoformat(line["timestamp"])
    assert 0 <= (written - before).total_seconds() < 60


def test_an_exception_is_a_part_of_its_line(lines: Log) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        say("request.crashed", "exception")

    [line] = lines.lines
    assert "error" == line["level"]
    assert line["exception"].endswith("ValueError: why")


def test_a_mistake_of_the_config_keeps_its_words(lines: Log) -> None:
    mistakes = [
        "account[0].api_key: must be env:NAME or file:PATH; not a literal",
        "server.metrics_token: the environment variable TOKEN is not set",
    ]
    logged = [*mistakes, "sk-or-v1-abcdef: unknown key"]
    say("config.rejected", "error", mistakes=logged)
    (line,) = lines.events("config.rejected")
    assert line["mistakes"] == [*mistakes, "[redacted]: unknown key"]


def test_a_librarys_line_is_written_the_same_way(lines: Log) -> None:
    logging.getLogger("a.library").warning("odd: %s", "x" * 3000)

    [line] = lines.lines
    assert ("library.logged", "a.library") == (line["event"], line["logger"])
    assert line["message"].startswith("odd: xxx")
    assert MAX_DETAIL_CHARS == len(line["message"])


def test_lines_are_whole_from_every_thread(tmp_path: Path) -> None:
    path, text = tmp_path / "out", "x" * 100

    def work(name: str) -> None:
        for number in range(50):
            say("ledger.lagging", "warning", rows=number, detail=text)
            log.finished(record_of(f"{name}-{number}", detail=text))

    with path.open("w", encoding="utf-8") as out:
        log.set_up("info", "json", out)
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.flush()
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    assert 800 == len(lines)
    finished = [line["request_id"] for line in lines if "request_id" in line]
    assert sorted(f"{name}-{n}" for name in "abcdefgh" for n in range(50)) == (
        sorted(finished)
    )
