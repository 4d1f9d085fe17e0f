"""
Which conversation a request belongs to.

The key is the first of: Claude Code's header, Codex's headers (also as written by
older versions, with underscores), the general affinity headers, the prompt cache key,
the session inside Messages' ``metadata.user_id``, else the user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

HEADERS = (
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "thread-id",
    "thread_id",
    "conversation_id",
    "x-session-affinity",
    "x-session-id",
)
_MARK = "_session_"  # in metadata.user_id of older Claude Code
_MAX_CHARS = 512


class Session(NamedTuple):
    """
    A conversation.

    Attributes:
        key: what affinity knows it by: a hash of the user and the value.
        source: where the value was found; "user" if nowhere.
        value: the client's own name for it, for log and trace; "" if none.
    """

    key: str
    source: str
    value: str

    @property
    def is_named(self) -> bool:
        """Whether the client named it; else all requests of a user share it."""
        return self.source != "user"


def session_of(
    headers: Mapping[str, str], body: Mapping[str, Any], user: str
) -> Session:
    """The conversation of a request; *headers* are looked up in lower case."""
    for source in HEADERS:
        if source in headers and (value := _clean(headers[source])):
            return _session(user, source, value)
    if value := _clean(body.get("prompt_cache_key")):
        return _session(user, "prompt_cache_key", value)
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        if value := _inside(metadata.get("user_id")):
            return _session(user, "metadata.user_id", value)
    return _session(user, "user", "")


@lru_cache(maxsize=4096)
def _session(user: str, source: str, value: str) -> Session:
    digest = hashlib.blake2b(f"{user}\0{value}".encode(), digest_size=12)
    return Session(digest.hexdigest(), source, value)


def _clean(value: object) -> str:
    if not isinstance(value, str):
        return ""
    value = value.strip()
    fits = 0 < len(value) <= _MAX_CHARS and value.isprintable()
    return value if fits else ""


def _inside(user_id: object) -> str:
    """The session in Claude Code's ``user_id``: JSON, or the older joined form."""
    if not isinstance(user_id, str) or len(user_id) > 8 * _MAX_CHARS:
        return ""
    if user_id.lstrip()[:1] == "{":
        try:
            found = orjson.loads(user_id)
        except orjson.JSONDecodeError:
            return ""
        return _clean(found.get("session_id")) if isinstance(found, dict) else ""
    _, mark, session = user_id.rpartition(_MARK)
    return _clean(session) if mark else ""
