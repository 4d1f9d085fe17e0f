"""
Who may use the admin side, and as whom a change is logged.

Rule 1: a user who can open the unix socket may: its mode is 0600. ``who`` is the uid.
Rule 2: on TCP a request has the token, or a session that a page made from it. The
        token is compared in constant time; after failures an address has to wait.
Rule 3: on TCP ``Host`` names this machine, as a literal address or as the config does,
        and ``Origin``, where there is one, is the same. So no page of another site
        reaches the API through an operator's browser.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

from aiohttp import hdrs, web

from gateway.endpoints.admin.errors import AdminError

FAILURES = 10  # wrong tokens of one address at once
FAILURE_S = 3.0  # after which one more is allowed
MAX_ADDRESSES = 1024  # whose failures are remembered

MaybeWho = Callable[[web.Request], str | None]
"""Another way to log in: as whom *request* is logged in, None if it is not."""


class FailureLimit:
    """
    How many wrong tokens an address may send: a bucket that refills.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until *address* may try again; 0 for at once."""
        empty_at = self._empty_at.get(address, 0.0)
        return max(0.0, empty_at - FAILURES * FAILURE_S - self._clock() + FAILURE_S)

    def failed(self, address: str) -> None:
        """*address* has sent a wrong token."""
        now = self._clock()
        self._empty_at[address] = max(now, self._empty_at.get(address, now)) + FAILURE_S
        self._empty_at.move_to_end(address)
        if len(self._empty_at) > MAX_ADDRESSES:
            self._empty_at.popitem(last=False)


class AdminAccess:
    """
    Args:
        token: gives the token that is in force; "" for none, then TCP is closed.
        addresses: the admin listeners, as the config writes them.

    Attributes:
        sessions: further ways to log in on TCP.
    """

    def __init__(self, token: Callable[[], str], addresses: Iterable[str]) -> None:
        self._token = token
        self._hosts = {
            address.rpartition(":")[0].strip("[]").lower()
            for address in addresses
            if not address.startswith("unix:")
        }
        self._limit = FailureLimit()
        self.sessions: list[MaybeWho] = []

    def check_source(self, request: web.Request) -> None:
        """
        Refuse what a page of another site may have sent; see rule 3.

        Raises:
            AdminError: "wrong_host" or "wrong_origin".
        """
        if unix_uid(request) is not None:
            return
        host = request.headers.get(hdrs.HOST, "")
        if not self._is_own_host(host):
            raise AdminError(
                403,
                "wrong_host",
                "The Host of this request is not an address of the admin side; "
                "use one of admin.listen",
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise AdminError(
                403, "wrong_origin", "Pages of other sites may not use the admin side"
            )

    def _is_own_host(self, host: str) -> bool:
        name = _host_name(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return False

    def who(self, request: web.Request) -> str:
        """
        As whom *request* is logged in.

        Raises:
            AdminError: "too_many_failures", "missing_token" or "wrong_token".
        """
        uid = unix_uid(request)
        if uid is not None:
            return f"unix:{uid}"
        for maybe_who in self.sessions:
            if found := maybe_who(request):
                return found
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise AdminError(
                401,
                "missing_token",
                "The admin API needs its token as a bearer token",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        self.check_token(request, given.strip())
        return "token"

    def check_token(self, request: web.Request, given: str) -> None:
        """
        Raises:
            AdminError: "wrong_token"; "too_many_failures" for too many of them.
        """
        address = request.remote or ""
        if (wait_s := self._limit.wait_s(address)) > 0:
            raise AdminError(
                429,
                "too_many_failures",
                "Too many wrong tokens came from this address",
                headers={hdrs.RETRY_AFTER: str(int(wait_s) + 1)},
            )
        token = self._token().encode()
        encoded = given.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(encoded, token) or not token:
            self._limit.failed(address)
            raise AdminError(
                401,
                "wrong_token",
                "This is not the admin token",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )


def unix_uid(request: web.Request) -> int | None:
    """The user id behind a unix socket; None on TCP."""
    transport = request.transport
    found = transport.get_extra_info("socket") if transport else None
    if found is None or found.family != socket.AF_UNIX:
        return None
    credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _host_name(host: str) -> str:
    """The name or address in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
