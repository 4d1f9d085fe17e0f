"""
From a key to its user.

A key is looked up by its SHA-256, so the time it takes says nothing about any known
key; the key itself is neither kept nor logged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.config.keys import key_sha256
from gateway.config.schema import Limits, User
from gateway.errors import ClientError

KEY_QUERY_NAMES = frozenset(
    ("key", "api_key", "api-key", "apikey", "x-api-key", "access_token", "token")
)


class Identity(NamedTuple):
    """
    Who asks.

    Attributes:
        key: the first 8 hex digits of the key's hash.
        expires_at: Unix seconds from which on the key is refused; None for never.
    """

    user: User
    key: str
    limits: Limits
    expires_at: float | None = None


class Keys:
    """
    All keys of all users.

    Args:
        expires_at: Unix seconds by the hash of a key; a key of the config has none.
        used: gets the hash of each key that a request bears.
    """

    def __init__(
        self,
        users: Iterable[User],
        default: Limits,
        expires_at: Mapping[str, float] | None = None,
        used: set[str] | None = None,
    ) -> None:
        self._used = set() if used is None else used
        self._known: dict[str, Identity] = {}
        expires = expires_at or {}
        for user in users:
            limits = user.limits(default)
            for digest in user.key_sha256:
                self._known[digest] = Identity(
                    user, digest[:8], limits, expires.get(digest)
                )

    def __contains__(self, digest: str) -> bool:
        return digest in self._known

    def identify(self, headers: Mapping[str, str]) -> Identity:
        """
        The user of the key in ``Authorization: Bearer`` or ``x-api-key``.

        Claude Code may send both; the first that is known counts.

        Raises:
            ClientError: "missing_key", "unknown_key" or "expired_key".
        """
        digest, code = "", "missing_key"
        for read in (_bearer, _api_key):
            if key := read(headers):
                digest = key_sha256(key)
                identity = self._known.get(digest)
                if identity is None:
                    code = "unknown_key"
                elif _is_over(identity.expires_at):
                    code = "expired_key"
                else:
                    self._used.add(digest)
                    return identity
        raise ClientError(code, detail=digest and f"key {digest[:8]}")


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


def _is_over(expires_at: float | None) -> bool:
    return expires_at is not None and time.time() >= expires_at


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _api_key(headers: Mapping[str, str]) -> str:
    return headers.get("x-api-key", "").strip()
