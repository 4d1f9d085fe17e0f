"""Engines as operators run them: TLS, a user of its own, sentinels with a fail-over."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.shared.address import parse_address
from gateway.shared.dialing import dial
from gateway.shared.errors import EngineRefused
from tests.kit.engine import Engine, engine_binary, running_engine
from tests.kit.nodes import QUICK, Running, eventually, nodes, request, set_aside
from tests.transport_peer import AUTHORITY

# What a user of the engine needs, as docs/deploy.md says.
RIGHTS = "~{gw1}:* &{gw1}:* +@read +@write +@pubsub +@scripting +@connection +time"
PASSWORD = "pass word/1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of an engine with TLS and a user, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("engine-tls")
    certificate, port = AUTHORITY.issue_cert("localhost", "127.0.0.1"), free_port()
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    files = ("--tls-cert-file", f"{folder}/cert.pem")
    files += ("--tls-key-file", f"{folder}/key.pem", "--tls-auth-clients", "no")
    users = ("--user", "default", "off")
    users += ("--user", "gateway", "on", f">{PASSWORD}", *RIGHTS.split(), "-@dangerous")
    with running_engine("--tls-port", str(port), *files, *users):
        yield port, folder / "ca.pem"


def url(port: int, ca: Path, password: str = "pass%20word%2F1") -> str:
    return f"rediss://gateway:{password}@localhost:{port}?ca={ca}"


async def test_over_tls_as_a_user_of_its_own(tls: tuple[int, Path]) -> None:
    running = Running()
    async with nodes(url(*tls), 2, prefix="gw1", accounts={"one": 2}) as some:
        tiers = (("one",),)
        wants = [request(some[n % 2], running, tiers=tiers) for n in range(12)]
        await asyncio.gather(*wants)
        assert running.most["one"] == 2
        assert all(node.engine.generation == 1 for node in some)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"password": "wrong"}, "WRONGPASS"),
        ({"ca": None}, "TLS: CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["password", "certificate"],
)
async def test_why_an_engine_lets_no_process_in(
    tls: tuple[int, Path], change: dict[str, str | None], why: str
) -> None:
    port, ca = tls
    address = parse_address(url(port, ca, change.get("password") or "pass%20word%2F1"))
    if "ca" in change:
        address = address._replace(ca="")
    with pytest.raises(EngineRefused, match=why) as caught:
        await dial(address, "test")
    assert PASSWORD not in str(caught.value)


# --- sentinels ------------------------------------------------------------------------


@contextmanager
def sentinel(folder: Path, master: Engine) -> Iterator[int]:
    """The port of a sentinel that watches *master*."""
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass watch\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 300\n"
        "sentinel failover-timeout main 3000\n"
    )
    process = subprocess.Popen(
        [engine_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def listens(port: int) -> None:
    """Wait until something does at *port*."""
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)


async def test_a_fail_over_to_a_replica(tmp_path: Path) -> None:
    running, stop = Running(), asyncio.Event()
    timing = QUICK._replace(ttl_s=30.0)  # no node is dead on a slow machine
    more = {"users": {"alice": 9}, "accounts": {"one": 3}, "timing": timing}
    with running_engine("--repl-diskless-sync-delay", "0") as old:
        replica = ("--replicaof", "127.0.0.1", str(old.port))
        with running_engine(*replica) as new, sentinel(tmp_path, old) as port:
            look = await dial(parse_address(new.url), "look")
            async with asyncio.timeout(10):
                while (await look.send("ROLE"))[3] != b"connected":
                    await asyncio.sleep(0.02)
            await listens(port)
            watch = await dial(parse_address(f"redis://:watch@127.0.0.1:{port}"), "s")
            async with asyncio.timeout(15):
                while not await watch.send("SENTINEL", "REPLICAS", "main"):
                    await asyncio.sleep(0.02)

            url = f"sentinel://127.0.0.1:{port}/main?sentinel_password=watch"
            async with nodes(url, 3, prefix="over", **more) as some:

                async def client(number: int) -> int:
                    served = 0
                    while not stop.is_set():
                        node = some[number % 3]
                        await request(node, running, tiers=(("one",),), run_s=0.004)
                        served += 1
                    return served

                # One that has never heard of the others would use the whole limit.
                await eventually(lambda: {n.engine.nodes for n in some} == {3}, 20.0)
                clients = [asyncio.ensure_future(client(n)) for n in range(9)]
                await eventually(lambda: running.most["one"] == 3)
                old.kill()
                await eventually(lambda: not any(n.engine.up for n in some))
                await eventually(lambda: all(n.engine.up for n in some), 20.0)
                stop.set()
                served = await asyncio.wait_for(asyncio.gather(*clients), 20)
                await set_aside("aone", *some)

            await look.closed()  # the promoted engine has ended its connections
            look = await dial(parse_address(new.url), "look")
            assert (await look.send("ROLE"))[0] == b"master"
            await watch.closed()
            await look.closed()
    assert min(served) > 0
    assert running.most["one"] == 3
