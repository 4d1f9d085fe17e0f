"""
Which pages of the web may read our answers: cross-origin resource sharing.

No cookies are involved: a page needs a key of its own, and gets it from its user. So
``*`` is allowed, too; every page that knows a key may use it then.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ANY = "*"
METHODS = "GET, POST, DELETE, HEAD, OPTIONS"
MAX_AGE_S = 600
# By name for browsers that take "*" for the name of a header.
EXPOSED = (
    "x-request-id, request-id, x-upstream-request-id, x-gateway-queue-ms, "
    "x-gateway-attempts, x-gateway-account, x-gateway-dropped, retry-after, "
    "x-should-retry, *"
)
ASKED_FOR = "authorization, content-type, x-api-key, anthropic-version"

_NAMES = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,2000}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/\s,?#@*A-Z]+", re.ASCII)


def origin_mistake(origin: str) -> str:
    """What is wrong with an entry of ``server.allow_origins``, "" if nothing."""
    if origin == ANY or _ORIGIN.fullmatch(origin):
        return ""
    return "must be an origin such as https://app.example.com, in lower case, or *"


class Origins:
    """
    Args:
        allowed: the origins as browsers write them, or ``*``.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(allowed)

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def allows(self, origin: str) -> bool:
        """Whether pages of *origin* may read answers."""
        return bool(origin) and (ANY in self._allowed or origin in self._allowed)

    def answer(self, origin: str) -> dict[str, str]:
        """The headers of an answer to a page of *origin*, "" if no page asked."""
        if not self._allowed:
            return {}
        if ANY in self._allowed:
            headers = {"Access-Control-Allow-Origin": ANY} if origin else {}
        else:
            headers = {"Vary": "Origin"}  # also to others: a cache must not mix them
            if self.allows(origin):
                headers["Access-Control-Allow-Origin"] = origin
        if self.allows(origin):
            headers["Access-Control-Expose-Headers"] = EXPOSED
        return headers

    def preflight(self, request: Mapping[str, str]) -> dict[str, str]:
        """The headers that say to a browser what its page may send."""
        names = request.get("Access-Control-Request-Headers", "")
        headers = {
            **self.answer(request.get("Origin", "")),
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": (
                names if _NAMES.fullmatch(names) else ASKED_FOR
            ),
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
        if request.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return headers
