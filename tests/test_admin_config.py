"""The config of the admin side: when a token is needed, and when one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_served
from gateway.config.parse import ConfigError
from tests.kit import settings

TCP, UNIX = "127.0.0.1:8081", "unix:admin.sock"


def written(folder: Path, **config: Any) -> Path:
    path = folder / "config.toml"
    text = settings.config_text(
        listen=["127.0.0.1:8080"], accounts=[settings.TRIAL], **config
    )
    path.write_text(text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_served(path)
    return caught.value.mistakes


def test_without_a_user_a_token_is_made_and_kept(tmp_path: Path) -> None:
    path = written(tmp_path, users=(), admin={"listen": [TCP, UNIX]})
    served = load_served(path)
    again = load_served(path, key=served.key, admin_token=served.admin_token)

    assert served.config.admin
    assert len(served.admin_token) > 32
    assert served.config.admin.token == served.admin_token == again.admin_token


@pytest.mark.parametrize(
    ("admin", "users"),
    [
        pytest.param({"listen": [UNIX]}, (), id="unix-alone"),
        pytest.param({"listen": [UNIX]}, (settings.user("a"),), id="unix-and-a-user"),
        pytest.param(None, (), id="no-admin-side"),
    ],
)
def test_no_token_is_made_where_none_is_needed(
    tmp_path: Path, admin: settings.Table | None, users: tuple[settings.Table, ...]
) -> None:
    assert "" == load_served(written(tmp_path, users=users, admin=admin)).admin_token


def test_with_a_user_tcp_needs_a_token(tmp_path: Path) -> None:
    [mistake] = mistakes(written(tmp_path, admin={"listen": [UNIX, TCP]}))

    assert mistake.startswith("admin.token: missing; 127.0.0.1:8081")


def test_no_token_is_made_for_other_machines(tmp_path: Path) -> None:
    found = mistakes(
        written(tmp_path, users=(), admin={"listen": ["0.0.0.0:8081", UNIX]})
    )

    assert ["admin.token"] == [one.partition(":")[0] for one in found]


def test_a_literal_token_is_refused(tmp_path: Path) -> None:
    [mistake] = mistakes(written(tmp_path, admin={"listen": [TCP], "token": "abc"}))

    assert mistake.startswith("admin.token: must be env:NAME or file:PATH")


@pytest.mark.parametrize(
    ("listen", "path"),
    [
        pytest.param([], "admin.listen", id="none"),
        pytest.param([UNIX, "8081"], "admin.listen[1]", id="no-address"),
        pytest.param(["127.0.0.1:8080"], "admin.listen[0]", id="the-public-one"),
    ],
)
def test_addresses_that_cannot_be(tmp_path: Path, listen: list[str], path: str) -> None:
    found = mistakes(written(tmp_path, users=(), admin={"listen": listen}))

    assert [path] == [one.partition(":")[0] for one in found]


def test_the_token_is_a_secret_of_the_log(tmp_path: Path) -> None:
    from gateway.config.secrets import secrets_of

    path = written(tmp_path, users=(), admin={"listen": [TCP]})
    served = load_served(path)

    assert served.admin_token in secrets_of(served.config)
