"""The price list of a running gateway, loaded once it is needed."""

from __future__ import annotations

import asyncio
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from gateway.telemetry import log
from gateway.transport.shortage import Shortage

if TYPE_CHECKING:
    from gateway.accounting.prices import Prices


class PriceList:
    """
    Args:
        shortage: notes that no descriptor is left to read the list with.
    """

    def __init__(self, shortage: Shortage) -> None:
        self._shortage = shortage

    @cached_property
    def _prices(self) -> Prices:
        """To import it takes a fifth of a start."""
        from gateway.accounting.prices import Prices

        return Prices(_no_price)

    async def warm_up(self) -> None:
        """Load what the first answer would otherwise have to wait for."""
        try:
            await asyncio.to_thread(import_module, "gateway.accounting.prices")
        except (OSError, ImportError) as error:  # no descriptor is left
            self._shortage.note(error)

    def maybe(self) -> Prices | None:
        """The price list, None while it cannot be read."""
        try:
            return self._prices
        except (OSError, ImportError) as error:
            self._shortage.note(error)
            return None


def _no_price(account: str, model: str) -> None:
    log.get().warning("price.unknown", account=account, model=model)
