"""Which accounts are asked, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.accounts.affinity import WARM_S, Affinity
from gateway.accounts.choice import (
    AccountQuery,
    Choice,
    Load,
    Rejection,
    Restrictions,
    candidates,
)
from gateway.accounts.health import Health
from gateway.accounts.model_index import MAX_MODELS, ModelIndex, serves
from gateway.accounts.session import Session, session_of
from gateway.accounts.verdict import judge_status
from gateway.config.schema import EMBEDDED, Account

M = "gpt-x"
NOW = 1000.0


def account(name: str, **keys: Any) -> Account:
    keys.setdefault("protocol", "responses")
    return Account(name=name, base_url=keys.pop("base_url", "http://x"), **keys)


def outages(choice: Choice) -> list[tuple[str, str]]:
    """Who is out, and for what."""
    return [(one.name, one.reason) for one in choice.rejected]


def named(value: str = "s") -> Session:
    return session_of({"session-id": value}, {}, "alice")


UNNAMED = session_of({}, {}, "alice")


class House:
    """Accounts with their health, affinity and load."""

    def __init__(self, *accounts: Account) -> None:
        self.accounts = accounts
        self.health = Health(lambda: 0.5)
        self.affinity = Affinity()
        self.load: dict[str, Load] = {}

    def choose(self, now: float = NOW, **ask: Any) -> Choice:
        query = {"model": M, "protocol": "responses", "session": named()}
        query.update((key, ask.pop(key)) for key in list(ask) if key in query)
        return candidates(
            ModelIndex(self.accounts).serving(query["model"]),
            AccountQuery(**query),
            Restrictions(**ask),
            self.health,
            self.affinity,
            lambda: self.load,
            now,
        )

    def fail(
        self, name: str, status: int = 500, times: int = 1, **headers: str
    ) -> None:
        verdict = judge_status(status, headers, b"{}", 0.0)
        for n in range(times):
            at = NOW - 1 + n / 100
            self.health.failed(name, M, verdict, at, at)


@pytest.mark.parametrize(
    ("models", "rename", "model", "expected"),
    [
        (("*",), {}, "anything", True),
        (("gpt-*",), {}, "gpt-x", True),
        (("gpt-*",), {}, "claude", False),
        (("gpt-*",), {}, "GPT-x", False),
        (("a", "b"), {}, "b", True),
        (("gpt-[56]*",), {}, "gpt-6", True),
        ((), {}, "a", False),
        (("b",), {"fast": "b"}, "fast", True),
        (("b",), {"fast": "b"}, "slow", False),
    ],
)
def test_globs_and_renames_say_what_an_account_serves(
    models: tuple[str, ...], rename: dict[str, str], model: str, expected: bool
) -> None:
    assert expected == serves(account("a", models=models, rename=rename), model)


def test_what_serves_a_model_is_remembered_within_bounds() -> None:
    """Clients make names up; the accounts of each are the same ever after."""
    fleet = ModelIndex([account("a", models=("gpt-*",)), account("b")])

    for n in range(3 * MAX_MODELS):
        assert ["b"] == [found.name for found in fleet.serving(f"made-up-{n}")]

    assert ["a", "b"] == [found.name for found in fleet.serving("gpt-x")]
    assert fleet.serving("gpt-x") is fleet.serving("gpt-x")
    assert len(fleet._serving) <= MAX_MODELS


def test_who_verifies_thinking_is_remembered_within_bounds() -> None:
    """By the dialect of each model: one account may serve several vendors'."""
    one = account("a", protocol="messages")
    fleet = ModelIndex([one])
    assert fleet.verifies(one, "claude-opus-4-5")
    assert not fleet.verifies(one, "deepseek-chat")
    for n in range(3 * MAX_MODELS):
        assert fleet.verifies(one, f"model-{n}")
    assert len(fleet._verify) <= MAX_MODELS


def test_a_model_without_an_account_fits_none() -> None:
    choice = House(account("a", models=("b",))).choose()
    assert ([], [], []) == (choice.tiers, choice.fitting, choice.rejected)


def test_priority_comes_first() -> None:
    house = House(account("a", priority=2), account("b", priority=1))
    assert [["b"], ["a"]] == house.choose().tiers


def test_of_equals_the_clients_own_protocol_comes_first() -> None:
    house = House(
        account("a", protocol="messages"),
        account("b", protocol="responses"),
        account("c", protocol="chat", priority=0),
    )
    assert [["c"], ["b"], ["a"]] == house.choose().tiers
    assert [["c"], ["a"], ["b"]] == house.choose(protocol="messages").tiers


def test_the_trial_account_speaks_every_protocol() -> None:
    house = House(account("t", base_url=EMBEDDED, protocol=""), account("b"))
    assert 1 == len(house.choose(protocol="chat").tiers[0])
    assert "t" == house.choose(protocol="chat").ordered[0]


def test_the_sessions_own_account_leads_its_equals() -> None:
    house = House(*(account(name) for name in "abcd"))
    for name in "abcd":
        house.affinity.bind(named().key, name, NOW)
        choice = house.choose()
        assert (name, name) == (choice.ordered[0], choice.prefer)


def test_the_sessions_own_account_is_worth_a_wait() -> None:
    house = House(*(account(name, max_concurrent=2) for name in "ab"))
    house.affinity.bind(named().key, "a", NOW)
    house.load = {"a": Load(2, 2), "b": Load(0, 2)}
    choice = house.choose()
    assert (["a", "b"], "a") == (choice.ordered, choice.prefer)


def test_a_new_session_waits_for_no_account_in_particular() -> None:
    house = House(*(account(name) for name in "ab"))
    assert "" == house.choose().prefer


def test_a_warm_session_stays_though_a_better_priority_is_back() -> None:
    house = House(account("a", priority=1), account("b", priority=2))
    house.affinity.bind(named().key, "b", NOW - WARM_S)
    choice = house.choose()
    assert (["b", "a"], "b") == (choice.ordered, choice.prefer)


def test_a_cold_session_returns_to_the_better_priority() -> None:
    house = House(account("a", priority=1), account("b", priority=2))
    house.affinity.bind(named().key, "b", NOW - WARM_S - 1)
    choice = house.choose()
    assert (["a", "b"], "") == (choice.ordered, choice.prefer)


def test_requests_without_a_session_return_at_once() -> None:
    house = House(account("a", priority=1), account("b", priority=2))
    house.affinity.bind(UNNAMED.key, "b", NOW)
    assert ["a", "b"] == house.choose(session=UNNAMED).ordered


def test_requests_without_a_session_go_where_most_is_free() -> None:
    house = House(*(account(name, max_concurrent=4) for name in "abc"))
    house.load = {"a": Load(3, 4), "b": Load(1, 4), "c": Load(2, 4)}
    assert ["b", "c", "a"] == house.choose(session=UNNAMED).ordered


def test_without_limits_the_count_decides() -> None:
    house = House(*(account(name) for name in "abc"))
    house.load = {"a": Load(9), "b": Load(1), "c": Load(5)}
    assert ["b", "c", "a"] == house.choose(session=UNNAMED).ordered


def test_a_new_session_passes_by_a_full_account() -> None:
    house = House(*(account(name, max_concurrent=1) for name in "ab"))
    first, second = house.choose().ordered
    house.load = {first: Load(1, 1), second: Load(0, 1)}
    assert [second, first] == house.choose().ordered


def test_an_account_that_just_returned_gets_its_share_and_no_more() -> None:
    house = House(*(account(name) for name in "ab"))
    house.fail("a")
    house.health.started("a", M, NOW + 5)
    house.health.succeeded("a", M, NOW + 5, NOW + 5)
    got = Counter()
    for n in range(40):
        name = house.choose(NOW + 5, session=named(f"s{n}")).ordered[0]
        assert house.health.started(name, M, NOW + 5)
        got[name] += 1
    assert 4 == got["a"]


def test_who_was_tried_is_not_asked_again() -> None:
    house = House(*(account(name) for name in "ab"))
    choice = house.choose(tried=frozenset("a"))
    assert ([["b"]], [Rejection("a", "tried")]) == (choice.tiers, choice.rejected)
    assert not choice.last_resort


def test_all_tried_is_the_end() -> None:
    house = House(*(account(name) for name in "ab"))
    choice = house.choose(tried=frozenset("ab"))
    assert ([], ["a", "b"], False) == (
        choice.tiers,
        choice.fitting,
        choice.last_resort,
    )


def test_who_is_out_is_left_alone_and_it_is_said_why() -> None:
    house = House(*(account(name) for name in "ab"))
    house.fail("a", 401)
    choice = house.choose()
    assert ([["b"]], [("a", "refused")]) == (choice.tiers, outages(choice))


def test_no_request_is_refused_while_an_account_is_untried() -> None:
    house = House(*(account(name) for name in "ab"))
    house.fail("a")
    house.fail("b")
    choice = house.choose(NOW, tried=frozenset("a"))
    assert (["b"], True) == (choice.ordered, choice.last_resort)


def test_when_all_are_dead_no_account_is_asked_before_the_probe() -> None:
    house = House(*(account(name) for name in "ab"))
    house.fail("a", times=6)
    house.fail("b", times=6)
    choice = house.choose()
    assert ([], ["a", "b"]) == (choice.tiers, choice.fitting)
    assert [("a", "failed"), ("b", "failed")] == outages(choice)
    assert all(one.left_s and one.left_s > 0 for one in choice.rejected)
    later = house.choose(NOW + 3)
    assert (["a", "b"], True) == (sorted(later.ordered), later.last_resort)


def test_an_account_with_a_dated_outage_stays_out_even_alone() -> None:
    house = House(account("a"))
    house.fail("a", 429, **{"retry-after": "30"})
    assert [] == house.choose().tiers


def test_who_made_a_response_answers_for_it() -> None:
    house = House(*(account(name) for name in "abc"))
    house.affinity.bind(named().key, "a", NOW)
    assert [["c"]] == house.choose(owners=["c"]).tiers
    house.fail("c", 429, **{"retry-after": "30"})
    choice = house.choose(owners=["c"])
    assert ([], ["c"]) == (choice.tiers, choice.fitting)


def test_four_hundred_sessions_of_twenty_turns() -> None:
    """Each equal account gets its share; a death moves only its own sessions."""
    house = House(*(account(name) for name in "abcd"))
    homes: dict[int, str] = {}
    for turn in range(20):
        now = NOW + turn
        if turn == 10:
            house.fail("b", 401, times=4)
        for n in range(400):
            session = named(f"s{n}")
            home = house.choose(now, session=session).ordered[0]
            assert home == homes.get(n, home) or homes[n] == "b" and turn == 10
            homes[n] = home
            house.health.succeeded(home, M, now, now)
            house.affinity.bind(session.key, home, now)
        if turn == 9:
            shares = Counter(homes.values())
            assert all(80 <= shares[name] <= 120 for name in "abcd"), shares
    shares = Counter(homes.values())
    assert all(100 <= shares[name] <= 170 for name in "acd"), shares
