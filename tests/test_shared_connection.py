"""The connection to the engine: a real one, and one that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from gateway.shared import connection as connection_module
from gateway.shared.address import parse_address
from gateway.shared.connection import EngineConnection
from gateway.shared.dialing import dial
from gateway.shared.errors import EngineLost, EngineRefused
from gateway.shared.script import Script
from tests.kit.engine import Engine, running_engine


def lua(text: str) -> Script:
    return Script("test", text, hashlib.sha1(text.encode()).hexdigest())


DOUBLE = lua("return ARGV[1] * 2")
ECHO = lua("return ARGV[1]")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as one:
        yield one


async def dialed(engine: Engine, **more: Any) -> EngineConnection:
    return await dial(parse_address(engine.url), "test", **more)


async def test_replies_come_in_the_order_of_their_commands(engine: Engine) -> None:
    one = await dialed(engine)

    replies = [one.call(DOUBLE, 0, n) for n in range(300)]

    assert await asyncio.gather(*replies) == [2 * n for n in range(300)]
    await one.closed()


async def test_cancelling_never_shifts_a_reply(engine: Engine) -> None:
    one = await dialed(engine)

    async def ask(n: int) -> Any:
        return await one.send("ECHO", str(n))

    tasks = [asyncio.ensure_future(ask(n)) for n in range(60)]
    for turn in range(6):
        for task in tasks[turn::7]:
            task.cancel()
        await asyncio.sleep(0)
    replies = await asyncio.gather(*tasks, return_exceptions=True)

    kept = [(n, got) for n, got in enumerate(replies) if isinstance(got, bytes)]
    assert kept and all(got == str(n).encode() for n, got in kept)
    assert await one.send("ECHO", "last") == b"last"
    await one.closed()


async def test_what_one_turn_asks_for_is_one_write(engine: Engine) -> None:
    one = await dialed(engine)
    writes: list[bytes] = []
    transport = one._transport
    assert transport is not None
    write = transport.write

    class Counted:
        def write(self, data: bytes) -> None:
            writes.append(data)
            write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    one._transport = Counted()  # type: ignore[assignment]  # only counts

    await asyncio.gather(*(one.send("ECHO", "x") for _ in range(50)))

    assert len(writes) == 1
    await one.closed()


async def test_pushes_keep_their_place_among_the_replies(engine: Engine) -> None:
    seen: list[bytes] = []
    one = await dialed(engine, on_push=lambda channel, data: seen.append(data))
    one.subscribe("c")
    for n in range(5):
        one.cast("PUBLISH", "c", str(n))
        one.ask(ECHO, (0, f"after {n}"), seen.append)
    await one.send("PING")

    assert seen == [x for n in range(5) for x in (b"%d" % n, b"after %d" % n)]
    await one.closed()


async def test_a_forgotten_script_is_sent_again(engine: Engine) -> None:
    one = await dialed(engine)
    assert await one.call(DOUBLE, 0, 4) == 8
    for _ in range(3):
        one.cast("SCRIPT", "FLUSH")
        replies = [one.call(DOUBLE, 0, n) for n in range(20)]
        assert await asyncio.gather(*replies) == [2 * n for n in range(20)]
    await one.closed()


async def test_what_overtook_a_forgotten_script_is_said_again_behind_it(
    engine: Engine,
) -> None:
    put = lua("return redis.call('SET', 'k', ARGV[1])['ok']")
    take = lua("return redis.call('GETDEL', 'k') or 'nothing'")
    seen: list[bytes] = []
    one = await dialed(engine)
    await one.call(put, 0, "old")
    one.cast("SCRIPT", "FLUSH")
    for n in range(3):  # the engine knows the second again, and not yet the first
        one.ask(put, (0, n), seen.append)
        one.ask(take, (0,), seen.append)
    last = one.call(take, 0)
    one.ask(ECHO, (0, "end"), seen.append)

    assert await last == b"nothing"
    assert await one.send("EXISTS", "k") == 0
    await one.send("PING")
    assert seen == [b"OK", b"0", b"OK", b"1", b"OK", b"2", b"end"]
    await one.closed()


async def test_a_forgotten_script_is_not_sent_for_a_caller_that_left(
    engine: Engine,
) -> None:
    count = lua("return redis.call('INCR', 'counted')")
    one = await dialed(engine)
    await one.call(count, 0)
    one.cast("SCRIPT", "FLUSH")
    left, stays = one.call(count, 0), one.call(count, 0)
    one.ask(count, (0,))
    left.cancel()

    assert await stays == 2
    assert await one.send("GET", "counted") == b"3"
    await one.closed()


# --- the engine fails -----------------------------------------------------------------


async def test_an_error_reply_ends_the_connection(engine: Engine) -> None:
    why: list[EngineLost] = []
    one = await dialed(engine, on_lost=why.append)
    bad = one.send("INCR")
    after = one.send("ECHO", "x")

    with pytest.raises(EngineLost, match="ERR wrong number"):
        await bad
    with pytest.raises(EngineLost):
        await after
    with pytest.raises(EngineLost):
        await one.send("ECHO", "later")
    assert len(why) == 1
    await one.closed()


async def test_a_hung_engine_is_known_within_a_second() -> None:
    with running_engine() as engine:
        lost = asyncio.get_running_loop().create_future()
        one = await dialed(engine, on_lost=lost.set_result)
        loop = asyncio.get_running_loop()
        engine.pause()
        began = loop.time()
        with pytest.raises(EngineLost, match="no answer"):
            await one.send("PING")

        assert 0.9 < loop.time() - began < 1.5
        assert lost.done()
        await one.closed()


async def test_a_killed_engine_is_known_at_once() -> None:
    with running_engine() as engine:
        one = await dialed(engine)
        engine.pause()
        waiting = [one.send("PING") for _ in range(3)]
        await asyncio.sleep(0)
        engine.kill()

        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, EngineLost)
        await one.closed()


async def test_our_own_standstill_is_not_the_engines(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(connection_module, "HUNG_S", 0.05)
    one = await dialed(engine)
    waiting = one.send("ECHO", "x")
    await asyncio.sleep(0)  # it is written
    time.sleep(0.2)  # the whole loop stands still, the answer lies in the socket

    assert await waiting == b"x"
    await one.closed()


async def test_an_idle_connection_is_not_taken_for_hung(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HUNG_S", 0.02)
    monkeypatch.setattr(connection_module, "HUNG_GRACE_S", 0.01)
    one = await dialed(engine)
    await one.send("PING")
    await asyncio.sleep(0.1)

    assert one.lost is None
    await one.closed()


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def refused_by(behave: Behaviour) -> str:
    """Why a server that does *behave* after the introduction is given up."""

    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"%0\r\n")
        await behave(reader, writer)
        with suppress(OSError):
            await reader.read()
        writer.close()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    lost = asyncio.get_running_loop().create_future()
    try:
        one = await dial(
            parse_address(f"redis://127.0.0.1:{port}"), "t", on_lost=lost.set_result
        )
        one.cast("PING")
        why = str(await asyncio.wait_for(lost, 5))
        await one.closed()
        await closed.wait()
        return why
    finally:
        server.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"?what\r\n", "not RESP3"),
        (b"+PONG\r\n+PONG\r\n", "a reply to nothing"),
        (b"-READONLY You can't write\r\n", "READONLY"),
        (b"-OOM command not allowed\r\n", "OOM"),
        (b"-LOADING\r\n", "LOADING"),
    ],
)
async def test_an_odd_engine_is_given_up(said: bytes, why: str) -> None:
    async def behave(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1000)
        writer.write(said)

    assert why in await refused_by(behave)


async def test_a_reply_without_end_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "MAX_REPLY_BYTES", 100_000)

    async def behave(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1000)
        writer.write(b"$10000000\r\n" + b"x" * 200_000)

    assert "too large" in await refused_by(behave)


async def test_commands_without_a_reply_are_bounded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_COMMANDS", 100)
    one = await dialed(engine)
    sent = [one.send("PING") for _ in range(102)]

    found = await asyncio.gather(*sent, return_exceptions=True)

    assert all(isinstance(reply, EngineLost) for reply in found)
    await one.closed()


# --- the way there --------------------------------------------------------------------


async def test_nothing_listens() -> None:
    with pytest.raises(EngineLost, match="cannot connect"):
        await dial(parse_address("unix:///nowhere/e.sock"), "t")


async def test_an_engine_that_does_not_answer_has_a_second() -> None:
    with running_engine() as engine:
        engine.pause()
        with pytest.raises(EngineLost, match="no connection in time"):
            await dial(parse_address(engine.url), "t", dial_s=0.1)


async def test_a_password_a_user_and_a_database() -> None:
    acl = "--user gate on >s3cret ~* &* +@all --user default off".split()
    with running_engine(*acl) as one:
        fine = f"redis://gate:s3cret@127.0.0.1:{one.port}/5"
        connection = await dial(parse_address(fine), "t-name")
        text = str(await connection.send("CLIENT", "INFO"))
        await connection.closed()

        assert " db=5 " in text and " user=gate " in text
        assert "name=t-name" in text
        with pytest.raises(EngineRefused, match="WRONGPASS") as caught:
            await dial(parse_address(fine.replace("s3cret", "wrong")), "t")
        assert "wrong" not in str(caught.value)
        with pytest.raises(EngineRefused, match="NOAUTH"):
            await dial(parse_address(one.url), "t")
