"""Secrets are read from where the config refers to; literal ones are warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.config.parse import ConfigError, parse
from gateway.config.schema import Config
from tests.conftest import Serve
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

ACCOUNT = '[[account]]\nname = "a"\nprotocol = "chat"\nbase_url = "https://h/v1"\n'
GIVEN = {
    "env:URL": "postgresql://user:pass@host/db\n",
    "file:header": "Bearer abc\n",
    "env:TWO_LINES": "a\nb",
    "env:EMPTY": " ",
}


def secret(reference: str) -> str:
    if reference not in GIVEN:
        raise LookupError(f"{reference} is not there")
    return GIVEN[reference]


def read(text: str) -> tuple[Config, list[str]]:
    """The config, and its warnings."""
    warnings: list[str] = []
    return parse(text, secret, warnings.append), warnings


def ledger(url: str) -> str:
    return f'[ledger]\nurl = "{url}"\n' + ACCOUNT


def headers(name: str, value: str) -> str:
    return f'{ACCOUNT}headers = {{ "{name}" = "{value}" }}\n'


def test_references_are_resolved_in_the_ledgers_url_and_in_headers() -> None:
    config, warnings = read(ledger("env:URL"))
    assert "postgresql://user:pass@host/db" == config.ledger.url
    assert [] == warnings

    config, warnings = read(headers("Authorization", "file:header"))
    assert {"Authorization": "Bearer abc"} == config.account[0].headers
    assert [] == warnings


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (ledger("env:NONE"), "ledger.url"),
        (ledger("env:not a name"), "ledger.url"),
        (ledger("file:header"), "ledger.url"),
        (headers("x-a", "env:NONE"), "account[0].headers.x-a"),
        (headers("x-a", "env:"), "account[0].headers.x-a"),
        (headers("x-a", "env:TWO_LINES"), "account[0].headers.x-a"),
        (headers("x-a", "env:EMPTY"), "account[0].headers.x-a"),
    ],
)
def test_what_cannot_be_resolved_is_one_mistake_with_its_path(
    text: str, path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)

    [mistake] = caught.value.mistakes
    assert mistake.startswith(f"{path}: ")
    assert "Bearer" not in mistake


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (ledger("postgresql://user:pass@host/db"), "ledger.url"),
        (ledger("postgresql://host/db?password=pass"), "ledger.url"),
        *[
            (headers(name, "a-value"), f"account[0].headers.{name}")
            for name in (
                *("Authorization", "x-api-key", "api-key", "Cookie", "X-Auth-Token"),
                *("client-secret", "proxy-authorization", "x-goog-api-key"),
            )
        ],
        (headers("x-other", "sk-proj-abcdef123456"), "account[0].headers.x-other"),
    ],
)
def test_a_literal_secret_is_warned_of(text: str, path: str) -> None:
    _, [warning] = read(text)

    assert warning.startswith(f"{path}: ")
    assert "pass@" not in warning
    assert "a-value" not in warning and "abcdef" not in warning


@pytest.mark.parametrize(
    "text",
    [
        ledger("sqlite:///gateway.db"),
        ledger("postgresql://user@host/db"),
        headers("OpenAI-Organization", "org-1"),
        headers("anthropic-beta", "context-1m-2025-08-07"),
        headers("Authorization", ""),
    ],
)
def test_what_is_no_secret_is_not(text: str) -> None:
    assert [] == read(text)[1]


def test_check_prints_warnings_and_is_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(headers("Cookie", "a=b"))
    status = main(["check", "--config", str(file)])

    lines = capsys.readouterr().out.splitlines()
    assert 0 == status
    assert lines[0].startswith("warning: account[0].headers.Cookie: ")
    assert f"{file}: fine, 0 users, 1 accounts" in lines


async def test_a_header_is_read_anew_at_a_reload(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("first\n")
    row = account(upstream, "chat", headers={"x-token": "file:token"})
    gateway = await serve(daemon=True, accounts=[row])
    await gateway.client().ask("chat", "chat-x")
    (tmp_path / "token").write_text("second\n")
    gateway.daemon.reload()
    await gateway.log.wait_for(
        lambda: gateway.log.events("config.reloaded"), "no reload"
    )
    await gateway.client().ask("chat", "chat-x")

    sent = [request.headers["x-token"] for request in upstream.received()]
    assert ["first", "second"] == sent
