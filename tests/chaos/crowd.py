"""Clients that ask, come back, and leave when they like; everything is noted."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import aiohttp

from tests.chaos.journal import Asked, Journal
from tests.kit.asking import PATHS, Reply, question, read_reply
from tests.kit.endings import TERMINALS
from tests.kit.settings import key_of

PATIENCE_S = 90.0  # no request may take so long
LEAVES = 0.1
PROBE_S = 0.15
RETRY_S = 0.1


class Crowd:
    """
    Args:
        urls: of the nodes.
        users: with the number of clients of each.
    """

    def __init__(
        self, urls: list[str], journal: Journal, users: dict[str, int], seed: int
    ) -> None:
        self._urls, self._journal, self._users = urls, journal, users
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1)
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Ask until ``stop``; return when every request has ended."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with asyncio.TaskGroup() as group:
                for user, count in self._users.items():
                    for _ in range(count):
                        group.create_task(self._one(session, user))
                for node in range(len(self._urls)):
                    group.create_task(self._probe(session, node))

    def stop(self) -> None:
        self._over.set()

    async def _one(self, session: aiohttp.ClientSession, user: str) -> None:
        while not self._over.is_set():
            node = self._chance.randrange(len(self._urls))
            protocol = self._chance.choice(("responses", "chat"))
            leaves_s = None
            if self._chance.random() < LEAVES:
                leaves_s = self._chance.uniform(0.05, 2.0)
            asked = await self._ask(session, user, node, protocol, leaves_s)
            if asked.ending not in ("ok", "left"):
                await asyncio.sleep(RETRY_S)

    async def _probe(self, session: aiohttp.ClientSession, node: int) -> None:
        """Requests that nothing keeps waiting: their accounts are never full."""
        while not self._over.is_set():
            await asyncio.sleep(PROBE_S)
            await self._ask(session, "probe", node, "chat", None)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        user: str,
        node: int,
        protocol: str,
        leaves_s: float | None,
    ) -> Asked:
        ident = f"chaos-{next(self._numbers):06}"
        one = Asked(ident, user, node, time.monotonic(), in_line=user != "probe")
        self._journal.asked.append(one)
        kind = "probe" if user == "probe" else "work"
        body = question(protocol, f"{kind}_{user}_{node}_{ident}")
        headers = {"x-request-id": ident, "authorization": f"Bearer {key_of(user)}"}
        try:
            async with asyncio.timeout(leaves_s or PATIENCE_S):
                async with session.post(
                    self._urls[node] + PATHS[protocol], json=body, headers=headers
                ) as response:
                    reply = await read_reply(response, one.at)
                    one.ending = ending_of(protocol, reply)
        except TimeoutError:
            one.ending = "left" if leaves_s else "hung"
        except aiohttp.ClientConnectorError:
            one.ending = "unreached"
        except (aiohttp.ClientError, OSError):
            one.ending = "broken"
        one.ended = time.monotonic()
        return one


def ending_of(protocol: str, reply: Reply) -> str:
    """The word for how *reply* ended; see ``Asked.ending``."""
    if reply.broken:
        return "broken"
    if reply.status != 200:
        error = reply.json["error"]
        return f"{reply.status} {error.get('code') or error['type']}"
    kinds = [event.kind for event in reply.events]
    if protocol == "responses" and kinds[-1:] == ["[DONE]"]:  # behind a converted one
        kinds.pop()
    last = [kind for kind in kinds if kind in TERMINALS]
    if not last or kinds[-1] not in TERMINALS:
        return "no-ending"
    if len(last) > 1:
        return "twice"
    if last[0] in ("response.completed", "[DONE]"):
        return "ok"
    value = reply.last.json
    error = value.get("error") or {}
    return f"in stream: {error.get('code') or error.get('type')}"
