"""Users of the ledger count where the config has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.check import check
from gateway.config.load import load_served
from gateway.config.parse import ConfigError
from gateway.config.schema import Config
from gateway.ledger.runtime_users import stored_users
from tests.kit import settings
from tests.kit.runtime import added, change_elsewhere


def written(folder: Path, listen: str, *users: str) -> Path:
    path = folder / "config.toml"
    text = settings.config_text(
        listen=[listen],
        accounts=[settings.TRIAL],
        users=[settings.user(name) for name in users],
    )
    path.write_text(text)
    return path


def carol(config: Config) -> set[str]:
    return {"carol"}


def test_no_throwaway_user_is_made_beside_one_of_the_run_time(tmp_path: Path) -> None:
    path = written(tmp_path, "127.0.0.1:8080")

    assert load_served(path).key
    served = load_served(path, stored_users=carol)
    assert ("", ()) == (served.key, served.config.user)
    assert "gw-k" == load_served(path, key="gw-k", stored_users=carol).key


def test_one_of_the_run_time_is_enough_for_other_machines(tmp_path: Path) -> None:
    path = written(tmp_path, "0.0.0.0:8080")

    with pytest.raises(ConfigError):
        load_served(path)
    assert "" == load_served(path, stored_users=carol).key


def test_users_are_read_from_a_ledger_that_may_not_exist(tmp_path: Path) -> None:
    config = Config()

    assert set() == stored_users(config, tmp_path)
    assert not list(tmp_path.iterdir())
    change_elsewhere(tmp_path, added("carol"))
    assert {"carol"} == stored_users(config, tmp_path)


def test_check_names_users_that_are_there_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "127.0.0.1:8080", "alice", "carol")
    change_elsewhere(tmp_path, added("carol"))

    assert 0 == check(path)

    said = capsys.readouterr().out
    assert "warning: user[1].name: 'carol' was made at run time, too" in said
    assert "2 users (1 more made at run time), 1 accounts" in said
