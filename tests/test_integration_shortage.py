"""A process without a free descriptor goes on, blames nobody, and says it once."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from pathlib import Path

import pytest

from gateway import app as plan
from gateway.app import house_of
from tests.conftest import Serve
from tests.kit import endings
from tests.kit.badly import connect
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream


def no_descriptor(*args: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_connections_that_cannot_be_accepted_are_told_once(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True)
    client = gateway.client()
    endings.whole("chat", await client.ask("chat", "chat-x"))
    pid = gateway.daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = len(list(Path(f"/proc/{pid}/fd").iterdir()))

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, before[1]))
    others = [await connect(gateway) for _ in range(20)]
    await gateway.log.wait_for(
        lambda: gateway.log.events("resources.exhausted"), "the log says nothing"
    )
    for _, writer in others:
        writer.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    endings.whole("chat", await client.ask("chat", "chat-x"))

    assert 1 == len(gateway.log.events("resources.exhausted"))
    assert [] == gateway.log.events("account.cooled")


async def test_a_price_list_that_cannot_be_read_ends_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just after the start it is read ahead; then by the first answer."""
    house = house_of(gateway.inside.app)
    monkeypatch.setattr(plan, "import_module", no_descriptor)
    monkeypatch.setattr(
        type(house), "prices", property(lambda self: no_descriptor()), raising=True
    )

    await house.warm_up()
    reply = await gateway.client().ask("chat", "chat-x")

    endings.whole("chat", reply)
    assert "ok" == (await gateway.finished(reply))["outcome"]
    assert 1 == len(gateway.log.events("resources.exhausted"))


async def test_a_probe_notes_a_shortage_of_descriptors_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortage = house_of(gateway.inside.app).transport.shortage
    shortage.probe()
    assert [] == gateway.log.events("resources.exhausted")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.transport.shortage.socket.socket", no_descriptor)
        for _ in range(3):
            shortage.probe()
    await asyncio.sleep(0)

    [line] = gateway.log.events("resources.exhausted")
    assert "open files" in line["detail"]
