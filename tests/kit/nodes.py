"""Nodes of one gateway in one process: a ``SharedRegistry`` each, on a real engine."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Iterator

from gateway.admission.shared_registry import SharedRegistry
from gateway.admission.slot import Holder, Slot
from gateway.shared.address import parse_address
from gateway.shared.bus import Bus
from gateway.shared.membership import Membership
from gateway.shared.node_timing import NodeTiming

QUICK = NodeTiming(beat_s=0.05, ttl_s=0.4, retry_s=(0.02, 0.05))
LIMITS = {"alice": 5, "bob": 5}
ACCOUNTS = {"one": 3, "two": 3}
_numbers = itertools.count(1)


class Node:
    """
    One process of the gateway, as admission sees it.

    Attributes:
        joined_at: monotonic seconds of each time that it joined.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        users: Mapping[str, int] = LIMITS,
        accounts: Mapping[str, int] = ACCOUNTS,
        max_queued: int = 1000,
        timing: NodeTiming = QUICK,
        refuse: bool = False,
        learn: bool = False,
        end_running: Callable[[str, Any], bool] = lambda ident, error: False,
    ) -> None:
        self.name = f"host:0:{next(_numbers):08}"
        self.registry = SharedRegistry(refuse=lambda: refuse, end_running=end_running)
        self.engine = Membership(
            parse_address(url),
            prefix,
            self.name,
            self.registry.side,
            timing=timing,
            learn=learn,
        )
        self.joined_at: list[float] = []
        self.engine.on_joined = lambda: self.joined_at.append(time.monotonic())
        self.registry.attach(self.engine, Bus(self.engine))
        for user, limit in users.items():
            self.registry.set_user(user, limit, max_queued)
        for account, limit in accounts.items():
            self.registry.set_account(account, limit)

    async def user(
        self, user: str = "alice", wait_s: float = 10.0, **more: Any
    ) -> tuple[Slot, Holder]:
        """A slot of *user*, and who holds it."""
        holder = Holder(f"r{next(_numbers)}", user)
        deadline = time.monotonic() + wait_s
        slot = await self.registry.user_slot(user, holder, deadline, **more)
        return slot, holder

    async def account(
        self,
        holder: Holder,
        tiers: Sequence[Sequence[str]] = (("one", "two"),),
        wait_s: float = 10.0,
        **more: Any,
    ) -> Slot:
        """A slot of an account for *holder*."""
        deadline = time.monotonic() + wait_s
        return await self.registry.account_slot(tiers, holder, deadline, **more)

    def die(self) -> None:
        """End as a killed process does: nothing is said any more."""
        engine = self.engine
        assert engine._task is not None
        engine._task.cancel()
        engine._book = _Deaf()  # type: ignore[assignment]
        if engine._connection is not None:
            engine._connection.close()


class _Deaf:
    """The book of a dead process."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *some, **more: ()


@asynccontextmanager
async def nodes(url: str, count: int = 2, **more: Any) -> AsyncIterator[list[Node]]:
    """*count* nodes that have joined, with a prefix of their own."""
    prefix = more.pop("prefix", f"t{next(_numbers)}")
    made = [Node(url, prefix, **more) for _ in range(count)]
    try:
        for node in made:
            await node.engine.start()
        yield made
    finally:
        for node in made:
            await node.engine.stop()


async def set_aside(gate: str, *some: Node) -> None:
    """Wait until each of *some* has slots of *gate* for the loss of the engine."""
    await eventually(lambda: all(node.registry.side.spares.of(gate) for node in some))


class Running:
    """
    What runs at this moment, counted where it runs.

    Attributes:
        most: the most at once, by name.
    """

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @contextmanager
    def one(self, *names: str) -> Iterator[None]:
        """Something runs that counts for *names*."""
        for name in names:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        try:
            yield
        finally:
            for name in names:
                self.now[name] -= 1


async def request(
    node: Node,
    running: Running,
    user: str = "alice",
    tiers: Sequence[Sequence[str]] = (("one", "two"),),
    run_s: float = 0.005,
) -> str:
    """
    A whole request at *node*; the account that served it. Every second asks for both
    slots at once.
    """
    ahead = (lambda: tiers) if next(_numbers) % 2 else None
    slot, holder = await node.user(user, ahead=ahead)
    with slot:
        with await node.account(holder, tiers) as granted:
            with running.one(user, granted.account):
                await asyncio.sleep(run_s)
            return granted.account


async def eventually(check: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until *check* holds."""
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until, "it did not come to be"
        await asyncio.sleep(0.005)


async def keys_left(url: str, prefix: str) -> list[str]:
    """What the engine still holds of requests."""
    from gateway.shared.dialing import dial

    one = await dial(parse_address(url), "look")
    found = [key.decode() for key in await one.send("KEYS", f"{{{prefix}}}:*")]
    await one.closed()
    kinds = ("run:", "n:", "q:", "w:", "ring:", "lane:", "at:", "deep:", "waiting")
    kinds = (*kinds, "drain", "gone:")
    return [key for key in found if key.split(":", 1)[1].startswith(kinds)]


__all__ = ["AsyncExitStack", "Node", "Running", "eventually", "nodes", "request"]
