"""Names of tools and ids of calls in a form that every server takes."""

from __future__ import annotations

import hashlib
import re

from gateway.protocols.vendor_limits import limit

NAME_MAX = 64
_NOT_NAME = re.compile(r"[^A-Za-z0-9_-]")


def short_hash(text: str) -> str:
    """The first eight hex digits of the SHA-256 of *text*."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def safe_name(original: str) -> str:
    """
    A tool name that every protocol takes: unchanged if legal, else sanitised and
    ended by a hash of *original*, so that the next turn derives the same name.
    """
    clean = _NOT_NAME.sub("_", original)
    if clean == original and 0 < len(original) <= NAME_MAX:
        return original
    return f"{clean[: NAME_MAX - 9]}_{short_hash(original)}"


def safe_id(original: str) -> str:
    """A call id that every protocol takes; unchanged if legal, hashed if too long."""
    clean = _NOT_NAME.sub("_", original)
    if 0 < len(clean) <= NAME_MAX:
        return clean
    return f"{clean[: NAME_MAX - 9] or 'call'}_{short_hash(original)}"


ID_MAX: int = limit("chat", "call_id")
_NINE = re.compile(r"[A-Za-z0-9]{9}")


def fitting_id(original: str, ids: str) -> str:
    """A call id as a server takes it whose ``Options.ids`` is *ids*."""
    if ids == "narrow":
        return safe_id(original)
    if ids == "nine":
        known = _NINE.fullmatch(original) is not None
        return (
            original
            if known
            else (short_hash(original) + short_hash(original[::-1]))[:9]
        )
    if not original:
        return safe_id(original)
    if ids == "short" and len(original) > ID_MAX:
        return f"{original[: ID_MAX - 9]}_{short_hash(original)}"
    return original
