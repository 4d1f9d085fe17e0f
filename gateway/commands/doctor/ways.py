"""How far it is to the accounts' servers: names, connections, TLS. It costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.commands.doctor.facts import WayFacts
from gateway.config.schema import Account
from gateway.endpoints.admin.way_to_account import certificate_left_s, way_to

AT_ONCE = 16  # accounts


def ways_of(accounts: Iterable[Account]) -> dict[str, WayFacts]:
    """The way to each of *accounts*, as this machine and its environment see it."""
    return asyncio.run(_ways([one for one in accounts if not one.embedded]))


async def _ways(accounts: list[Account]) -> dict[str, WayFacts]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(account: Account) -> WayFacts:
        async with room:
            return await _way(account)

    found = await asyncio.gather(*map(one, accounts))
    return {account.name: way for account, way in zip(accounts, found, strict=True)}


async def _way(account: Account) -> WayFacts:
    async for step in way_to(account):
        if not step.ok:
            return WayFacts(step.step, step.detail)
    return WayFacts(certificate_s=await certificate_left_s(account))
