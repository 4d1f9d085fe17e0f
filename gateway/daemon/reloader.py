"""
Reloads of a worker: of the config file, or of what another worker has made of it.

Rule: one after the other, by the rules of a start: as a whole, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gateway.config.changes import Changes, compare
from gateway.config.load import ConfigSource, ServedConfig, load_served
from gateway.config.parse import ConfigError
from gateway.daemon.parent_link import ParentLink
from gateway.daemon.settings import settings_of
from gateway.daemon.wiring import Components
from gateway.ledger.runtime_users import stored_users
from gateway.telemetry import log

Served = dict[str, Any]
"""A config as workers hand it to each other, through their parent."""


class OnReloaded(Protocol):
    """Called with a config that was taken up."""

    def __call__(self, served: ServedConfig, *, new_key: bool) -> None: ...


class Reloader:
    """
    Args:
        served: the config that the worker started with.
        started: what the first config of all workers was made of.
        passed: the addresses of sockets that systemd opened.

    Attributes:
        served: the config that is in use.
    """

    def __init__(
        self,
        path: Path,
        served: ServedConfig,
        started: ConfigSource,
        passed: Sequence[str],
        link: ParentLink,
        on_reloaded: OnReloaded,
    ) -> None:
        self.served = served
        self._path = path
        self._started = started
        self._passed = passed
        self._link = link
        self._on_reloaded = on_reloaded
        self._wanted: asyncio.Queue[Served | None] = asyncio.Queue()

    def read(self) -> None:
        """Read the file, and say what came of it."""
        self._wanted.put_nowait(None)

    def adopt(self, served: Served) -> None:
        """Take over what another worker has read."""
        self._wanted.put_nowait(served)

    async def run(self, components: Components) -> None:
        """Do what is wanted, also while draining, until it is cancelled."""
        while True:
            wanted = await self._wanted.get()
            if wanted is None:
                self._link.say("reloaded", **await self._reload(components))
                continue
            try:
                await self._take_over(components, wanted)
            except Exception:  # the old config serves on
                log.get().exception("config.failed")
            self._link.say("adopted")

    async def _reload(self, components: Components) -> dict[str, Any]:
        """Read the file; returns what the parent has to know."""
        try:
            fresh = await self._load(None, self.served.key, self.served.admin_token)
            new_key = bool(fresh.key and not self.served.key)
            changes = self._take_up(components, fresh, new_key)
        except ConfigError as error:
            log.get().error("config.rejected", mistakes=error.mistakes)
            return {"outcome": {"ok": False, "mistakes": error.mistakes}}
        except Exception as error:  # the old config serves on
            log.get().exception("config.failed")
            return {"outcome": {"ok": False, "reason": log.detail(repr(error))}}
        log.get().info(
            "config.reloaded",
            changed=changes.changed,
            restart_needed=changes.restart_needed,
        )
        facts = {"changed": changes.changed, "restart_needed": changes.restart_needed}
        settings = settings_of(self.served, self._started, self._path.parent)
        return {"outcome": {"ok": True, **facts}, "settings": settings}

    async def _take_over(self, components: Components, served: Served) -> None:
        source = ConfigSource(**served["source"])
        fresh = await self._load(source, served["key"], served["admin_token"])
        self._take_up(components, fresh, new_key=False)

    async def _load(
        self, source: ConfigSource | None, key: str, admin_token: str
    ) -> ServedConfig:
        return await asyncio.to_thread(
            load_served,
            self._path,
            passed=self._passed,
            open_addresses=self.served.config.server.listen,
            key=key,
            admin_token=admin_token,
            source=source,
            stored_users=partial(stored_users, base=self._path.parent),
        )

    def _take_up(
        self, components: Components, fresh: ServedConfig, new_key: bool
    ) -> Changes:
        changes = compare(self.served.config, fresh.config)
        components.reload(changes.config)
        self.served = fresh._replace(
            config=changes.config,
            key=fresh.key or self.served.key,  # what was printed is good until the stop
            admin_token=fresh.admin_token or self.served.admin_token,
        )
        self._on_reloaded(self.served, new_key=new_key)
        return changes
