"""
The pictures of the page in ``docs/page``: ``python -m tests.screenshots``.

A gateway with a made-up fortnight in its ledger and a few requests at a scripted
upstream, looked at by Chromium in light and in dark.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import tempfile
import time
import uuid
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp

from gateway.daemon.app import components_of
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, Record
from gateway.usage import Usage
from tests.kit import browser, inprocess, plays, settings
from tests.kit.asking import Client
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account, key_of, user

PICTURES = Path(__file__).parents[1] / "docs/page"
SIZE = {"width": 1040, "height": 760}
DAYS = 14
USERS = ("alice", "bob", "carol", "dave")
MODELS = ("gpt-5.5", "gpt-5.5-mini", "claude-opus-5")
ACCOUNTS = ("openai-1", "openai-2", "anthropic-1")
FAULTS = (
    *[("ok", "", "")] * 60,
    *[("incomplete", "", "")] * 2,
    ("client_gone", "client", "client_gone"),
    ("failed", "upstream", "upstream_reset"),
    ("failed", "upstream", "upstream_overloaded"),
    ("refused", "gateway", "queue_timeout"),
    ("failed", "client", "invalid_request"),
)


def fortnight(chance: random.Random) -> list[Record]:
    """Requests of the last days, more of them at daytime."""
    now = time.time()
    records = []
    for hour in range(DAYS * 24):
        ago_s = hour * 3600.0
        busy = 1 + 7 * (7 < time.gmtime(now - ago_s).tm_hour < 19)
        for _ in range(chance.randint(busy, 3 * busy)):
            at = now - ago_s - chance.uniform(60, 3600)
            records.append(made_up(chance, at, outage=15 < hour < 18))
    return records


def made_up(chance: random.Random, at: float, outage: bool) -> Record:
    """One request that has ended at Unix second *at*."""
    which = chance.randrange(3)
    outcome, origin, code = chance.choice(FAULTS)
    if outage and chance.random() < 0.4:
        which, (outcome, origin, code) = 1, ("failed", "upstream", "upstream_reset")
    record = Record(str(uuid.UUID(int=chance.getrandbits(128))), at, 0.0)
    record.user = USERS[min(3, int(chance.expovariate(0.8)))]
    record.key, record.client, record.stream = "9f86d081", "codex", True
    record.model = record.upstream_model = MODELS[which]
    record.protocol = record.upstream_protocol = (
        "messages" if which == 2 else "responses"
    )
    record.queue_ms = chance.choice((0.0, 0.0, 4.0, chance.expovariate(1 / 2500)))
    record.first_event_ms = record.queue_ms + chance.lognormvariate(7.3, 0.5)
    record.duration_ms = record.first_event_ms + chance.lognormvariate(9.2, 0.8)
    record.status = 200
    record.set_outcome(outcome, origin, code)
    if outcome != "refused":
        record.account = ACCOUNTS[which]
        bad = code if origin == "upstream" else ""
        end = at + record.duration_ms / 1000
        record.attempts.append(AttemptRecord(1, record.account, at, end, 200, bad))
        tokens_in, tokens_out = chance.randint(4_000, 90_000), chance.randint(80, 4000)
        record.usage = Usage(tokens_in, int(tokens_in * 0.8), 0, 0, tokens_out, 60)
        record.cost_usd = tokens_in * 4e-7 + tokens_out * 1e-5
    return record


async def fill(ledger: Ledger) -> None:
    """Put the fortnight into *ledger*."""
    for record in fortnight(random.Random(7)):
        ledger.add(record)
    while ledger.waiting:
        await asyncio.sleep(0.05)


async def scene(clients: dict[str, Client], upstream: ScriptedUpstream) -> list[Any]:
    """Requests that run and wait; the last that ended has a story to tell."""
    gate = asyncio.Event()
    upstream.next(plays.status(429, headers={"retry-after": "45"}), model="gpt-5.5")
    upstream.next(plays.ok(interval_s=0.15, head_after_s=0.2), model="gpt-5.5")
    story = await clients["alice"].ask("responses", "gpt-5.5")
    open_requests = []
    for name, model in (
        ("alice", "gpt-5.5"),
        ("bob", "gpt-5.5"),
        ("alice", "gpt-5.5"),
        ("carol", "gpt-5.5"),
        ("dave", "gpt-5.5-mini"),
    ):
        upstream.next(plays.held(gate), model=model)
        ask = clients[name].ask("responses", model)
        open_requests.append(asyncio.create_task(ask))
        await asyncio.sleep(0.4)
    return [story.request_id, gate, *open_requests]


def configured(upstream: ScriptedUpstream) -> dict[str, Any]:
    """The sections of the config."""
    served = {"models": ["gpt-*"], "max_concurrent": 2}
    rows = [
        account(upstream, "openai-2", "responses", priority=1, **served),
        account(upstream, "openai-1", "responses", priority=2, **served),
        account(upstream, "anthropic-1", "messages", models=["claude-*"]),
    ]
    return {
        "accounts": rows,
        "admin": settings.ADMIN,
        "users": [user(name, max_concurrent=3) for name in USERS],
        "limits": {"queue_timeout_s": 300.0, "ping_interval_s": 5.0},
    }


async def take(upstream: ScriptedUpstream, chromium: str, folder: Path) -> None:
    """Every picture."""
    config = configured(upstream)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            inprocess.running(folder, config.pop("accounts"), **config)
        )
        components = components_of(gateway.app)
        await fill(components.ledger)
        live = components.live.config
        server = dataclasses.replace(live.server, listen=("127.0.0.1:8080",))
        components.live.replace(dataclasses.replace(live, server=server))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clients = {
            name: Client(gateway.base_url, key_of(name), session) for name in USERS
        }
        story, gate, *tasks = await scene(clients, upstream)
        new = await stack.enter_async_context(browser.windows(chromium))
        link = gateway.admin.page_link(settings.ADMIN_TOKEN)
        views = {
            "now": "/",
            "requests": "/requests",
            "request": f"/requests/{story}",
            "usage": "/usage",
            "health": "/health",
            "users": "/users",
            "user": "/users/eve",
            "accounts": "/accounts",
            "gateway": "/gateway",
        }
        for scheme in ("light", "dark"):
            base = link.partition("/login")[0]
            window = await new(base, color_scheme=scheme, **SIZE)
            await window.page.goto(link)
            await shoot(window, views, scheme)
        window = await new(base, color_scheme="light", width=360, height=740)
        await window.page.goto(link)
        await shoot(window, {"now": "/"}, "narrow")
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def shoot(window: Any, views: dict[str, str], scheme: str) -> None:
    """One picture of each of *views*."""
    for name, path in views.items():
        if name == "user" and scheme == "light":
            await window.open("/users")
            await window.page.get_by_label("Name").fill("eve")
            await window.page.get_by_label("USD a day").fill("5")
            await window.page.get_by_role("button", name="Make the user").click()
        else:
            await window.open(path)
        await window.page.wait_for_timeout(400)
        await window.page.screenshot(path=PICTURES / f"{name}-{scheme}.png")


async def main(chromium: str) -> None:
    """Take them into ``docs/page``."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedUpstream(default=plays.ok()) as upstream:
            await take(upstream, chromium, Path(folder))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), browser.running_chromium() as address:
        asyncio.run(main(address))
