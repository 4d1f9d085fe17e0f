"""
Everything at once, at random: clients of each protocol on accounts of each, of whom
many leave, upstreams that fail, a process that is paused and reloaded.

Afterwards nothing is left: no slot, no open row, no stream without its one ending.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, user

CLIENTS, REQUESTS_EACH = 20, 20
PLAYS = {
    "slow": plays.ok(interval_s=0.003),
    "at-once": plays.ok(),
    "cut": plays.cut(1),
    "reset": plays.reset(None),
    "half": plays.half_event(2),
    "busy": plays.status(503),
}


class Crowd:
    """
    Clients that come and leave as *chance* will have it.

    Attributes:
        left: the ids of requests that were given up.
    """

    def __init__(self, gateway: Gateway, chance: random.Random) -> None:
        self.left: set[str] = set()
        self._gateway = gateway
        self._chance = chance

    async def ask(self) -> None:
        """The requests of one client, one behind the other."""
        for _ in range(REQUESTS_EACH):
            await self._ask()

    async def _ask(self) -> None:
        chance, ident = self._chance, str(uuid.uuid4())
        protocol, upstream = chance.choices(answers.PROTOCOLS, k=2)
        stream = chance.random() < 0.7
        client = self._gateway.client(chance.choice(("alice", "bob")))
        patience_s = chance.random() * 0.15 if chance.random() < 0.4 else 60.0
        try:
            async with asyncio.timeout(patience_s):
                reply = await client.ask(
                    protocol,
                    f"{upstream}-{chance.choice(list(PLAYS))}",
                    stream=stream,
                    headers={"x-request-id": ident},
                )
        except TimeoutError:
            assert patience_s < 60.0
            self.left.add(ident)
            return
        assert not reply.broken
        if stream and reply.status == 200:
            ends_once(protocol, reply)


def ends_once(protocol: str, reply: Reply) -> None:
    """The stream has one ending, behind everything else."""
    kinds = [event.kind for event in reply.events]
    if protocol == "responses" and kinds[-1] == "[DONE]":  # behind a converted one
        kinds.pop()
    assert 1 == sum(kind in endings.TERMINALS for kind in kinds), kinds
    assert kinds[-1] in endings.TERMINALS, kinds


async def trouble(gateway: Gateway, chance: random.Random) -> None:
    """Pause and reload the process now and then, until cancelled."""
    pid = gateway.daemon.worker_pid
    while True:
        await asyncio.sleep(chance.random())
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(chance.random() * 0.3)
        os.kill(pid, signal.SIGCONT)
        gateway.daemon.reload()


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_chaos_nothing_is_left(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    gateway = await serve(
        daemon=True,
        accounts=[
            account(upstream, name, max_concurrent=4) for name in answers.PROTOCOLS
        ],
        users=[user(name, max_concurrent=6) for name in ("alice", "bob")],
        limits={"max_queued": 500, "ping_interval_s": 0.05, "queue_timeout_s": 60.0},
        upstream={"client_gone_drain_s": 0.5},
    )
    for name, play in PLAYS.items():
        for protocol in answers.PROTOCOLS:
            upstream.always(play, model=f"{protocol}-{name}")
    crowd = Crowd(gateway, chance)
    troubling = asyncio.create_task(trouble(gateway, chance))

    async with asyncio.timeout(100):
        await asyncio.gather(*(crowd.ask() for _ in range(CLIENTS)))
    troubling.cancel()
    os.kill(gateway.daemon.worker_pid, signal.SIGCONT)
    await upstream.idle()

    await nothing_in_use(gateway)
    for client in gateway.clients.values():  # who gave up before it was heard
        client.asked[:] = [
            one
            for one in client.asked
            if one not in crowd.left or gateway.log.grep(one)
        ]
    gateway.daemon.terminate()
    assert 0 == await gateway.daemon.exited()
    finished = len(gateway.log.events("request.finished"))
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as ledger:
        kept = "select count(*), sum(outcome = 'open') from request"
        assert (finished, 0) == ledger.execute(kept).fetchone()


async def nothing_in_use(gateway: Gateway) -> None:
    """Return once no slot is taken and no request waits."""
    async with asyncio.timeout(20):
        while True:
            reply = await gateway.client().send("/metrics", method="GET")
            lines = reply.body.decode().splitlines()
            used = ("gateway_slots_in_use{", "gateway_queue_waiting{")
            if all(line.endswith(" 0.0") for line in lines if line.startswith(used)):
                return
            await asyncio.sleep(0.05)
