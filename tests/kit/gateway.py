"""A gateway under test, in this process or in its own, and who asks it."""

from __future__ import annotations

from dataclasses import dataclass, field

import aiohttp

from tests.kit import settings
from tests.kit.asking import Client, Reply
from tests.kit.daemon import Daemon
from tests.kit.inprocess import InProcess
from tests.kit.logs import Line, Log

UNSAID = (
    "gw-test-",
    settings.ADMIN_TOKEN,
    "sk-responses",
    "sk-chat",
    "sk-messages",
    "say something",
)
"""Keys, upstream keys, the prompt of every question: never in a log."""


@dataclass
class Gateway:
    """What a test holds: clients by user, the log, and how to stop it."""

    process: Daemon | InProcess
    session: aiohttp.ClientSession
    clients: dict[str, Client] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return self.process.base_url

    @property
    def log(self) -> Log:
        return self.process.log

    @property
    def daemon(self) -> Daemon:
        assert isinstance(self.process, Daemon)
        return self.process

    @property
    def inside(self) -> InProcess:
        assert isinstance(self.process, InProcess)
        return self.process

    def client(self, user: str = "alice") -> Client:
        """The client of this user; always the same one."""
        if user not in self.clients:
            key = settings.key_of(user)
            self.clients[user] = Client(self.base_url, key, self.session)
        return self.clients[user]

    async def finished(self, reply: Reply) -> Line:
        """The canonical line of what was asked."""
        return await self.log.wait_finished(reply.request_id)

    async def explained(self, reply: Reply) -> Line:
        """
        The canonical line of a failure that a client saw.

        Both ids that the client holds must lead to a line that explains it.
        """
        line = await self.finished(reply)
        ids = [reply.request_id]
        if reply.status == 200 and line["protocol"] == "responses":
            ids.append(reply.last.json["response"]["id"])
        self.log.explains(*ids)
        assert reply.request_id in reply.body.decode()
        assert line["error_code"]
        return line

    async def check(self) -> None:
        """What holds for every test: one record each, nothing secret, no crash."""
        asked = [one for client in self.clients.values() for one in client.asked]
        await self.log.each_finished_once(asked)
        for text in self.log.text:
            assert not [unsaid for unsaid in UNSAID if unsaid in text], text
        for event in ("request.crashed", "process.crashed", "library.logged"):
            assert not self.log.events(event), self.log.events(event)
