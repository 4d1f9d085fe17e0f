"""
What every test may ask for.

``upstream`` is a scripted upstream that answers well until a test scripts otherwise;
``serve`` starts a gateway before it. When a test is over, each request that it made
must have left exactly one canonical line, and nothing secret may stand in the log.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import hypothesis
import pytest

from tests.kit import endings, plays, settings
from tests.kit.scripted import ScriptedUpstream

if TYPE_CHECKING:
    from tests.kit.gateway import Gateway
    from tests.kit.socket_upstream import SocketUpstream


SLOW_MACHINE = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile("suite", derandomize=True, **SLOW_MACHINE)
# To search for new failures: --hypothesis-profile=search
hypothesis.settings.register_profile("search", max_examples=2000, **SLOW_MACHINE)
hypothesis.settings.load_profile("suite")


class Serve(Protocol):
    """Start a gateway; *config* are the sections of ``settings.config_text``."""

    async def __call__(
        self,
        *,
        daemon: bool = False,
        accounts: Sequence[settings.Table] | None = None,
        **config: Any,
    ) -> Gateway: ...


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(default=plays.ok()) as server:
        yield server


@pytest.fixture
async def sockets() -> AsyncIterator[SocketUpstream]:
    """An upstream that speaks websocket, and HTTP beside it."""
    from tests.kit.socket_upstream import SocketUpstream

    async with SocketUpstream() as server:
        yield server


@pytest.fixture
async def serve(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start gateways that stop, and are checked, when the test is over."""
    from tests.kit import daemon as own_process
    from tests.kit import inprocess
    from tests.kit.gateway import Gateway

    started: list[Gateway] = []
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector)

        async def start(
            *,
            daemon: bool = False,
            accounts: Sequence[settings.Table] | None = None,
            **config: Any,
        ) -> Gateway:
            rows = settings.accounts(upstream) if accounts is None else accounts
            kind = own_process if daemon else inprocess
            running = kind.running(tmp_path, rows, **config)
            process = await stack.enter_async_context(running)
            started.append(Gateway(process, session))
            return started[-1]

        await stack.enter_async_context(session)
        yield start
        for gateway in started:
            await gateway.check()


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    """A gateway with an account for each protocol, in this process."""
    return await serve()


@pytest.fixture
async def strict(serve: Serve, upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    """A gateway that must serve well after whatever the test did to it."""
    from tests.kit import badly

    gateway = await serve(server={"max_body_bytes": badly.MAX_BODY_BYTES})
    yield gateway
    upstream.requests.clear()
    endings.whole("chat", await gateway.client("bob").ask("chat", "chat-after"))
    assert 1 == len(upstream.received())


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector need not look at it in every test."""
    gc.collect()
    gc.freeze()
