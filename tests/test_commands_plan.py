"""``gateway plan``: the past with other limits, and how far that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.commands.plan_setting import (
    PlanError,
    parse_like,
    parse_set,
    setting_of,
)
from gateway.config.load import load_beside
from gateway.config.schema import User
from gateway.ledger.database import Database
from gateway.ledger.runtime_users import add_user, load
from gateway.record import AttemptRecord, Record
from tests.ledger_places import (  # noqa: F401
    NOON,
    OpenLedger,
    Place,
    open_ledger_fixture,
    record_of,
)

CONFIG = """
[ledger]
url = "sqlite:///ledger.db"

[[user]]
name = "alice"
key_sha256 = ["{hash}"]
max_concurrent = 1
max_queued = 3
queue_timeout_s = 30.0

[[account]]
name = "openai.1"
protocol = "responses"
base_url = "http://127.0.0.1:1"
api_key = "env:NOT_THERE"
models = ["gpt-*"]
max_concurrent = 1
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "config.toml").write_text(CONFIG.format(hash="0" * 64))
    return Place("sqlite:///ledger.db", tmp_path)


class Command:
    """Runs ``gateway plan`` with the config of *place*."""

    def __init__(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = str(place.base / "config.toml")
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main(["plan", *arguments, "--config", self._config])
        return status, *self._capsys.readouterr()

    def document(self, *arguments: str) -> dict[str, Any]:
        status, out, _ = self("--since", "2026-11-01", "--json", *arguments)
        assert 0 == status
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def plan(place: Place, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(place, capsys)


def served(n: int, at_s: float, wait_s: float, took_s: float, **fields: Any) -> Record:
    """Request *n*, which came *at_s* after noon."""
    return record_of(
        f"request-{n:04}",
        **{
            "started_at": NOON + at_s,
            "account": "openai.1",
            "session": "",
            "queue_ms": wait_s * 1000,
            "duration_ms": (wait_s + took_s) * 1000,
            "attempts": [AttemptRecord(1, "openai.1", NOON + at_s + wait_s, None, 200)],
            **fields,
        },
    )


def unserved(n: int, at_s: float, wait_s: float, code: str) -> Record:
    refused = "" if code == "client_gone" else code
    record = served(n, at_s, wait_s, 0.0, attempts=[], account="")
    outcome = "refused" if refused else "client_gone"
    record.set_outcome(outcome, "gateway" if refused else "client", code)
    return record


def a_morning() -> Iterator[Record]:
    """One slot, 10 s each, every 5 s one more: the line grows, then it is full."""
    yield served(0, 0.0, 0.0, 10.0)
    yield served(1, 5.0, 5.0, 10.0)
    yield served(2, 10.0, 10.0, 10.0)
    yield served(3, 15.0, 15.0, 10.0)
    yield unserved(4, 16.0, 3.0, "client_gone")
    yield unserved(5, 17.0, 0.0, "queue_full")
    yield record_of("request-9000", started_at=NOON + 18, user="alice", attempts=[])
    yield served(6, 3600.0, 0.0, 10.0, user="a former user")


async def filled(place: Place, open_ledger: OpenLedger) -> None:
    ledger = await open_ledger(place)
    for record in a_morning():
        await ledger.close(record)


async def test_unchanged_it_replays_what_was_recorded(
    place: Place, open_ledger: OpenLedger, plan: Command
) -> None:
    await filled(place, open_ledger)
    found = plan.document()

    assert 7 == found["requests"]
    waits = found["waits"]
    assert {"recorded", "as_it_is"} == set(waits)
    assert {
        "requests": 7,
        "waited": 3,
        "p50_s": 5.0,
        "p95_s": 15.0,
        "refused": 1,
        "left": 1,
    } == waits["recorded"]["all"]
    assert waits["recorded"] == waits["as_it_is"]
    assert ["a former user", "alice"] == list(waits["as_it_is"]["users"])
    (account,) = found["accounts"]
    assert {
        "name": "openai.1",
        "as_it_is": {"mean": pytest.approx(50.0 / 3600.0), "slots": 1},
        "as_asked": None,
    } == account


async def test_the_limits_of_a_user_that_was_made_at_run_time_count(
    place: Place, open_ledger: OpenLedger, plan: Command
) -> None:
    await filled(place, open_ledger)
    database = Database(place.url, place.base)
    with database.write() as connection:
        add_user(connection, User("a former user", (), max_queued=7), datetime.now(UTC))
        add_user(connection, User("alice", (), max_concurrent=9), datetime.now(UTC))
        made = load(connection).users
    database.dispose()
    config = load_beside(place.base / "config.toml")

    limits = setting_of(config, ["alice", "a former user", "unknown"], made).users

    assert 1 == limits["alice"].max_concurrent  # the config's
    assert 7 == limits["a former user"].max_queued
    assert config.limits.max_queued == limits["unknown"].max_queued
    assert 7 == plan.document()["requests"]


@pytest.mark.parametrize(
    ("arguments", "p95_s", "refused"),
    [
        (("--set", "user.alice.max_concurrent=2"), 15.0, 1),  # the account decides
        (("--set", "account.openai.1.max_concurrent=9"), 15.0, 1),  # the user does
        (
            (
                *("--set", "user.alice.max_concurrent=9"),
                *("--set", "account.openai.1.max_concurrent=9"),
            ),
            0.0,
            0,
        ),
        (
            ("--set", "user.alice.max_concurrent=0", "--like", "account.openai.1=9"),
            0.0,
            0,
        ),
        (("--set", "user.alice.max_queued=0"), 0.0, 4),
        (("--set", "user.alice.queue_timeout_s=6"), 5.0, 2),
    ],
)
async def test_other_limits_change_it(
    place: Place,
    open_ledger: OpenLedger,
    plan: Command,
    arguments: tuple[str, ...],
    p95_s: float,
    refused: int,
) -> None:
    await filled(place, open_ledger)
    waits = plan.document(*arguments)["waits"]["as_asked"]["all"]

    assert (p95_s, refused) == (waits["p95_s"], waits["refused"])


async def test_people_get_tables_and_a_plot(
    place: Place, open_ledger: OpenLedger, plan: Command
) -> None:
    await filled(place, open_ledger)
    status, out, _ = plan(
        *("--since", "2026-11-01", "--plot"),
        *("--like", "account.openai.1=2", "--set", "user.alice.max_concurrent=2"),
    )

    assert 0 == status
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "7 requests, 2026-11-24 12:00 to 2026-11-24 13:00 UTC" == lines[0]
    assert "all recorded 7 3 5.0 15.0 1 1" in lines
    assert "as it is 7 3 5.0 15.0 1 1" in lines
    assert any(line.startswith("as asked 7 ") for line in lines)
    assert "openai.1 0.01 of 1 (1%) 0.01 of 1 (1%)" in lines
    assert any(line.startswith("openai.1-2 - 0.0") for line in lines)
    assert "wait p95 by hour (UTC), a full bar is 15.0 s" in lines
    assert any(line.startswith("11-24 12:00 as it is |█") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "account.none.max_concurrent=3"), "account none is not known"),
        (("--set", "user.carol.max_queued=3"), "user carol is not known"),
        (("--like", "account.other=2"), "account other is not known"),
        (("--set", "account.openai.1.priority=3"), "must be account.NAME."),
        (("--set", "alice=3"), "must be account.NAME."),
        (("--set", "user.alice.max_queued=x"), "must be a whole number"),
        (("--set", "user.alice.max_queued=-1"), "must be a whole number"),
        (("--set", "user.alice.queue_timeout_s=nan"), "must be a number"),
        (("--like", "openai.1=2"), "must be account.NAME=N"),
        (("--like", "account.openai.1=0"), "must be from 1 to 100"),
        (("--since", "tomorrow"), "must be a day"),
        (("--since", "2030-01-01"), "No request has asked for a slot"),
    ],
)
async def test_what_makes_no_sense_is_one_line(
    place: Place,
    open_ledger: OpenLedger,
    plan: Command,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    await filled(place, open_ledger)
    since = () if "--since" in arguments else ("--since", "2026-11-01")
    status, out, err = plan(*since, *arguments)

    assert (1, "", 1) == (status, out, err.count("\n"))
    assert words in err


def test_a_ledger_that_is_not_there_is_said(plan: Command) -> None:
    status, out, err = plan()
    assert (1, "") == (status, out)
    assert "ledger.db" in err


def test_names_may_hold_dots() -> None:
    assert ("account", "a.b", "max_concurrent", 3) == parse_set(
        "account.a.b.max_concurrent=3"
    )
    assert ("account", "a.b", "like", 2) == parse_like("account.a.b=2")
    with pytest.raises(PlanError):
        parse_set("account..max_concurrent=3")
