"""``gateway doctor`` beside a real daemon: what it says of itself, and its accounts."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.doctor import command, inside
from gateway.commands.doctor.facts import Finding
from gateway.commands.doctor.findings import diagnose
from gateway.commands.doctor.ways import ways_of
from gateway.config.load import load_served
from gateway.config.schema import Account
from gateway.endpoints.admin import way_to_account
from tests.conftest import Serve
from tests.kit import endings, plays, settings
from tests.kit.daemon import free_port
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream

ENOUGH_FILES = 1 << 16
PATIENT: dict[str, Any] = {  # as the tests' own config is not
    "admin": settings.ADMIN,
    "upstream": {"first_event_timeout_s": 600.0, "idle_timeout_s": 180.0},
    "server": {"drain_timeout_s": 600.0},
}


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this machine is like is no matter here."""
    from gateway.commands.doctor import files, unit

    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    monkeypatch.setattr(files, "clock_synchronized", lambda: True)
    monkeypatch.setattr(files, "file_system", lambda folder: "ext4")
    monkeypatch.setattr(unit, "unit_properties", lambda name: None)
    monkeypatch.setattr(inside, "open_files", lambda pid: ENOUGH_FILES)
    monkeypatch.setattr(way_to_account, "STEP_S", 1.0)


def write_config(gateway: Gateway, folder: Path, **tables: Any) -> Path:
    """The config of *gateway* as a file, with the addresses that it has."""
    listen = [gateway.base_url.removeprefix("http://")]
    path = folder / "config.toml"
    tables = {**PATIENT, **tables}
    path.write_text(settings.config_text(listen=listen, **tables))
    path.chmod(0o600)
    return path


async def findings(path: Path, **options: Any) -> list[Finding]:
    facts = await asyncio.to_thread(command.gather, path, **options)
    return diagnose(facts)


async def test_a_good_daemon_has_no_findings_without_its_secrets(
    serve: Serve,
    tmp_path: Path,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accounts = [settings.account(upstream, "chat-1"), settings.TRIAL]
    gateway = await serve(**PATIENT, accounts=accounts)
    path = write_config(gateway, tmp_path, accounts=accounts)
    for name in list(os.environ):
        if name.startswith("TEST_"):
            monkeypatch.delenv(name)

    assert [] == await findings(path)
    assert [] == upstream.received()  # nothing was asked of an account


async def test_what_the_daemon_serves_is_compared_with_the_file(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    accounts = [settings.account(upstream, "chat-1")]
    gateway = await serve(**PATIENT, accounts=accounts)
    changed = [{**accounts[0], "max_concurrent": 7}, settings.account(upstream, "b-2")]
    changed[1]["protocol"] = "chat"
    path = write_config(gateway, tmp_path, accounts=changed, limits={"max_queued": 9})

    found = await findings(path)
    assert len(found) == 1, found
    [finding] = found

    assert "gateway reload" in finding.change
    for name in ("limits.max_queued", "account", "account chat-1.max_concurrent"):
        assert name in finding.why


async def test_the_last_day_is_looked_at(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    accounts = [settings.account(upstream, "chat-1")]
    gateway = await serve(**PATIENT, accounts=accounts)
    path = write_config(gateway, tmp_path, accounts=accounts)
    for _ in range(3):
        reply = await gateway.client().ask("chat", "no-such-model")
        await gateway.finished(reply)
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))

    found = await findings(path)
    assert len(found) == 1, found
    [finding] = found

    assert ("models", "no-such-model 3") == (
        finding.part,
        finding.why.partition("serves ")[2].partition(" (")[0],
    )


# --- accounts -------------------------------------------------------------------------

KINDS = {  # how its server answers, and what is said of it
    "good": (None, ""),
    "refused": (plays.status(401), "the step key failed"),
    "limited": (plays.status(429), "the step model failed"),
    "absent": (
        plays.status(404, {"error": {"code": "model_not_found", "message": "no"}}),
        "the step model failed",
    ),
    "page": (plays.raw(b"<html>hello</html>", "text/html"), "the step first_event"),
    "empty": (plays.eof(-1), "the step first_event failed"),
    "cut": (plays.cut(2), "the step ending failed"),
}


async def test_accounts_are_tested_one_by_one(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    accounts = []
    for name, (play, _) in KINDS.items():
        accounts.append(settings.account(upstream, name, "chat", models=["chat-x"]))
        if play:
            upstream.always(play, account=name)
    plain = upstream.base_url("tls").removeprefix("http")  # it speaks no TLS
    away = f"http://127.0.0.1:{free_port()}/v1"
    accounts += [
        settings.account(
            upstream, "tls", "chat", models=["m"], base_url=f"https{plain}"
        ),
        settings.account(upstream, "away", "chat", models=["m"], base_url=away),
        settings.account(upstream, "patterns", "chat", models=["other-*"]),
    ]
    gateway = await serve(**PATIENT, accounts=accounts)
    path = write_config(gateway, tmp_path, accounts=accounts)

    found = await asyncio.to_thread(inside.tested, path, {})

    said = {name: words for name, (_, words) in KINDS.items()} | {
        "tls": "the step tls failed",
        "away": "the step connect failed",
        "patterns": "gateway account test patterns --model MODEL",
    }
    assert said.keys() == found.keys()
    for name, words in said.items():
        assert words in found[name] and bool(words) == bool(found[name]), name

    found = await asyncio.to_thread(inside.tested, path, {"patterns": "other-1"})
    assert "" == found["patterns"]


async def test_the_ways_to_accounts_cost_nothing(upstream: ScriptedUpstream) -> None:
    base = upstream.base_url("a")
    accounts = [
        Account("good", base, "chat"),
        Account("tls", base.replace("http", "https"), "chat"),
        Account("away", f"http://127.0.0.1:{free_port()}/v1", "chat"),
        Account("unknown", "http://no-such-host.invalid/v1", "chat"),
        Account("trial", "embedded:"),
    ]

    found = await asyncio.to_thread(ways_of, accounts)

    steps = {name: way.step for name, way in found.items()}
    assert steps == {"good": "", "tls": "tls", "away": "connect", "unknown": "name"}
    assert [] == upstream.received()


def test_an_absent_secret_is_entered_and_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    account = {"name": "a", "protocol": "chat", "base_url": "http://h/v1"}
    text = settings.config_text(
        listen=["127.0.0.1:1"],
        accounts=[{**account, "api_key": "file:$CREDENTIALS_DIRECTORY/openai"}],
    )
    path.write_text(text)
    absent: dict[str, str] = {}

    load_served(path, absent=absent)

    [(reference, reason)] = absent.items()
    assert "file:$CREDENTIALS_DIRECTORY/openai" == reference
    assert "cannot be read" in reason


def test_findings_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nlisten = 7\n")

    assert 1 == command.doctor(path, as_json=True)

    found = json.loads(capsys.readouterr().out)["data"]
    assert found
    assert all({"part", "what", "why", "change"} == one.keys() for one in found)
