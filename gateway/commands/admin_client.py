"""
How a command speaks with the running daemon: one question, one answer.

It is found by ``[admin]`` of the config: the first unix socket, else the first address
and its token. No other secret of the config has to be there.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from gateway.config.load import load_admin
from gateway.config.schema import AdminSettings

TIMEOUT_S = 150.0  # a restart waits for the new workers
PREFIX = "/api/v1"


class CommandError(Exception):
    """
    A command cannot be done; the text is for the operator.

    Args:
        code: of the admin API, or what kept the command from asking it.
        answer: its whole answer; None where there is none.
    """

    def __init__(
        self, text: str, code: str = "invalid_argument", answer: Any = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.answer = answer


class AdminAddress(NamedTuple):
    """
    Where the daemon listens for its operator.

    Attributes:
        unix: the path of a socket; "" for TCP.
    """

    unix: str
    host: str
    port: int
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What every request bears."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def __str__(self) -> str:
        return self.unix or f"{self.host}:{self.port}"


def address_of(config: Path) -> AdminAddress:
    """
    The admin address in the config file *config*.

    Raises:
        CommandError: it has no admin side, or its token is not known.
        ConfigError: with every mistake.
    """
    admin = load_admin(config)
    if admin is None:
        raise CommandError(
            f"{config} has no [admin]: nothing listens for its operator", "no_admin"
        )
    for address in admin.listen:
        if address.startswith("unix:"):
            return AdminAddress(str(config.parent / address[5:]), "localhost", 0, "")
    return _tcp(admin)


def _tcp(admin: AdminSettings) -> AdminAddress:
    if not admin.token:
        raise CommandError(
            "admin.token is not set, and the daemon's throwaway token is not known "
            "here: add a unix socket to admin.listen",
            "no_token",
        )
    host, _, port = admin.tcp[0].rpartition(":")
    host = host.strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return AdminAddress("", host, int(port), admin.token)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket *path*."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DaemonClient:
    """
    The admin API of a running daemon.

    Args:
        config: its config file.
        timeout_s: the longest silence of it.
    """

    def __init__(self, config: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address_of(config)
        self._timeout_s = timeout_s

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
    ) -> Any:
        """
        The answer to a request, as JSON values.

        Args:
            path: behind ``/api/v1``; see ``part`` for what varies.
            query: None and "" are left out.

        Raises:
            CommandError: the daemon is not there, or refuses.
        """
        given = {k: v for k, v in (query or {}).items() if v not in (None, "")}
        target = PREFIX + path + (f"?{urlencode(given)}" if given else "")
        data = None if body is None else json.dumps(body)
        connection = self._connection()
        try:
            connection.request(method, target, data, self.address.headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
            if response.status >= 400:
                raise self._refusal(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(error) from None
        finally:
            connection.close()
        return answer

    def snapshot(self) -> Any:
        """
        What the event stream begins with: requests, accounts, users and rates.

        Raises:
            CommandError: the daemon is not there, or refuses.
        """
        connection = self._connection()
        try:
            connection.request("GET", f"{PREFIX}/events", headers=self.address.headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise self._refusal(json.loads(response.read()))
            for line in response:
                if line.startswith(b"data:"):
                    return json.loads(line[5:])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(error) from None
        finally:
            connection.close()
        raise self._no_answer(EOFError("no snapshot"))

    def _no_answer(self, error: Exception) -> CommandError:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return CommandError(
            f"the daemon does not answer at {self.address}: {reason}", "no_daemon"
        )

    @staticmethod
    def _refusal(answer: Any) -> CommandError:
        """The error in an *answer*; ValueError: it holds none."""
        try:
            facts = answer["error"]
            return CommandError(facts["message"], facts["code"], answer)
        except (LookupError, TypeError):
            raise ValueError("that is no answer of a gateway") from None

    def _connection(self) -> http.client.HTTPConnection:
        if self.address.unix:
            return UnixConnection(self.address.unix, self._timeout_s)
        _, host, port, _ = self.address
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def part(name: str) -> str:
    """*name* as a part of a path."""
    return quote(name, safe="")
