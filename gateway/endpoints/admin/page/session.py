"""
The session of a browser: a cookie that is made from the admin token.

Rule 1: nothing is kept. The cookie says until when it is good, and is signed with the
        token, so every worker and node takes it and a new token ends all sessions.
Rule 2: the cookie's name is made from the token, too: cookies know no port, and two
        gateways may be open in one browser.
Rule 3: what changes something needs a request from the page itself besides
        (``same_origin``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

SESSION_S = 7 * 86_400
_NONCE_BYTES = 9


class PageSession:
    """Makes and checks the cookies of one admin token; times are Unix seconds."""

    def __init__(self, token: str) -> None:
        self._secret = hashlib.sha256(b"gateway page session\0" + _raw(token)).digest()
        self.cookie_name = f"gateway_session_{self._sign('name')[:8]}"

    def issue(self, now: float) -> str:
        """A cookie that is good for ``SESSION_S``."""
        body = f"{int(now) + SESSION_S}.{secrets.token_urlsafe(_NONCE_BYTES)}"
        return f"{body}.{self._sign(body)}"

    def is_valid(self, cookie: str, now: float) -> bool:
        """Whether *cookie* was issued by this token and is not too old."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(_raw(self._sign(body)), _raw(signature)):
            return False
        until = body.partition(".")[0]
        return until.isdecimal() and now < int(until)

    def admits(self, cookies: Mapping[str, str], now: float) -> bool:
        """Whether a valid cookie is among those of a request."""
        return self.is_valid(cookies.get(self.cookie_name, ""), now)

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, _raw(text), hashlib.sha256).hexdigest()


def same_origin(headers: Mapping[str, str]) -> bool:
    """
    Whether a browser sent the request from a page of this very address.

    ``Sec-Fetch-Site`` cannot be set by a script; browsers that are too old for it send
    ``Origin`` with every POST.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site not in (None, "same-origin"):
        return False
    if origin is None:
        return site == "same-origin"
    return bool(origin) and urlsplit(origin).netloc == headers.get("Host")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
