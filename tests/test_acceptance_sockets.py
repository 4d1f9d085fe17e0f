"""The daemon on a unix socket, as an operator meets it after a crash."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.kit import settings
from tests.kit.daemon import Daemon


async def test_it_starts_over_the_socket_that_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    listen = [f"unix:{path}"]
    daemon = Daemon(tmp_path, [settings.TRIAL], listen=listen)
    await daemon.start()
    await daemon.kill()
    assert path.exists()

    daemon = Daemon(tmp_path, [settings.TRIAL], listen=listen)
    await daemon.start()
    try:
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get("http://gateway/healthz") as response:
                assert 200 == response.status
    finally:
        await daemon.stop()
    assert "" == daemon.stderr
