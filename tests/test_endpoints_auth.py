"""A key leads to its user, in whichever header it comes."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.config.keys import key_sha256, new_key
from gateway.config.schema import Limits, User
from gateway.endpoints.auth import Keys
from gateway.errors import ClientError

KEYS = Keys([User("alice", (key_sha256("gw-a"), key_sha256("gw-b")))], Limits())


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer gw-a"},
        {"authorization": "bearer  gw-b "},
        {"x-api-key": "gw-a"},
        {"X-Api-Key": "gw-a", "Authorization": "Bearer sk-other"},
        {"x-api-key": "sk-other", "Authorization": "Bearer gw-a"},
        {"x-api-key": "gw-a", "Authorization": "Basic abc"},
    ],
)
def test_a_known_key_in_either_header(headers: dict[str, str]) -> None:
    identity = KEYS.identify(CIMultiDict(headers))

    assert "alice" == identity.user.name
    assert identity.key in {key_sha256("gw-a")[:8], key_sha256("gw-b")[:8]}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({}, "missing_key", id="none"),
        pytest.param({"Authorization": "Bearer "}, "missing_key", id="empty"),
        pytest.param({"Authorization": "Basic gw-a"}, "missing_key", id="basic"),
        pytest.param({"x-api-key": "gw-c"}, "unknown_key", id="unknown"),
        pytest.param({"x-api-key": "\udcff"}, "unknown_key", id="no-text"),
        pytest.param(
            {"x-api-key": key_sha256("gw-a")}, "unknown_key", id="the-hash-is-no-key"
        ),
    ],
)
def test_anything_else_is_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        KEYS.identify(CIMultiDict(headers))

    assert code == caught.value.code
    assert "gw-" not in caught.value.detail


def test_new_keys_differ_and_are_long() -> None:
    keys = {new_key() for _ in range(100)}

    assert 100 == len(keys)
    assert all(key.startswith("gw-") and len(key) > 40 for key in keys)
