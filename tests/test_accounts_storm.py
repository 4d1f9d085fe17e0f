"""
Two hundred clients and a pool that dies and returns, played without a network.

Each client runs the attempt loop as the relay does, and comes back when it was told
to. Attempts take ``TOOK_S``; the clock is the event heap's.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Generator

import pytest

from gateway.accounts.affinity import Affinity
from gateway.accounts.budget import FLOOR, SHARE, RetryBudget
from gateway.accounts.choice import Ask, Choice, candidates
from gateway.accounts.health import Health
from gateway.accounts.session import session_of
from gateway.accounts.verdict import Verdict, judge_status, judge_transport
from gateway.config import Account
from gateway.errors import GatewayError, UpstreamError

M = "gpt-x"
TOOK_S = 0.2
CLIENTS = 200
Life = Generator[float, None, None]
Failing = Callable[[str, float], Verdict | None]


class Play:
    """The pool, its clients and the heap of what happens next."""

    def __init__(self, names: str, fails: Failing, seed: int = 1) -> None:
        chance = random.Random(seed)
        self.accounts = [
            Account(name=name, base_url="http://x", protocol="chat") for name in names
        ]
        self.health = Health(chance.random)
        self.affinity = Affinity()
        self.budget = RetryBudget(0.0)
        self.fails = fails
        self.now = 0.0
        self.calls: list[tuple[float, str]] = []
        self.served: dict[int, float] = {}
        self.told: list[GatewayError] = []

    def run(self, clients: int, until: float, *, patient: bool = True) -> None:
        heap = [(self.now, n, self.client(n, patient)) for n in range(clients)]
        while heap and heap[0][0] <= until:
            self.now, n, life = heapq.heappop(heap)
            wait_s = next(life, None)
            if wait_s is not None:
                heapq.heappush(heap, (self.now + wait_s, n, life))

    def choose(self, n: int, tried: set[str]) -> Choice:
        session = session_of({"session-id": f"s{n}"}, {}, "alice")
        ask = Ask(M, "chat", session, frozenset(tried))
        return candidates(
            self.accounts, ask, self.health, self.affinity, dict, self.now
        )

    def client(self, n: int, patient: bool) -> Life:
        while n not in self.served:
            error: GatewayError | None = yield from self.request(n)
            if error is None:
                return
            self.told.append(error)
            if not patient or error.retry_after_s is None:
                return
            yield error.retry_after_s

    def request(self, n: int) -> Generator[float, None, GatewayError | None]:
        tried: set[str] = set()
        last: Verdict | None = None
        self.budget.request(self.now)
        while True:
            choice = self.choose(n, tried)
            name = next(iter(choice.ordered), "")
            proven = self.health.proven(name, M, self.now)
            costs = last is not None or choice.last_resort
            if not name or (
                costs and not self.budget.take(name, self.now, proven=proven)
            ):
                return self.refused(last, choice)
            at = self.now
            if not self.health.started(name, M, at, last_resort=choice.last_resort):
                continue
            tried.add(name)
            self.calls.append((at, name))
            yield TOOK_S
            last = self.fails(name, at)
            if last is None:
                self.health.succeeded(name, M, at, self.now)
                self.affinity.bind(f"s{n}", name, self.now)
                self.served[n] = self.now
                return None
            self.health.failed(name, M, last, at, self.now)

    def refused(self, last: Verdict | None, choice: Choice) -> GatewayError:
        if last is None:
            return self.health.refusal(choice.fitting, M, self.now)
        return self.health.last_word(last, choice.fitting, M, self.now)


def http(status: int) -> Verdict:
    return judge_status(status, {}, b"{}", 0.0)


def broken() -> Verdict:
    return judge_transport(UpstreamError("upstream_connect"))


DEATHS = [
    pytest.param(broken, id="refuses-connections"),
    pytest.param(lambda: http(500), id="500"),
    pytest.param(lambda: http(529), id="529"),
    pytest.param(lambda: http(429), id="429-without-a-word"),
]


@pytest.mark.parametrize("names", ["a", "ab", "abcdefgh"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_pool_costs_no_storm(names: str, death: Callable[[], Verdict]) -> None:
    play = Play(names, lambda name, at: death())
    play.run(CLIENTS, 60.0, patient=False)
    assert len(play.calls) <= CLIENTS * (1 + SHARE) + FLOOR
    assert CLIENTS == len(play.told)
    assert all(error.retry_after_s for error in play.told)


@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("death", DEATHS)
def test_clients_that_come_back_as_told_cost_no_storm_either(
    names: str, death: Callable[[], Verdict]
) -> None:
    play = Play(names, lambda name, at: death())
    play.run(CLIENTS, 30.0)
    assert len(play.calls) <= 2 * CLIENTS
    late = [at for at, _ in play.calls if at > 10.0]
    assert 0 < len(late) <= 20.0 / 2 * len(names)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("death", DEATHS)
def test_service_returns_within_seconds_of_the_pools_return(
    names: str, death: Callable[[], Verdict], seed: int
) -> None:
    back = 10.0
    play = Play(names, lambda name, at: death() if at < back else None, seed)
    play.run(CLIENTS, 30.0)
    first, last = min(play.served.values()), max(play.served.values())
    assert CLIENTS == len(play.served)
    assert back <= first <= back + 5.0
    assert last <= back + 5.0 + 5.0


def test_service_returns_as_soon_after_a_long_outage() -> None:
    back = 900.0
    play = Play("ab", lambda name, at: broken() if at < back else None)
    play.run(5, 1000.0)
    assert back <= min(play.served.values()) <= back + 5.0
    assert 5 == len(play.served)


@pytest.mark.parametrize("names", ["ab", "abcd"])
@pytest.mark.parametrize("death", DEATHS)
def test_one_dead_account_is_met_by_no_client(
    names: str, death: Callable[[], Verdict]
) -> None:
    """All at once and cold: nobody has proven anything yet."""
    clients = 100
    play = Play(names, lambda name, at: death() if name == "a" else None)
    play.run(clients, 60.0)
    assert [] == play.told
    assert clients == len(play.served)
    assert Counter(name for _, name in play.calls)["a"] <= clients


def test_losing_an_account_under_full_load_is_met_by_no_client() -> None:
    """What served lately takes over any number of sessions without a budget."""
    play = Play("abcd", lambda name, at: None)
    play.run(400, 10.0)
    assert 400 == len(play.served)
    homes = Counter(name for _, name in play.calls)
    play.served.clear()
    play.calls.clear()
    play.fails = lambda name, at: broken() if name == "a" else None
    play.run(400, 20.0)
    assert [] == play.told
    assert 400 == len(play.served)
    assert 400 + homes["a"] == len(play.calls)


def test_both_accounts_refuse_in_turn() -> None:
    """Whichever is asked is well every other time; no client notices."""
    turns = Counter[str]()

    def fails(name: str, at: float) -> Verdict | None:
        turns[name] += 1
        return http(500) if turns[name] % 2 else None

    play = Play("ab", fails)
    play.run(20, 100.0)
    assert 20 == len(play.served)
