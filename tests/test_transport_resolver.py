"""Names and their addresses: one question each, remembered, bounded."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from gateway.errors import UpstreamError
from gateway.transport import resolver
from gateway.transport.dialing import Dialer
from gateway.transport.request import Origin, Route
from gateway.transport.resolver import LookupFailed, Resolver
from gateway.transport.shortage import AddressInfo
from tests.transport_peer import client_tls

PORT = 80


class Names:
    """A system resolver under control; *asked* are the names, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, str | OSError | UnicodeError] = {}
        self.hanging: dict[str, threading.Event] = {}
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def hang(self, host: str) -> threading.Event:
        """Let *host* hang until the event is set."""
        self.hanging[host] = threading.Event()
        return self.hanging[host]

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[AddressInfo]:
        with self._lock:
            self.asked.append(host)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if event := self.hanging.get(host):
                event.wait(30)
            answer = self.answers.get(host, "192.0.2.1")
            if isinstance(answer, Exception):
                raise answer
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    for event in names.hanging.values():
        event.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is given up at once."""
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT_S", 0.02)
    monkeypatch.setattr(resolver, "STALE_WAIT_S", 0.01)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def hosts(resolver_: Resolver, host: str) -> list[str]:
    return [info[4][0] for info in await resolver_.addresses(host, PORT)]


async def test_the_address_comes_with_the_port_that_is_asked_for(names: Names) -> None:
    looking = Resolver()

    assert ("192.0.2.1", 80) == (await looking.addresses("a.test", 80))[0][4]
    assert ("192.0.2.1", 443) == (await looking.addresses("a.test", 443))[0][4]
    assert ["a.test"] == names.asked


async def test_many_waiters_for_one_name_share_a_lookup(names: Names) -> None:
    looking = Resolver()
    answer = names.hang("a.test")
    asking = [asyncio.create_task(hosts(looking, "a.test")) for _ in range(50)]
    await until(lambda: names.asked)
    answer.set()

    assert [["192.0.2.1"]] * 50 == await asyncio.gather(*asking)
    assert ["a.test"] == names.asked


async def test_a_cancelled_waiter_does_not_cancel_the_lookup(names: Names) -> None:
    looking = Resolver()
    answer = names.hang("a.test")
    leaving, staying = (asyncio.create_task(hosts(looking, "a.test")) for _ in range(2))
    await until(lambda: names.asked)
    leaving.cancel()
    await asyncio.wait([leaving])
    answer.set()

    assert ["192.0.2.1"] == await staying
    assert ["a.test"] == names.asked


async def test_a_name_that_hangs_holds_up_no_other(names: Names, quick: None) -> None:
    looking = Resolver()
    names.hang("dead.test")
    for _ in range(resolver.MAX_LOOKUPS):  # as many as there are threads, and more
        with pytest.raises(LookupFailed):
            await hosts(looking, "dead.test")

    assert ["192.0.2.1"] == await hosts(looking, "well.test")
    assert 1 == names.asked.count("dead.test")


async def test_a_name_that_hangs_keeps_one_thread_however_often_it_is_asked(
    names: Names, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FAILURE_TTL_S", 0.0)
    looking = Resolver()
    answer = names.hang("dead.test")
    for _ in range(5):
        with pytest.raises(LookupFailed):
            await hosts(looking, "dead.test")

    assert ["dead.test"] == names.asked
    answer.set()
    await until(lambda: looking._running == 0)
    assert ["192.0.2.1"] == await hosts(looking, "dead.test")


async def test_threads_are_bounded_and_a_name_without_one_blames_no_account(
    names: Names, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "MAX_LOOKUPS", 3)
    looking = Resolver()
    hanging = [names.hang(f"dead-{n}.test") for n in range(3)]
    for n in range(3):
        with pytest.raises(LookupFailed):
            await hosts(looking, f"dead-{n}.test")
    with pytest.raises(OSError) as caught:
        await hosts(looking, "well.test")

    assert errno.ENOBUFS == caught.value.errno
    assert 3 == names.most
    hanging[0].set()  # a thread is free: it serves who waits in line
    await until(lambda: "well.test" in names.asked)


async def test_an_answer_is_remembered_for_a_while(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "ADDRESSES_TTL_S", 0.05)
    looking = Resolver()
    for _ in range(3):
        await hosts(looking, "a.test")
    assert 1 == len(names.asked)
    names.answers["a.test"] = "192.0.2.2"
    await asyncio.sleep(0.06)

    assert ["192.0.2.2"] == await hosts(looking, "a.test")
    assert 2 == len(names.asked)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(socket.gaierror(-2, "Name or service not known"), id="unknown"),
        pytest.param(socket.gaierror(-3, "Temporary failure"), id="temporary"),
        pytest.param(UnicodeError("label too long"), id="no-name"),
    ],
)
async def test_a_failure_is_remembered_for_a_while(
    names: Names, monkeypatch: pytest.MonkeyPatch, error: OSError | UnicodeError
) -> None:
    monkeypatch.setattr(resolver, "FAILURE_TTL_S", 0.2)
    looking = Resolver()
    names.answers["a.test"] = error
    for _ in range(3):
        with pytest.raises(LookupFailed):
            await hosts(looking, "a.test")
    assert ["a.test"] == names.asked
    names.answers["a.test"] = "192.0.2.2"
    await asyncio.sleep(0.21)

    assert ["192.0.2.2"] == await hosts(looking, "a.test")


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_an_old_answer_is_used_while_no_new_one_can_be_had(
    names: Names, quick: None, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(resolver, "ADDRESSES_TTL_S", 0.0)
    monkeypatch.setattr(resolver, "FAILURE_TTL_S", 30.0)
    looking = Resolver()
    await hosts(looking, "a.test")
    if how == "fails":
        names.answers["a.test"] = socket.gaierror(-3, "Temporary failure")
    else:
        names.hang("a.test")
    await hosts(looking, "a.test")
    await until(lambda: looking._names["a.test"].failed_until)

    assert [["192.0.2.1"]] * 3 == [await hosts(looking, "a.test") for _ in range(3)]
    assert 2 == len(names.asked)


async def test_an_answer_can_be_too_old(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "ADDRESSES_TTL_S", 0.0)
    monkeypatch.setattr(resolver, "STALE_TTL_S", 0.0)
    looking = Resolver()
    await hosts(looking, "a.test")
    names.answers["a.test"] = socket.gaierror(-3, "Temporary failure")

    with pytest.raises(LookupFailed):
        await hosts(looking, "a.test")


async def test_the_names_that_are_remembered_are_bounded(
    names: Names, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    """The least recently used goes; what hangs does not hold the rest up."""
    monkeypatch.setattr(resolver, "MAX_NAMES", 3)
    looking = Resolver()
    names.hang("dead.test")
    with pytest.raises(LookupFailed):
        await hosts(looking, "dead.test")
    for n in range(10):
        await hosts(looking, f"{n}.test")

    assert ["dead.test", "8.test", "9.test"] == list(looking._names)


async def test_a_missing_descriptor_is_not_the_names_failure(names: Names) -> None:
    """It is reported as such, and the next lookup starts at once."""
    looking = Resolver()
    names.answers["a.test"] = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError) as caught:
        await hosts(looking, "a.test")
    assert errno.EMFILE == caught.value.errno
    names.answers["a.test"] = "192.0.2.2"

    assert ["192.0.2.2"] == await hosts(looking, "a.test")


async def test_no_thread_is_left(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    looking = Resolver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError) as caught:
            await hosts(looking, "a.test")

    assert errno.ENOMEM == caught.value.errno
    assert ["192.0.2.1"] == await hosts(looking, "a.test")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_numeric_address_needs_no_lookup(names: Names, host: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, not listening
        port = unheard.getsockname()[1]
        with pytest.raises(UpstreamError):
            await Dialer(client_tls()).dial(
                Route(Origin("http", host, port)),
                None,  # type: ignore[arg-type]
                5.0,
            )

    assert [] == names.asked
