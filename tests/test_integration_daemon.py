"""
The daemon as an operator handles it: start, reload, stop, and what it says meanwhile.

A process of its own each time, with real signals.
"""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays, seen, settings
from tests.kit.asking import PATHS, Reply, question, read_reply
from tests.kit.daemon import Daemon, free_port
from tests.kit.gateway import Gateway
from tests.kit.greeting import printed_request
from tests.kit.queueing import queued
from tests.kit.scripted import ScriptedUpstream

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


async def refused(gateway: Gateway) -> bool:
    """Whether connections are refused."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.daemon.port)
    except ConnectionError:  # refused, or reset while the listener closes
        return True
    writer.close()
    return False


async def stopped_listening(gateway: Gateway) -> None:
    async with asyncio.timeout(5):
        while not await refused(gateway):
            await asyncio.sleep(0.01)


async def test_it_tells_that_it_runs_and_leaves_quietly(serve: Serve) -> None:
    gateway = await serve(daemon=True)
    for protocol in answers.PROTOCOLS:
        reply = await gateway.client().ask(protocol, f"{protocol}-x")
        endings.whole(protocol, reply)
    gateway.daemon.terminate()

    assert 0 == await gateway.daemon.exited()
    events = [line["event"] for line in gateway.log.lines]
    assert "server.started" == events[0]
    assert events[-1] == "server.stopped"
    assert "" == gateway.daemon.stderr
    assert all(
        {"event", "level", "timestamp"} <= set(line) for line in gateway.log.lines
    )


async def test_open_streams_finish_before_it_goes(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """SIGTERM: no new connections, 503 on kept ones, the open stream ends well."""
    gateway = await serve(daemon=True)
    client = gateway.client()
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with aiohttp.ClientSession() as kept:  # its connection is idle and open
        await kept.get(f"{gateway.base_url}/healthz")
        async with client.open("chat", "chat-x") as response:
            await response.content.readany()
            gateway.daemon.terminate()
            await stopped_listening(gateway)
            late = await on_kept_connection(kept, gateway, "responses")
            gate.set()
            rest = await response.content.read()

    assert b"[DONE]" in rest
    error = endings.before("responses", late)
    assert (503, "server_error") == (late.status, error.type)
    assert error.retry_after_s
    assert 0 == await gateway.daemon.exited()
    assert gateway.log.events("server.draining")
    assert "draining" == gateway.log.finished(late.request_id)["error_code"]
    assert "ok" == gateway.log.finished(client.asked[0])["outcome"]


async def on_kept_connection(
    session: aiohttp.ClientSession, gateway: Gateway, protocol: str
) -> Reply:
    """Ask over the one connection that this session still has."""
    headers = {"authorization": f"Bearer {settings.key_of('alice')}"}
    url = gateway.base_url + PATHS[protocol]
    body = question(protocol, f"{protocol}-x")
    asked_at = time.monotonic()
    async with session.post(url, json=body, headers=headers) as response:
        return await read_reply(response, asked_at)


@each_protocol
async def test_what_is_open_after_the_drain_time_gets_its_ending(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(daemon=True, server={"drain_timeout_s": 0.3})
    upstream.next(plays.silence(1))
    client = gateway.client()
    asking = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    await upstream.wait_for(1)
    await seen.output(client.asked[0])
    gateway.daemon.terminate()
    reply = await asking

    error = endings.in_stream(protocol, reply)
    assert "server_error" == error.type
    assert "All " == reply.text
    assert 0 == await gateway.daemon.exited()
    line = await gateway.explained(reply)
    assert ("failed", "gateway", "gateway_shutdown") == (
        line["outcome"],
        line["origin"],
        line["error_code"],
    )


async def test_a_waiter_in_the_queue_gets_an_ending_at_the_stop(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """After pings the ending, before them a status; neither reaches an account."""
    gateway = await serve(
        daemon=True,
        users=[settings.user("alice", max_concurrent=1, ping_interval_s=0.1)],
        server={"drain_timeout_s": 0.5},
    )
    client = gateway.client()
    upstream.next(plays.silence(1))
    running = asyncio.create_task(client.ask("responses", "responses-x"))
    await upstream.wait_for(1)
    await seen.output(client.asked[0])
    waiting = client.ask("messages", "messages-x", stream=False)
    silent = asyncio.create_task(waiting)
    async with client.open("chat", "chat-x") as response:
        await queued(response)
        await gateway.daemon.waiting("alice", 2)
        gateway.daemon.terminate()
        pinged = await read_reply(response, 0.0)
    endings.in_stream("responses", await running)
    refusal = await silent

    assert "server_error" == endings.in_stream("chat", pinged).type
    assert (503, "server_error") == (
        refusal.status,
        endings.before("messages", refusal).type,
    )
    assert 1 == len(upstream.received())
    assert 0 == await gateway.daemon.exited()


async def test_a_second_sigterm_does_not_wait(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True, server={"drain_timeout_s": 60.0})
    upstream.next(plays.silence(1))
    client = gateway.client()
    asking = asyncio.create_task(client.ask("messages", "messages-x"))
    await upstream.wait_for(1)
    await seen.output(client.asked[0])
    gateway.daemon.terminate()
    await gateway.log.wait_for(
        lambda: gateway.log.events("server.draining"), "it did not drain"
    )
    gateway.daemon.terminate()

    endings.in_stream("messages", await asking)
    assert 0 == await gateway.daemon.exited(20.0)


async def test_sigint_is_a_clean_stop_too(serve: Serve) -> None:
    gateway = await serve(daemon=True)
    gateway.daemon.process.send_signal(signal.SIGINT)

    assert 0 == await gateway.daemon.exited()
    assert gateway.log.events("server.stopped")


async def test_sighup_reads_the_config_again(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """New users and accounts serve, old ones do not, and open streams live on."""
    gateway = await serve(daemon=True, users=[settings.user("alice")])
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("chat", "chat-x") as response:
        await response.content.readany()
        rows = [settings.account(upstream, "messages"), settings.TRIAL]
        gateway.daemon.configure(users=[settings.user("bob")], accounts=rows)
        gateway.daemon.reload()
        async with asyncio.timeout(5):
            while (await gateway.client("bob").ask("messages", "trial")).status != 200:
                await asyncio.sleep(0.02)
        old = await gateway.client("alice").ask("messages", "messages-x")
        gone = await gateway.client("bob").ask("chat", "chat-x")
        gate.set()
        rest = await response.content.read()

    assert (401, 404) == (old.status, gone.status)
    assert b"[DONE]" in rest
    assert 1 == len(gateway.log.events("server.started"))


async def test_a_bad_config_on_sighup_changes_nothing(serve: Serve) -> None:
    gateway = await serve(daemon=True)
    gateway.daemon.config_file.write_text("[server]\nlisten = 5\n")
    gateway.daemon.reload()
    await gateway.log.wait_for(
        lambda: gateway.log.events("config.rejected"), "nothing was rejected"
    )

    mistakes = gateway.log.events("config.rejected")[0]["mistakes"]
    assert any(mistake.startswith("server.listen") for mistake in mistakes)
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))


async def test_a_bad_config_is_exit_2_with_all_mistakes_in_the_log(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    rows = [{**settings.account(upstream, "chat"), "protocol": "telepathy"}]
    daemon = Daemon(tmp_path, rows, limits={"ping_interval_s": 0.0, "pings": 1})

    with pytest.raises(AssertionError):
        await daemon.start()

    assert 2 == await daemon.exited()
    (rejected,) = daemon.log.events("config.rejected")
    paths = {mistake.split(":")[0] for mistake in rejected["mistakes"]}
    assert {"account[0].protocol", "limits.ping_interval_s", "limits.pings"} <= paths
    assert "" == daemon.stderr


async def test_a_port_that_is_taken_is_reported(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path, settings.accounts(upstream))
    daemon.configure(listen=[f"127.0.0.1:{upstream.port}"])

    with pytest.raises(AssertionError):
        await daemon.start()

    assert await daemon.exited() not in (0, None)
    assert daemon.log.grep(str(upstream.port))
    assert "" == daemon.stderr


async def test_it_listens_on_a_unix_path_too(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    for _ in range(2):  # what the first leaves behind does not trouble the second
        daemon = Daemon(tmp_path, settings.accounts(upstream))
        daemon.configure(listen=[f"127.0.0.1:{free_port()}", f"unix:{path}"])
        await daemon.start()
        connector = aiohttp.UnixConnector(str(path))
        try:
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get("http://gateway/healthz") as response:
                    assert 200 == response.status
        finally:
            assert 0 == await daemon.stop()


async def test_without_users_it_prints_a_request_that_works(tmp_path: Path) -> None:
    """The printed curl command is obeyed word by word: its key, address and file."""
    daemon = Daemon(tmp_path, [settings.TRIAL], users=[])
    await daemon.start()
    try:
        greetings = partial(daemon.log.events, "server.greeted")
        await daemon.log.wait_for(greetings, "no greeting")
        printed = printed_request(greetings()[0]["curl"])
        async with aiohttp.ClientSession(headers=printed.headers) as session:
            async with session.post(printed.url, data=printed.body) as response:
                answer = await response.read()
    finally:
        await daemon.stop()

    assert b"event: response.completed" in answer


async def test_it_outlives_a_client_that_resets_everything(serve: Serve) -> None:
    """RST at any moment is the client's own business."""
    gateway = await serve(daemon=True)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
    for sent in (b"", b"\x16\x03\x01", b"GET", head, head + b"\r\n{", b"\r\n" * 9):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.daemon.port)
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()
    reply = await gateway.client().ask("chat", "chat-x")

    endings.whole("chat", reply)
