"""A config is taken whole or refused with all of its mistakes."""

from __future__ import annotations

import pytest

from gateway.config.parse import ConfigError, is_loopback, parse
from gateway.config.schema import Config

KEY = "a" * 64
ACCOUNT = '[[account]]\nname = "trial"\nbase_url = "embedded:"\n'
USER = f'[[user]]\nname = "alice"\nkey_sha256 = ["{KEY}"]\n'
REMOTE = '[[account]]\nname = "a"\nprotocol = "chat"\nbase_url = "https://h/v1"\n'


def no_secret(reference: str) -> str:
    raise LookupError(f"{reference} is not there")


def read(text: str) -> Config:
    return parse(text, lambda reference: f" secret of {reference}\n")


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, no_secret)
    return caught.value.mistakes


def test_the_least_that_works() -> None:
    config = read(ACCOUNT)

    assert ("127.0.0.1:8080",) == config.server.listen
    assert config.account[0].embedded


def test_a_user_has_the_general_limits_where_it_has_no_own() -> None:
    config = read(ACCOUNT + USER + "max_queued = 7\n[limits]\nmax_concurrent = 2\n")
    limits = config.user[0].limits(config.limits)

    assert (2, 7, 30.0) == (
        limits.max_concurrent,
        limits.max_queued,
        limits.queue_timeout_s,
    )


def test_a_whole_number_will_do_for_seconds() -> None:
    assert (
        5.0 == read(ACCOUNT + "[limits]\nqueue_timeout_s = 5\n").limits.queue_timeout_s
    )


def test_secrets_are_in_their_places_without_space_around() -> None:
    config = read(REMOTE + 'api_key = "file:/k"\n[server]\nmetrics_token = "env:T"\n')

    assert "secret of file:/k" == config.account[0].api_key
    assert "secret of env:T" == config.server.metrics_token


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        pytest.param("[server]\nlissten = []", "server.lissten: unknown key", id="key"),
        pytest.param("[sever]", "sever: unknown key, did you mean server", id="table"),
        pytest.param(
            "[server]\nlisten = 5", "server.listen: must be a list", id="no-list"
        ),
        pytest.param(
            '[server]\nlisten = ["here"]', "server.listen[0]: must be", id="address"
        ),
        pytest.param(
            '[server]\nlisten = ["h:99999"]', "server.listen[0]: must be", id="port"
        ),
        pytest.param(
            '[server]\nlog_format = "xml"',
            "server.log_format: must be one of json, console, auto",
            id="choice",
        ),
        pytest.param(
            "[limits]\nmax_queued = -1",
            "limits.max_queued: must not be negative",
            id="negative",
        ),
        pytest.param(
            "[limits]\nmax_queued = true",
            "limits.max_queued: must be a whole number",
            id="boolean-is-no-number",
        ),
        pytest.param(
            "[limits]\nping_interval_s = nan",
            "limits.ping_interval_s: must be a finite number",
            id="not-a-number",
        ),
        pytest.param(
            "[limits]\nping_interval_s = 0",
            "limits.ping_interval_s: must be above 0",
            id="never-ping",
        ),
        pytest.param(
            "[server]\ncoalesce_ms = 2.5",
            "server.coalesce_ms: must be 2 at most",
            id="long-rest",
        ),
        pytest.param(
            '[ledger]\nurl = "mysql://x"', "ledger.url: must begin with", id="ledger"
        ),
        pytest.param(USER + USER, "user[1].name: 'alice' is there twice", id="twice"),
        pytest.param(
            USER + USER.replace("alice", "bob"),
            "user[0].key_sha256[0]: the same key is there twice",
            id="shared-key",
        ),
        pytest.param(
            '[[user]]\nname = "a b"\nkey_sha256 = []',
            "user[0].name: must be",
            id="name",
        ),
        pytest.param(
            '[[user]]\nname = "a"\nkey_sha256 = ["gw-plain"]',
            "user[0].key_sha256[0]: must be 64 hex digits",
            id="plain-key",
        ),
        pytest.param("[[user]]", "user[0].key_sha256: missing", id="missing"),
        pytest.param(
            "[[user]]\nname = 3\nkey_sha256 = []",
            "user[0].name: must be a string",
            id="type",
        ),
        pytest.param("user = 3", "user: must be a list", id="user-no-list"),
        pytest.param("limits = 3", "limits: must be a table", id="no-table"),
        pytest.param("x = [", "not TOML", id="no-toml"),
        pytest.param(
            REMOTE + 'api_key = "sk-1"',
            "account[1].api_key: must be env:NAME or file:PATH",
            id="literal-secret",
        ),
        pytest.param(
            REMOTE + 'api_key = "env:GONE"',
            "account[1].api_key: env:GONE is not there",
            id="secret-gone",
        ),
        pytest.param(
            REMOTE.replace("https", "ftp"),
            "account[1].base_url: must be http",
            id="url",
        ),
        pytest.param(
            REMOTE.replace("h/v1", "u:p@h/v1"),
            "account[1].base_url: must not hold a password",
            id="password",
        ),
        pytest.param(
            REMOTE.replace('protocol = "chat"\n', ""),
            "account[1].protocol: must be one of",
            id="protocol",
        ),
        pytest.param(
            REMOTE + 'headers = { Host = "x" }',
            "account[1].headers.Host: set by the gateway",
            id="reserved-header",
        ),
        pytest.param(
            REMOTE + 'headers = { "a b" = "x" }',
            "account[1].headers.a b: not a header",
            id="bad-header",
        ),
        pytest.param(
            REMOTE + "websocket_compression = true",
            "account[1].websocket_compression: needs transport",
            id="compression-over-http",
        ),
        pytest.param(
            REMOTE + "rename = { a = 1 }",
            "account[1].rename.a: must be a string",
            id="rename",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_path(text: str, mistake: str) -> None:
    # TOML wants bare keys before the first table
    whole = text if text.startswith(("x =", "user =", "limits =")) else ACCOUNT + text

    assert any(one.startswith(mistake) for one in mistakes(whole)), mistakes(whole)


def test_all_mistakes_are_reported_at_once_and_each_path_once() -> None:
    found = mistakes(
        "[server]\nlisten = [1]\nfoo = 1\n[limits]\nmax_queued = -1\n"
        '[[account]]\nbase_url = "nowhere"\n'
    )
    paths = [mistake.partition(":")[0] for mistake in found]

    assert len(set(paths)) == len(paths)
    assert {
        "server.listen[0]",
        "server.foo",
        "limits.max_queued",
        "account[0].name",
        "account[0].base_url",
        "account[0].protocol",
    } == set(paths)


def test_nothing_to_serve_with_is_a_mistake() -> None:
    assert ["account: at least one [[account]] is needed"] == mistakes("")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("gateway.example:1", False),
    ],
)
def test_who_can_reach_an_address(address: str, expected: bool) -> None:
    assert expected == is_loopback(address)
