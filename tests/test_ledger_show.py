"""``gateway trace`` and ``gateway usage`` as they are printed."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.record import AttemptRecord, Record, TimelineMark
from gateway.usage import Usage
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    open_ledger_fixture,
    record_of,
)

ID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"
CONFIG = """
[ledger]
url = "sqlite:///ledger.db"

[[account]]
name = "openai-1"
protocol = "responses"
base_url = "https://api.openai.com/v1"
api_key = "env:SET_ONLY_FOR_THE_DAEMON"
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "config.toml").write_text(CONFIG)
    return Place("sqlite:///ledger.db", tmp_path)


class Command:
    """Runs a command with the config of *place*."""

    def __init__(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = str(place.base / "config.toml")
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        status, out, _ = self.tried(*arguments)
        assert 0 == status
        return out

    def tried(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main([*arguments, "--config", self._config])
        return status, *self._capsys.readouterr()


@pytest.fixture
def gateway(place: Place, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(place, capsys)


def cut_turn() -> Record:
    """It waited, failed over once, and was cut."""
    record = record_of(
        ID,
        response_id="resp_up",
        account="openai-2",
        upstream_request_id="req_up",
        queue_ms=1204.0,
        first_event_ms=2400.0,
        duration_ms=9211.5,
        estimated=True,
        dropped=("store",),
        attempts=[
            AttemptRecord(
                1, "openai-1", NOON + 1.2, NOON + 1.41, 503, "upstream_overloaded"
            ),
            AttemptRecord(2, "openai-2", NOON + 1.41, NOON + 9.2, 200, "upstream_cut"),
        ],
        marks=[
            TimelineMark(0.0, "received", {}),
            TimelineMark(0.0012, "authenticated", {"user": "alice"}),
            TimelineMark(
                0.002,
                "chosen",
                {
                    "tiers": [["openai-1", "openai-2"], ["spare"]],
                    "rejected": [["openai-3", "rate_limited", 60.0, True]],
                },
            ),
            TimelineMark(
                0.002,
                "queued",
                {
                    "scope": "account",
                    "position": 2,
                    "taken": [
                        ["openai-1", 4, [["bob", 3], ["carol", 1]]],
                        ["openai-2", 9, [["bob", 5]]],
                    ],
                },
            ),
            TimelineMark(0.7, "position_shown", {"position": 1}),
            TimelineMark(1.204, "granted", {"account": "openai-1"}),
            TimelineMark(
                1.41,
                "attempt_failed",
                {"account": "openai-1", "code": "upstream_overloaded"},
            ),
            TimelineMark(
                1.42, "granted", {"account": "openai-2", "moved_from": "openai-1"}
            ),
            TimelineMark(2.4, "first_output", {}),
            TimelineMark(
                9.2, "attempt_failed", {"account": "openai-2", "code": "upstream_cut"}
            ),
            TimelineMark(9.2, "terminal", {"bytes": 51200, "longest_gap_ms": 2.25}),
            TimelineMark(9.2, "failed", {"code": "upstream_cut"}),
        ],
    )
    record.set_outcome("failed", "upstream", "upstream_cut")
    return record


async def test_a_trace_tells_the_story_in_order(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(cut_turn())

    assert [
        f"request   {ID} resp_up",
        "ended     failed (upstream upstream_cut), HTTP 200",
        "user      alice, key 0123abcd, client codex",
        "session   thread-1",
        "asked     responses gpt-5, stream",
        "sent to   openai-2 responses gpt-5, id req_up",
        "times     2026-11-24 12:00:00.000000 UTC, queue 1204.0 ms, first 2400.0 ms,"
        " all 9211.5 ms",
        "tokens    input 100, cached 20, cache write 10, output 50, reasoning 30"
        " (estimated), 0.250000 USD",
        "left out  store",
        "",
        "openai-3 was left alone until 12:01:00 UTC, the time that it gave itself: it"
        " had limited",
        "  the rate.",
        "Waited 1.2 s for a slot of openai-1 or openai-2: bob held 3 and carol 1 of the"
        " 4 slots",
        "  of openai-1; bob held 5 and others 4 of the 9 slots of openai-2.",
        "Attempt 1, at openai-1, failed before any output, after 206 ms: the upstream"
        " is",
        "  overloaded (HTTP 503, upstream_overloaded).",
        "The session moved from openai-1 to openai-2, which does not have its prompt in"
        " its",
        "  cache.",
        "Attempt 2, at openai-2, failed within its answer, after 7.8 s: the upstream"
        " closed the",
        "  stream before it finished (upstream_cut).",
        "While it waited, the client was shown the position 1.",
        "Left out of the request, which openai-2 cannot take: store.",
        "The client got an ending in its stream (upstream_cut), caused by the upstream:"
        ' "The',
        '  upstream closed the stream before it finished".',
        "",
        "attempt 1 openai-1 503  upstream_overloaded, 210.0 ms",
        "attempt 2 openai-2 200  upstream_cut, 7790.0 ms",
        "",
        f"read                     |{'.':<40}|       2.0 ms",
        f"queue openai-1, openai-2 |{'·····':<40}|    1202.0 ms",
        f"connect openai-1         |{'     -':<40}|     206.0 ms  upstream_overloaded",
        f"connect openai-2         |{'      ----':<40}|     980.0 ms",
        f"answer openai-2          |{' ' * 10}{'█' * 30}|    6800.0 ms  upstream_cut",
        "",
        "          ms        +ms  event",
        "         0.0        0.0  received",
        "         1.2        1.2  authenticated    user=alice",
        "         2.0        0.8  chosen           tiers=openai-1, openai-2 | spare",
        f"{'':<42}not openai-3, rate_limited, back in 60 s (its own time)",
        "         2.0        0.0  queued           scope=account position=2",
        f"{'':<42}bob held 3 and carol 1 of the 4 slots of openai-1",
        f"{'':<42}bob held 5 and others 4 of the 9 slots of openai-2",
        "       700.0      698.0  position_shown   position=1",
        "      1204.0      504.0  granted          account=openai-1",
        "      1410.0      206.0  attempt_failed   account=openai-1"
        " code=upstream_overloaded",
        "      1420.0       10.0  granted          account=openai-2"
        " moved_from=openai-1",
        "      2400.0      980.0  first_output",
        "      9200.0     6800.0  attempt_failed   account=openai-2 code=upstream_cut",
        "      9200.0        0.0  terminal         bytes=51200 longest_gap_ms=2.25",
        "      9200.0        0.0  failed           code=upstream_cut",
    ] == gateway("trace", ID).splitlines()


async def test_a_trace_for_machines(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(cut_turn())

    shown = json.loads(gateway("trace", ID.replace("-", ""), "--json"))

    assert (ID, "failed", 100) == (
        shown["request_id"],
        shown["outcome"],
        shown["input_tokens"],
    )
    assert ["openai-1", "openai-2"] == [one["account"] for one in shown["attempts"]]
    assert {"at_ms": 700.0, "event": "position_shown", "position": 1} == shown[
        "timeline"
    ][4]
    assert shown["why"][0].startswith("openai-3 was left alone until 12:01:00 UTC")


async def test_a_session_is_a_list_of_its_requests(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(record_of("turn-one"))
    await ledger.close(record_of("turn-two", started_at=NOON + 5))

    lines = gateway("trace", "thread-1").splitlines()
    assert ["turn-one", "turn-two"] == [line.split()[2] for line in lines[2:]]
    shown = json.loads(gateway("trace", "thread-1", "--json"))
    assert ["turn-one", "turn-two"] == [row["request_id"] for row in shown]


async def test_a_running_request_is_shown_as_running(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    ledger = await open_ledger(place)
    record = record_of("turn-one", attempts=[AttemptRecord(1, "openai-1", NOON)])
    ledger.begin(record)
    await ledger.close(record_of())

    shown = gateway("trace", "turn-one")

    assert "state     running" in shown
    assert "still running" in shown


async def test_without_an_id_requests_are_listed(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(cut_turn())
    await ledger.close(record_of("turn-two", user="bob"))

    assert 2 == len(json.loads(gateway("trace", "--json")))
    assert ID in gateway("trace", "--failed")
    assert "turn-two" not in gateway("trace", "--failed")
    assert "turn-two" in gateway("trace", "--user", "bob")
    assert "No requests." == gateway("trace", "--since", "2030-01-01").strip()


async def test_an_unknown_id_is_status_1(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await open_ledger(place)

    assert (1, "", "gateway: Nothing is known of this id.\n") == gateway.tried(
        "trace", "no"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["trace", "x"], "there is no ledger yet", id="no-ledger"),
        pytest.param(["usage"], "there is no ledger yet", id="no-ledger-to-sum"),
    ],
)
def test_without_a_ledger_nothing_is_made(
    place: Place, gateway: Command, arguments: list[str], said: str
) -> None:
    status, out, error = gateway.tried(*arguments)

    assert (2, "") == (status, out)
    assert said in error
    assert ["config.toml"] == [path.name for path in place.base.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["usage", "--by", "colour"], "--by 'colour'", id="by"),
        pytest.param(["usage", "--since", "once"], "--since 'once'", id="since"),
        pytest.param(["trace", "--since", "once"], "--since 'once'", id="trace-since"),
    ],
)
async def test_a_question_without_sense_is_status_2(
    place: Place,
    open_ledger: OpenLedger,
    gateway: Command,
    arguments: list[str],
    said: str,
) -> None:
    await open_ledger(place)

    status, out, error = gateway.tried(*arguments)

    assert (2, "") == (status, out)
    assert said in error


async def test_a_bad_config_is_status_2(place: Place, gateway: Command) -> None:
    (place.base / "config.toml").write_text("ledger = 7\n")

    assert 2 == gateway.tried("usage")[0]


# --- usage ----------------------------------------------------------------------


async def filled(place: Place, open_ledger: OpenLedger) -> None:
    ledger = await open_ledger(place)
    await ledger.close(record_of(usage=Usage(1_234_567, 20, 10, 4, 50, 30)))
    await ledger.close(record_of(model="[red]odd:smile:", cost_usd=None))
    await ledger.close(record_of(user="bob"))


async def test_the_url_of_the_ledger_may_be_a_secret(
    place: Place, gateway: Command, open_ledger: OpenLedger
) -> None:
    """The one secret that the command reads; the account's key is not there."""
    ledger = await open_ledger(place)
    await ledger.close(record_of(ID))
    config = CONFIG.replace('"sqlite:///ledger.db"', '"file:url"')
    (place.base / "config.toml").write_text(config)

    status, _, err = gateway.tried("usage")
    (place.base / "url").write_text("sqlite:///ledger.db\n")
    out = gateway("usage", "--json")

    expected = 2, "ledger.url: url cannot be read: No such file or directory\n"
    assert (status, err) == expected
    assert json.loads(out)[0]["requests"] == 1


async def test_usage_is_a_table_with_a_sum(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)

    head, _, *rows, _, total = gateway("usage").splitlines()

    assert ["user", "requests", "ok"] == head.split()[:3]
    assert [["alice", "2"], ["bob", "1"]] == [row.split()[:2] for row in rows]
    assert ["all", "3", "3"] == total.split()[:3]
    assert "1 234 767" in total
    assert "0.5000" in total


async def test_what_a_client_wrote_is_no_markup(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)

    assert "[red]odd:smile:" in gateway("usage", "--by", "model")


async def test_usage_for_machines(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)

    shown: list[dict[str, Any]] = json.loads(
        gateway("usage", "--by", "user,model", "--user", "alice", "--json")
    )

    assert [("alice", "[red]odd:smile:", 0.0, 1), ("alice", "gpt-5", 0.25, 0)] == [
        (row["user"], row["model"], row["cost_usd"], row["unpriced"]) for row in shown
    ]


async def test_usage_for_a_spreadsheet(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)

    rows = list(csv.DictReader(io.StringIO(gateway("usage", "--csv"))))
    none = gateway("usage", "--csv", "--user", "carol").strip()

    assert [("alice", "2"), ("bob", "1")] == [
        (row["user"], row["requests"]) for row in rows
    ]
    assert none.startswith("user,requests,ok,") and "\n" not in none


async def test_usage_as_bars(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)

    title, first, *_ = gateway("usage", "--by", "day,user", "--plot").splitlines()
    tokens = gateway("usage", "--plot", "tokens").splitlines()[0]

    assert ("cost in USD by day, user", "tokens by user") == (title, tokens)
    assert first.startswith("2026-11-") and "█" in first and "\x1b" not in first


async def test_reading_changes_nothing(
    place: Place, open_ledger: OpenLedger, gateway: Command
) -> None:
    await filled(place, open_ledger)
    path = place.base / "ledger.db"
    with sqlite3.connect(path) as connection:
        before = connection.execute("PRAGMA data_version").fetchone()
        gateway("usage")
        gateway("trace", "thread-1")
        after = connection.execute("PRAGMA data_version").fetchone()
    connection.close()

    assert before == after
