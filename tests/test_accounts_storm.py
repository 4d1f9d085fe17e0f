"""
A hundred clients and a pool that dies and returns, played without a network.

Every request goes through the real attempt loop (``Relay.run``), the real accounts and
the real slots, in virtual time. Only the transport, the ledger and the clients are
played: an attempt takes ``TOOK_S``, and a client comes back when its error says.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.retry_budget import FLOOR, REFILL_PER_S, SHARE
from gateway.accounts.session import session_of
from gateway.accounts.verdict import SAME_PAUSE_S
from gateway.admission.body_room import BodyShare
from gateway.admission.interface import Holder
from gateway.admission.registry import Registry
from gateway.client import kinds as clients
from gateway.client.body import parse
from gateway.config.schema import Account, Limits, UpstreamLimits, User
from gateway.context import RequestContext
from gateway.errors import GatewayError, UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.record import Record
from gateway.relay.conversation import Conversations
from gateway.relay.dependencies import Dependencies
from gateway.relay.drains import Drains
from gateway.relay.failover import Relay
from gateway.relay.failover_state import FailoverState
from gateway.relay.upstream import Upstream
from gateway.transport.interface import Ended, Feed, LaneSide
from tests.kit import answers, virtual_time
from tests.kit.answer import Answer
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log

M = "gpt-x"
TOOK_S = 0.2
CLIENTS = 100
GOOD = json.dumps(answers.body("chat", Answer(), {"model": M})).encode()
Death = int | UpstreamError
Failing = Callable[[str, float], Death | None]


class PlayedReply:
    """A whole answer, or a refusal without a word."""

    idle_timeout_s = 0.0
    facts: Mapping[str, Any] = {}
    has_ended = True

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = CIMultiDictProxy(CIMultiDict[str]())
        self._pieces = [GOOD if status == 200 else b"{}"]

    async def read(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    async def body(self, limit_bytes: int) -> bytes:
        return await self.read()

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        raise NotImplementedError

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        self._pieces.clear()
        if ended is not None:
            ended()


class Quiet:
    """The ledger and the kept turns of requests that leave no trace."""

    async def resume(self, state: FailoverState) -> None:
        pass

    def begin(self, record: Record) -> None:
        pass

    async def persist(self, record: Record) -> None:
        pass

    def record_usage(self, *args: object) -> None:
        pass

    def charge(self, record: Record) -> None:
        pass


class Play:
    """The pool, its clients, and what the accounts do."""

    def __init__(self, names: str, fails: Failing, seed: int = 1) -> None:
        random.seed(seed)
        self.fails = fails
        self.calls: list[tuple[float, str]] = []
        self.served: dict[int, float] = {}
        self.errors: list[GatewayError] = []
        self._names = names
        self._relay: Relay | None = None

    def relay(self) -> Relay:
        """The loop under test; one for all runs."""
        if self._relay is None:
            registry, quiet = Registry(), Quiet()
            accounts = [
                Account(name=name, base_url=f"http://{name}", protocol="chat")
                for name in self._names
            ]
            for name in self._names:
                registry.set_account(name, 0)
            registry.set_user("alice", 0, 0)
            books: Accounting = quiet  # type: ignore[assignment]
            conversations: Conversations = quiet  # type: ignore[assignment]
            limits = UpstreamLimits()
            self._relay = Relay(
                Dependencies(
                    Accounts(accounts, dict),
                    registry,
                    Upstream(self, limits),
                    books,
                    Drains(0.0),
                    conversations,
                    limits,
                )
            )
        return self._relay

    async def open(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> PlayedReply:
        """See ``Transport.open``."""
        assert url.host
        at = now()
        self.calls.append((at, url.host))
        death = self.fails(url.host, at)
        await asyncio.sleep(TOOK_S)
        if isinstance(death, UpstreamError):
            raise UpstreamError(death.code)
        return PlayedReply(death or 200)

    async def stop(self) -> None:
        """See ``Transport.stop``."""

    def run(self, count: int, until: float, *, patient: bool = True) -> None:
        """*count* clients from the start on, until all have left or it is *until*."""
        virtual_time.run(self.ask(count, until, patient=patient))

    async def ask(self, count: int, until: float, *, patient: bool = True) -> None:
        """*count* clients from now on."""
        relay = self.relay()
        lives = [self.client(relay, n, patient) for n in range(count)]
        with_end = asyncio.gather(*lives, return_exceptions=False)
        try:
            await asyncio.wait_for(with_end, until - now())
        except TimeoutError:
            pass

    async def client(self, relay: Relay, n: int, patient: bool) -> None:
        while True:
            try:
                await relay.run(context_of(n), None)
            except GatewayError as error:
                self.errors.append(error)
                if not patient or error.retry_after_s is None:
                    return
                await asyncio.sleep(error.retry_after_s)
            else:
                self.served[n] = now()
                return


def context_of(n: int) -> RequestContext:
    """One request of client *n*."""
    ask = parse(b'{"model":"%b","messages":[]}' % M.encode())
    record = Record(f"request-{n}", time.time(), time.monotonic())
    headers = CIMultiDictProxy(CIMultiDict({"session-id": f"s{n}"}))
    return RequestContext(
        ask,
        record,
        PROTOCOLS["chat"],
        "/chat/completions",
        "",
        headers,
        User("alice", ()),
        Limits(),
        clients.recognise(headers),
        session_of(headers, ask.document, "alice"),
        Holder(record.request_id, "alice"),
        time.monotonic() + 30.0,
        NO_SHARE,
    )


class _NoShare:
    """The room of a body that takes none."""

    def release(self) -> None:
        pass


NO_SHARE: BodyShare = _NoShare()  # type: ignore[assignment]
STARTED_AT = 1000.0  # of virtual time


def now() -> float:
    """Virtual seconds since the start."""
    return virtual_time.now() - STARTED_AT


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything under test reads the virtual loop's clock; its log is not shown."""
    real = time.monotonic

    def monotonic() -> float:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return real()
        return loop.time()

    monkeypatch.setattr(time, "monotonic", monotonic)
    with logging_to(Log()):
        yield


BROKEN = UpstreamError("upstream_connect")
DEATHS = [
    pytest.param(BROKEN, id="refuses-connections"),
    pytest.param(500, id="500"),
    pytest.param(529, id="529"),
    pytest.param(429, id="429-without-a-word"),
]


@pytest.mark.parametrize("names", ["a", "ab", "abcdefgh"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_pool_costs_no_storm(names: str, death: Death) -> None:
    play = Play(names, lambda name, at: death)
    play.run(CLIENTS, 60.0, patient=False)
    # While some pause before the same account again, the floor fills up a little.
    refilled = REFILL_PER_S * SAME_PAUSE_S[1]
    assert len(play.calls) <= CLIENTS * (1 + SHARE) + FLOOR + refilled
    assert CLIENTS == len(play.errors)
    assert all(error.retry_after_s for error in play.errors)


@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("death", DEATHS)
def test_clients_that_come_back_when_asked_cause_no_storm_either(
    names: str, death: Death
) -> None:
    play = Play(names, lambda name, at: death)
    play.run(CLIENTS, 30.0)
    assert len(play.calls) <= 2 * CLIENTS
    late = [at for at, _ in play.calls if at > 10.0]
    assert 0 < len(late) <= 20.0 / 2 * len(names)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("death", DEATHS)
def test_service_returns_within_seconds_of_the_pools_return(
    names: str, death: Death, seed: int
) -> None:
    back = 10.0
    play = Play(names, lambda name, at: death if at < back else None, seed)
    play.run(CLIENTS, 30.0)
    first, last = min(play.served.values()), max(play.served.values())
    assert CLIENTS == len(play.served)
    assert back <= first <= back + 5.0
    assert last <= back + 5.0 + 5.0


def test_service_returns_as_soon_after_a_long_outage() -> None:
    back = 900.0
    play = Play("ab", lambda name, at: BROKEN if at < back else None)
    play.run(5, 1000.0)
    assert back <= min(play.served.values()) <= back + 5.0
    assert 5 == len(play.served)


@pytest.mark.parametrize("names", ["ab", "abcd"])
@pytest.mark.parametrize("death", DEATHS)
def test_one_dead_account_is_met_by_no_client(names: str, death: Death) -> None:
    """All at once and cold: no account is proven yet."""
    clients = 100
    play = Play(names, lambda name, at: death if name == "a" else None)
    play.run(clients, 60.0)
    assert [] == play.errors
    assert clients == len(play.served)
    assert Counter(name for _, name in play.calls)["a"] <= clients


def test_losing_an_account_under_full_load_is_met_by_no_client() -> None:
    """What served lately takes over any number of sessions without a budget."""
    play = Play("abcd", lambda name, at: None)

    async def main() -> None:
        await play.ask(400, 10.0)
        assert 400 == len(play.served)
        homes = Counter(name for _, name in play.calls)
        play.served.clear()
        play.calls.clear()
        play.fails = lambda name, at: BROKEN if name == "a" else None
        await play.ask(400, 20.0)
        assert [] == play.errors
        assert 400 == len(play.served)
        assert 400 + homes["a"] == len(play.calls)

    virtual_time.run(main())


def test_both_accounts_refuse_in_turn() -> None:
    """Whichever is asked is well every other time; no client notices."""
    turns = Counter[str]()

    def fails(name: str, at: float) -> Death | None:
        turns[name] += 1
        return 500 if turns[name] % 2 else None

    play = Play("ab", fails)
    play.run(20, 100.0)
    assert 20 == len(play.served)
