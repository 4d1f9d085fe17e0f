"""The greeting: the request that it shows can be pasted."""

from __future__ import annotations

import json
import shlex

import pytest

from gateway.daemon import greeting
from gateway.telemetry import log


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8080", ["http://127.0.0.1:8080/v1/responses"]),
        ("[::1]:81", ["http://[::1]:81/v1/responses"]),
        (
            "unix:/run/x.sock",
            ["--unix-socket", "/run/x.sock", "http://localhost/v1/responses"],
        ),
    ],
)
def test_it_leads_to_where_the_daemon_listens(
    monkeypatch: pytest.MonkeyPatch, address: str, expected: list[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(log, "say", shown.append)

    greeting.greet(address, "gw-key", "console")

    [command] = [line for line in shown[0].splitlines() if "curl" in line]
    words = shlex.split(command)
    assert words[2 : 2 + len(expected)] == expected
    assert words[3 + len(expected)] == "Authorization: Bearer gw-key"


def test_its_request_is_a_file_of_the_package() -> None:
    assert json.loads(greeting.HELLO.read_bytes())["model"] == "trial"
