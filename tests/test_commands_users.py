"""``gateway user``, ``gateway key``, ``gateway usage --mine`` at a running gateway."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.commands.admin_client import CommandError
from gateway.commands.users import moment_of
from gateway.config.keys import key_sha256
from tests.conftest import Serve
from tests.kit import endings, settings
from tests.kit.asking import Client
from tests.kit.gateway import Gateway

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Shell:
    """Runs commands beside the gateway; *said* is what the last one printed."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = str(config)
        self._capsys = capsys
        self.said = self.complained = ""

    async def run(self, line: str) -> int:
        words = [*line.split(), "--config", self._config]
        status = await asyncio.to_thread(main, words)
        self.said, self.complained = self._capsys.readouterr()
        return status


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve(admin=settings.ADMIN)


@pytest.fixture
def shell(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Shell:
    path = tmp_path / "config.toml"
    admin = {"listen": ["unix:admin.sock"]}
    text = settings.config_text(
        listen=["127.0.0.1:1"], accounts=[settings.TRIAL], admin=admin
    )
    path.write_text(text)
    return Shell(path, capsys)


async def test_a_user_from_making_to_removal(gateway: Gateway, shell: Shell) -> None:
    assert 0 == await shell.run("user add carol --max-concurrent 3 --usd-per-day 5.5")
    assert 0 == await shell.run("key new --user carol --label laptop --expires 90d")
    key = shell.said.split()[0]
    client = Client(gateway.base_url, key, gateway.session)
    endings.whole("chat", await client.ask("chat", "chat-x"))

    await shell.run("user list --json")
    carol = json.loads(shell.said)["data"][-1]
    assert (3, 5.5) == (carol["max_concurrent"], carol["budget"]["usd_per_day"])
    await shell.run("key list")
    [line] = [one for one in shell.said.splitlines() if "laptop" in one]
    assert key_sha256(key)[:8] in line

    assert 0 == await shell.run(
        "user set carol --max-concurrent default --max-queued 0"
    )
    await shell.run("user list")
    [line] = [one for one in shell.said.splitlines() if "carol" in one]
    assert ["runtime", "5"] == line.split()[1:3]

    assert 0 == await shell.run(f"key revoke {key_sha256(key)[:8]}")
    assert 401 == (await client.ask("chat", "chat-x")).status
    assert 0 == await shell.run("user remove carol")
    assert 1 == await shell.run("user remove carol")
    assert "there is no user carol" in shell.complained


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("key new --user alice", "stand in its [[user]]"),
        ("key new --label laptop", "need --user"),
        ("key new --user carol --expires soon", "--expires"),
        ("key revoke 00000000", "there is no key"),
        ("user set carol", "nothing to change"),
        ("user set carol --max-queued some", "must be a number"),
        ("user add operator", "reserved"),
    ],
)
async def test_what_cannot_be_is_one_line_and_exit_1(
    shell: Shell, line: str, said: str
) -> None:
    assert 1 == await shell.run(line)
    assert said in shell.complained
    assert 1 == len(shell.complained.splitlines())


def test_a_key_without_a_user_needs_no_daemon(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert 0 == main(["key", "new"])

    said = capsys.readouterr().out
    assert f'key_sha256 = ["{key_sha256(said.split()[0])}"]' in said


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
    ],
)
def test_when_a_key_expires(text: str, moment: datetime) -> None:
    assert moment == moment_of(text, NOW)


@pytest.mark.parametrize("text", ["soon", "90", "99999w9", "-1d"])
def test_when_it_cannot(text: str) -> None:
    with pytest.raises(CommandError):
        moment_of(text, NOW)


async def test_usage_of_ones_own(
    gateway: Gateway, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings.whole("chat", await gateway.client("alice").ask("chat", "chat-x"))
    await gateway.log.wait_events("request.finished")
    monkeypatch.setenv("GATEWAY_API_KEY", settings.key_of("alice"))

    assert 0 == await shell.run(f"usage --mine --url {gateway.base_url}/v1")
    assert "alice: 0 of 5 running" in shell.said
    assert "chat-x" in shell.said

    monkeypatch.setenv("GATEWAY_API_KEY", "gw-wrong")
    assert 1 == await shell.run(f"usage --mine --url {gateway.base_url}")
    assert "401" in shell.complained
