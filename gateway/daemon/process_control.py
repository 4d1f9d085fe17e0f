"""
What a worker asks of its parent for the operator: a reload, a restart, what runs.

    worker   ``ask``     {"is": "ask", "what": "reload", "number": 7}
    parent   ``answer``  {"do": "answer", "number": 7, "outcome": {"ok": true, …}}
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

from gateway.daemon.channel import Message
from gateway.daemon.parent_link import ParentLink
from gateway.endpoints.admin.settings import ProcessControl

ANSWER_S = 120.0  # for workers to start, or to take over a config
LOOK_S = 1.0  # for the parent to say what it knows


class ParentControl(ProcessControl):
    """
    Args:
        link: to the parent; the word ``answer`` is taken.
    """

    def __init__(self, link: ParentLink) -> None:
        self._link = link
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        link.on("answer", self._answered)

    async def reload(self) -> Mapping[str, Any]:
        return await self._ask("reload")

    async def restart(self) -> Mapping[str, Any]:
        return await self._ask("restart")

    async def processes(self) -> Mapping[str, Any]:
        return await self._ask("processes", LOOK_S)

    async def _ask(self, what: str, within_s: float = ANSWER_S) -> Mapping[str, Any]:
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._link.say("ask", what=what, number=number)
        try:
            async with asyncio.timeout(within_s):
                outcome: Mapping[str, Any] = await future
                return outcome
        except TimeoutError:
            return {"ok": False, "reason": "the parent process does not answer"}
        finally:
            del self._asked[number]

    def _answered(self, message: Message, fds: list[int]) -> None:
        future = self._asked.get(message["number"])
        if future is not None and not future.done():
            future.set_result(message["outcome"])
