"""
The installed price list, without what its library would fetch and check another with.

``genai-prices`` imports pydantic and an HTTP client for that: 9 MB and half of the
time, for what the gateway never does. In their place it gets names that do nothing;
they stay importable for everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UNUSED = ("pydantic", "httpx2")


class _Nothing:
    """What an unused name stands for."""

    def __init__(self, *args: Any, **words: Any) -> None:
        """Whatever it is made of."""


class _Unused(ModuleType):
    """A module with every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


@contextmanager
def _without_unused() -> Iterator[None]:
    """For the duration of the block UNUSED are empty, where they are not loaded."""
    instead = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update({name: _Unused(name) for name in instead})
    try:
        yield
    finally:
        for name in instead:
            del sys.modules[name]


with _without_unused():
    from genai_prices import Usage as PricedUsage
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice, TieredPrices

__all__ = ["DataSnapshot", "ModelPrice", "PricedUsage", "TieredPrices", "providers"]
