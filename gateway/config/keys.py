"""Keys and tokens: how one is made, and the hash by which the config knows a key."""

from __future__ import annotations

import hashlib
import secrets


def key_sha256(key: str) -> str:
    """The form in which the config holds a key: lower-case hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A fresh key with 256 bits of chance."""
    return "gw-" + secrets.token_urlsafe(32)


def new_token() -> str:
    """A fresh throwaway token of the admin side."""
    return "adm-" + secrets.token_urlsafe(24)
