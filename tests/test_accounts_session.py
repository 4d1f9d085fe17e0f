"""Which conversation a request belongs to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.session import session_of

CLAUDE_CODE = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "s"})


@pytest.mark.parametrize(
    ("headers", "body", "source", "value"),
    [
        pytest.param(
            {"x-claude-code-session-id": "s", "session-id": "other"},
            {"prompt_cache_key": "third"},
            "x-claude-code-session-id",
            "s",
            id="claude-code-first",
        ),
        pytest.param(
            {"session-id": "s", "thread-id": "t"}, {}, "session-id", "s", id="codex"
        ),
        pytest.param({"session_id": "s"}, {}, "session_id", "s", id="old-codex"),
        pytest.param({"thread-id": "t"}, {}, "thread-id", "t", id="codex-thread"),
        pytest.param({"thread_id": "t"}, {}, "thread_id", "t", id="thread-underscore"),
        pytest.param(
            {"x-session-affinity": "s"}, {}, "x-session-affinity", "s", id="opencode"
        ),
        pytest.param({"x-session-id": "s"}, {}, "x-session-id", "s", id="x-session"),
        pytest.param(
            {}, {"prompt_cache_key": "k"}, "prompt_cache_key", "k", id="cache-key"
        ),
        pytest.param(
            {},
            {"metadata": {"user_id": CLAUDE_CODE}},
            "metadata.user_id",
            "s",
            id="user-id-json",
        ),
        pytest.param(
            {},
            {"metadata": {"user_id": "user_ab_account__session_s-1"}},
            "metadata.user_id",
            "s-1",
            id="user-id-joined",
        ),
        pytest.param({}, {}, "user", "", id="nothing"),
        pytest.param({}, {"metadata": {"user_id": "alice"}}, "user", "", id="no-mark"),
        pytest.param({}, {"metadata": {"user_id": "{"}}, "user", "", id="broken-json"),
        pytest.param({}, {"metadata": {"user_id": "{}"}}, "user", "", id="empty-json"),
        pytest.param({}, {"metadata": []}, "user", "", id="odd-metadata"),
        pytest.param({}, {"prompt_cache_key": 5}, "user", "", id="odd-cache-key"),
        pytest.param({"session-id": "  "}, {}, "user", "", id="blank-header"),
        pytest.param({"session-id": "s" * 2000}, {}, "user", "", id="endless-header"),
    ],
)
def test_the_first_name_counts(
    headers: dict[str, str], body: dict[str, Any], source: str, value: str
) -> None:
    session = session_of(headers, body, "alice")
    assert (source, value, source != "user") == (
        session.source,
        session.value,
        session.is_named,
    )


def test_two_users_never_share_a_session() -> None:
    headers = {"session-id": "s"}
    keys = {session_of(headers, {}, user).key for user in ("alice", "bob")}
    assert 2 == len(keys)


def test_the_same_name_is_the_same_session_wherever_it_stands() -> None:
    """Codex sends it as header and as cache key; a proxy may drop the header."""
    by_header = session_of({"session-id": "s"}, {}, "alice")
    by_body = session_of({}, {"prompt_cache_key": "s"}, "alice")
    assert by_header.key == by_body.key


@given(st.text(), st.text())
def test_any_text_is_borne(header: str, user_id: str) -> None:
    body = {"metadata": {"user_id": user_id}, "prompt_cache_key": header}
    session = session_of({"session-id": header}, body, "alice")
    assert 24 == len(session.key)
