"""What a command that is refused prints, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main

CONFIG = """
[ledger]
url = "sqlite:///ledger.db"

[[account]]
name = "trial"
base_url = "embedded:"
"""
MISTAKEN = "[server]\nlisten = 8080\n[admin]\nlisten = []\n[ledger]\nurl = 1\n"
ADMIN = CONFIG + '[admin]\nlisten = ["unix:admin.sock"]\n'

# Every command that has --json and can fail, with words that it takes.
ASKING = (
    *(["account", "list"], ["account", "pause", "a"], ["account", "test", "a"]),
    *(["request", "list"], ["request", "end", "a"], ["reload"], ["restart"], ["top"]),
    *(["user", "list"], ["user", "add", "a"], ["user", "remove", "a"]),
    *(["key", "list"], ["key", "revoke", "12345678"], ["key", "new", "--user", "a"]),
)
LEDGER = (["trace", "a"], ["trace"], ["usage"], ["plan"])


def ids(words: list[str]) -> str:
    return "-".join(words)


class Refused:
    """A command that is refused, once for people and once for a script."""

    def __init__(
        self, folder: Path, config: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._path = folder / "config.toml"
        self._path.write_text(config)
        self._capsys = capsys

    def __call__(self, words: list[str]) -> tuple[int, dict[str, Any]]:
        """The exit status, and the error on stdout; both must say the same."""
        plain, out, text = self._run(words)
        status, document, beside = self._run([*words, "--json"])
        error: dict[str, Any] = json.loads(document)["error"]
        assert plain == status > 0
        assert "" == out
        assert text == beside
        if "mistakes" not in error:
            assert f"gateway: {error['message']}\n" == text
        return status, error

    def _run(self, words: list[str]) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main([*words, "--config", str(self._path)])
        return status, *self._capsys.readouterr()


@pytest.mark.parametrize("words", ASKING, ids=ids)
def test_without_an_admin_side_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, error = Refused(tmp_path, CONFIG, capsys)(words)
    assert (1, "no_admin") == (status, error["code"])


@pytest.mark.parametrize("words", [one for one in ASKING if one != ["top"]], ids=ids)
def test_without_a_daemon_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, error = Refused(tmp_path, ADMIN, capsys)(words)
    assert (1, "no_daemon") == (status, error["code"])
    assert str(tmp_path / "admin.sock") in error["message"]


@pytest.mark.parametrize("words", [*ASKING, *LEDGER], ids=ids)
def test_mistakes_of_the_config_are_a_list_with_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, error = Refused(tmp_path, MISTAKEN, capsys)(words)
    assert (1 if words == ["plan"] else 2) == status
    assert "invalid_config" == error["code"]
    assert {"path", "message"} == set(error["mistakes"][0])


@pytest.mark.parametrize("words", LEDGER, ids=ids)
def test_without_a_ledger_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    _, error = Refused(tmp_path, CONFIG, capsys)(words)
    assert "ledger_unavailable" == error["code"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["usage", "--mine"], "missing_key"),
        (["usage", "--mine", "--url", "ftp://x"], "no_answer"),
        (["plan", "--set", "nonsense"], "invalid_argument"),
        (["user", "set", "a"], "invalid_argument"),
        (["key", "new", "--label", "x"], "invalid_argument"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: str,
) -> None:
    if "--url" in words:
        monkeypatch.setenv("GATEWAY_API_KEY", "gw-x")
    assert code == Refused(tmp_path, ADMIN, capsys)(words)[1]["code"]


def test_check_prints_mistakes_or_what_the_config_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(MISTAKEN)
    assert 2 == main(["check", "--json", "--config", str(path)])
    error = json.loads(capsys.readouterr().out)["error"]
    assert "invalid_config" == error["code"]
    assert "server.listen" in [one["path"] for one in error["mistakes"]]

    path.write_text(CONFIG)
    assert 0 == main(["check", "--json", "--config", str(path)])
    found = json.loads(capsys.readouterr().out)
    assert ({"trial": ""}, "", 0) == (
        found["accounts"],
        found["engine"],
        found["stored"],
    )
