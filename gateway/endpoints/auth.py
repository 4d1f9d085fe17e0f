"""
From a key to its user.

A key is looked up by its SHA-256, so the time it takes says nothing about any known
key; the key itself is neither kept nor logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.config.keys import key_sha256
from gateway.config.schema import Limits, User
from gateway.errors import ClientError

KEY_QUERY_NAMES = frozenset(
    ("key", "api_key", "api-key", "apikey", "x-api-key", "access_token", "token")
)


class Identity(NamedTuple):
    """Who asks: the user, the first 8 hex digits of the key's hash, the limits."""

    user: User
    key: str
    limits: Limits


class Keys:
    """All keys of all users."""

    def __init__(self, users: Iterable[User], default: Limits) -> None:
        self._known = {
            digest: Identity(user, digest[:8], user.limits(default))
            for user in users
            for digest in user.key_sha256
        }

    def identify(self, headers: Mapping[str, str]) -> Identity:
        """
        The user of the key in ``Authorization: Bearer`` or ``x-api-key``.

        Claude Code may send both; the first that is known counts.

        Raises:
            ClientError: "missing_key" or "unknown_key".
        """
        digest = ""
        for read in (_bearer, _api_key):
            if key := read(headers):
                digest = key_sha256(key)
                if identity := self._known.get(digest):
                    return identity
        if not digest:
            raise ClientError("missing_key")
        raise ClientError("unknown_key", detail=f"key {digest[:8]}")


def refuse_keys_in(query: Iterable[str]) -> None:
    """
    Refuse a key in the URL, which ends up in logs on the way, here and upstream.

    Args:
        query: the names of the parameters.

    Raises:
        ClientError: "invalid_request".
    """
    for name in query:
        if name.lower() in KEY_QUERY_NAMES:
            raise ClientError(
                "invalid_request",
                f"'{name}' must not be in the URL: send the key as a bearer token",
                param=name,
            )


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _api_key(headers: Mapping[str, str]) -> str:
    return headers.get("x-api-key", "").strip()
