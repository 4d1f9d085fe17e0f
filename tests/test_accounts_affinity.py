"""Which account knows a session, and which one made a response."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts import affinity as room
from gateway.accounts.affinity import (
    RESPONSE_S,
    SESSION_S,
    WARM_S,
    Affinity,
    Bound,
    even_weights,
    rendezvous,
)

FOUR = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}


def keys(count: int, seed: str = "") -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}{n}")) for n in range(count)]


def placed(affinity: Affinity, names: list[str], weights: dict[str, float]) -> dict:
    """Bind every new session to its first choice."""
    homes = {}
    for key in names:
        homes[key] = affinity.first_choice(key, weights, 0.0)[0]
        affinity.bind(key, homes[key], 0.0)
    return homes


@pytest.mark.parametrize("seed", ["x", "y", "z", "u", "v", "w"])
def test_new_sessions_spread_evenly(seed: str) -> None:
    homes = placed(Affinity(), keys(400, seed), FOUR)
    shares = Counter(homes.values())
    assert all(80 <= shares[name] <= 120 for name in FOUR), shares


def test_an_account_with_twice_the_slots_gets_twice_the_sessions() -> None:
    weights = even_weights([("a", 8), ("b", 4), ("c", 4)])
    shares = Counter(placed(Affinity(), keys(800), weights).values())
    assert 340 <= shares["a"] <= 460
    assert 160 <= shares["b"] <= 240


def test_an_account_without_a_limit_counts_as_the_largest() -> None:
    assert {"a": 8.0, "b": 8.0} == even_weights([("a", 0), ("b", 8)])
    assert {"a": 1.0, "b": 1.0} == even_weights([("a", 0), ("b", 0)])


def test_hashing_alone_moves_only_what_the_lost_account_had() -> None:
    three = {name: 1.0 for name in "abc"}
    for key in keys(300):
        before = rendezvous(key, FOUR)
        assert [name for name in before if name != "d"] == rendezvous(key, three)


def test_killing_an_account_moves_only_its_sessions() -> None:
    affinity, names = Affinity(), keys(400)
    homes = placed(affinity, names, FOUR)
    alive = [name for name in FOUR if name != "c"]
    for key in names:
        bound = affinity.bound(key, alive, 1.0)
        assert (homes[key] != "c") == (bound is not None and bound.account != "c")
        if homes[key] != "c":
            assert bound == Bound(homes[key], True)


def test_the_killed_accounts_sessions_spread_over_the_rest() -> None:
    affinity, names = Affinity(), keys(400)
    homes = placed(affinity, names, FOUR)
    rest = {name: 1.0 for name in "abd"}
    lost = [key for key in names if homes[key] == "c"]
    shares = Counter(placed(affinity, lost, rest).values())
    assert all(shares[name] >= len(lost) / 6 for name in rest), shares


def test_most_sessions_find_home_without_memory() -> None:
    names = keys(400)
    homes = placed(Affinity(), names, FOUR)
    again = placed(Affinity(), list(reversed(names)), FOUR)
    assert sum(homes[key] == again[key] for key in names) >= 360


def test_a_session_that_moved_stays_where_it_moved() -> None:
    affinity = Affinity()
    affinity.bind("s", "a", 0.0)
    affinity.bind("s", "b", 1.0)
    assert Bound("b", True) == affinity.bound("s", ["a", "b"], 2.0)
    assert "b" == affinity.latest("s")


def test_a_model_that_the_latest_account_lacks_goes_to_an_earlier_one() -> None:
    affinity = Affinity()
    affinity.bind("s", "big", 0.0)
    affinity.bind("s", "small", 1.0)
    assert Bound("big", True) == affinity.bound("s", ["big"], 2.0)
    assert affinity.bound("s", ["other"], 2.0) is None


def test_a_session_cools_and_is_then_forgotten() -> None:
    affinity = Affinity()
    affinity.bind("s", "a", 0.0)
    assert Bound("a", True) == affinity.bound("s", ["a"], WARM_S)
    assert Bound("a", False) == affinity.bound("s", ["a"], WARM_S + 1)
    assert affinity.bound("s", ["a"], SESSION_S + 1) is None
    affinity.bind("t", "a", SESSION_S + 1)
    assert "" == affinity.latest("s")


def test_forgotten_sessions_free_their_place() -> None:
    affinity = Affinity()
    placed(affinity, keys(400), FOUR)
    fresh = Counter(
        affinity.first_choice(key, FOUR, SESSION_S + 1)[0] for key in keys(400, "new")
    )
    assert set(FOUR) == set(fresh)


def test_a_removed_account_frees_its_sessions() -> None:
    affinity = Affinity()
    affinity.bind("s", "a", 0.0)
    affinity.bind("s", "b", 0.0)
    affinity.bind("t", "b", 0.0)
    affinity.forget("b")
    assert Bound("a", True) == affinity.bound("s", ["a", "b"], 0.0)
    assert affinity.bound("t", ["a", "b"], 0.0) is None
    affinity.forget("a")
    assert affinity.bound("s", ["a", "b"], 0.0) is None
    assert "b" == affinity.latest("s"), "it made what is in the history"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_SESSIONS", 10)
    monkeypatch.setattr(room, "MAX_RESPONSES", 10)
    affinity = Affinity()
    for n in range(30):
        affinity.bind(f"s{n}", "a", 0.0)
        affinity.made("alice", f"r{n}", "a", 0.0)
    assert ("", "a") == (affinity.latest("s19"), affinity.latest("s20"))
    assert "" == affinity.maker("alice", "r19", 0.0)
    assert "a" == affinity.maker("alice", "r20", 0.0)


def test_a_response_is_known_to_its_user_alone_and_for_a_while() -> None:
    affinity = Affinity()
    affinity.made("alice", "resp_1", "a", 0.0)
    assert "a" == affinity.maker("alice", "resp_1", RESPONSE_S)
    assert "" == affinity.maker("bob", "resp_1", 0.0)
    assert "" == affinity.maker("alice", "resp_2", 0.0)
    assert "" == affinity.maker("alice", "resp_1", RESPONSE_S + 1)


BIG, SMALL = frozenset(["a", "b"]), frozenset(["a"])
SETS = (BIG, SMALL, frozenset(["b", "c"]))


def test_a_small_model_does_not_move_the_big_one() -> None:
    affinity = Affinity()
    affinity.bind("s", "b", 0.0, BIG, "big")
    affinity.bind("s", "a", 1.0, SMALL, "small")
    assert Bound("b", True) == affinity.bound("s", BIG, 2.0, BIG, "big")
    assert Bound("a", True) == affinity.bound("s", SMALL, 2.0, SMALL, "small")
    assert ("b", "a") == (
        affinity.latest("s", BIG, "big"),
        affinity.latest("s", SMALL, "small"),
    )


def test_models_that_fit_the_same_accounts_share_a_place() -> None:
    affinity = Affinity()
    affinity.bind("s", "b", 0.0, BIG, "big")
    assert Bound("b", True) == affinity.bound("s", BIG, 2.0, BIG, "mini")
    assert "b" == affinity.latest("s", BIG, "mini")


def test_a_new_model_goes_where_the_session_is_known_but_nothing_is_warm() -> None:
    """Nor does anybody know who made what its history may hold."""
    affinity, other = Affinity(), frozenset(["a", "b", "c"])
    affinity.bind("s", "b", 0.0, BIG, "big")
    assert Bound("b", False) == affinity.bound("s", other, 1.0, other, "new")
    assert "" == affinity.latest("s", other, "new")


def test_a_model_whose_accounts_a_reload_has_changed_keeps_its_place() -> None:
    affinity, more = Affinity(), BIG | {"c"}
    affinity.bind("s", "b", 0.0, BIG, "big")
    affinity.bind("s", "a", 1.0, SMALL, "small")
    assert Bound("b", True) == affinity.bound("s", more, 2.0, more, "big")
    assert "b" == affinity.latest("s", more, "big")
    affinity.bind("s", "c", 3.0, more, "big")
    assert Bound("c", True) == affinity.bound("s", [*more], 4.0, BIG, "big")
    assert "c" == affinity.latest("s", BIG, "big")


def test_an_account_that_is_out_leaves_the_session_to_an_earlier_one() -> None:
    affinity = Affinity()
    affinity.bind("s", "a", 0.0, BIG, "big")
    affinity.bind("s", "b", 1.0, BIG, "big")
    assert Bound("a", True) == affinity.bound("s", ["a"], 2.0, BIG, "big")


def test_places_and_accounts_of_a_session_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MAX_PLACES", 3)
    monkeypatch.setattr(room, "MAX_ACCOUNTS", 2)
    affinity = Affinity()
    for n in range(9):
        affinity.bind("s", f"x{n}", float(n), frozenset([f"x{n}"]), f"m{n}")
        affinity.bind("t", f"x{n}", float(n), BIG, "big")
    places, one = affinity._sessions.values()
    assert (3, ["x8", "x7"]) == (len(places), next(iter(one.values())).accounts)
    assert 4 == sum(affinity._held.values())


STEPS = st.lists(
    st.tuples(
        st.sampled_from("stuvw"),
        st.sampled_from("abc"),
        st.sampled_from(["bind", "forget", "wait"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_sessions_are_counted_right_whatever_happens(
    steps: list[tuple[str, str, str]],
) -> None:
    affinity, now = Affinity(), 0.0
    for key, account, what in steps:
        if what == "bind":
            fitting = SETS[(ord(key) + int(now)) % len(SETS)] | {account}
            affinity.bind(key, account, now, fitting)
        elif what == "forget":
            affinity.forget(account)
        else:
            now += SESSION_S // 3
            affinity.first_choice(key, FOUR, now)
    places = [p for one in affinity._sessions.values() for p in one.values()]
    homes = Counter(place.accounts[0] for place in places if place.accounts)
    assert homes == +affinity._held
    assert all(0 <= count for count in affinity._held.values())
