"""Which waiter is next, and at which position the others are."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.admission.expected_wait import (
    BusySlots,
    ServiceTimes,
    expected_wait_s,
    mean_of,
)
from gateway.admission.policy import FairQueue, Waiter
from gateway.admission.reserved_positions import KEEP_S, ReservedPositions

A, B, AB = frozenset("A"), frozenset("B"), frozenset("AB")


def line_of(
    *waiters: tuple[str, frozenset[str]]
) -> tuple[FairQueue[Waiter], list[Waiter]]:
    """A line in which (user, fits) have arrived in this order."""
    line: FairQueue[Waiter] = FairQueue()
    made = [Waiter(user, n, fits) for n, (user, fits) in enumerate(waiters, 1)]
    for waiter in made:
        line.add(waiter)
    return line, made


def serve(line: FairQueue[Waiter], names: str) -> str:
    """Free a slot of each of *names* in turn; who got them: user and arrival."""
    served = []
    for name in names:
        waiter = line.next(name)
        if waiter is None:
            served.append("-")
        else:
            line.serve(waiter, name)
            served.append(f"{waiter.user}{waiter.arrival}")
    return " ".join(served)


@pytest.mark.parametrize(
    ("waiters", "freed", "expected"),
    [
        pytest.param(
            [("u", A)] * 4, "AAAAA", "u1 u2 u3 u4 -", id="one-user-by-arrival"
        ),
        pytest.param(
            [("u", A)] * 3 + [("v", A)],
            "AAAA",
            "u1 v4 u2 u3",
            id="second-user-within-two-turns",
        ),
        pytest.param(
            [("u", A), ("u", A), ("v", A), ("v", A), ("w", A)],
            "AAAAA",
            "u1 v3 w5 u2 v4",
            id="three-users-in-rounds",
        ),
        pytest.param(
            [("u", AB), ("u", AB), ("v", AB), ("v", AB)],
            "ABAB",
            "u1 v3 u2 v4",
            id="a-pool-is-one-round",
        ),
        pytest.param(
            [("u", B), ("u", A), ("v", A)],
            "BABA",
            "u1 u2 - v3",
            id="a-turn-elsewhere-does-not-count",
        ),
        pytest.param(
            [("u", A), ("u", AB), ("u", B)],
            "BA",
            "u2 u1",
            id="a-younger-one-that-fits-may-go-first",
        ),
        pytest.param(
            [("u", A), ("u", AB), ("v", A)],
            "AAA",
            "u1 v3 u2",
            id="two-lines-do-not-give-two-shares",
        ),
        pytest.param([("u", A)], "BA", "- u1", id="no-waiter-gets-what-does-not-fit"),
    ],
)
def test_who_is_served(
    waiters: list[tuple[str, frozenset[str]]], freed: str, expected: str
) -> None:
    line, _ = line_of(*waiters)

    assert expected == serve(line, freed)


def test_a_user_who_is_well_served_elsewhere_does_not_starve_here() -> None:
    """B serves u ten times as often as A; u's one waiter at A still has its turn."""
    line, _ = line_of(("u", A), *[("v", A)] * 5, *[("u", B)] * 100)
    served = serve(line, "BBBBBBBBBBA" * 2)

    assert "u1" in served.split()


def test_leaving_keeps_the_order_of_the_others() -> None:
    line, made = line_of(*[("u", A)] * 4, ("v", A))
    line.remove(made[0])
    line.remove(made[2])

    assert "u2 v5 u4 -" == serve(line, "AAAA")


def test_who_comes_back_with_its_turn_stands_where_it_stood() -> None:
    line, made = line_of(("u", A), ("v", A), ("w", A))
    turn = line.remove(made[1])
    line.add(Waiter("x", 4, A))
    line.add(made[1], turn)

    assert "u1 v2 w3 x4" == serve(line, "AAAA")


def test_an_old_arrival_goes_before_its_users_younger_ones() -> None:
    line, made = line_of(*[("u", A)] * 3)
    turn = line.remove(made[0])
    line.add(made[0], turn)

    assert "u1 u2 u3" == serve(line, "AAA")


@pytest.mark.parametrize("seed", range(20))
def test_position_is_the_place_in_which_one_is_served(seed: int) -> None:
    chance = random.Random(seed)
    line, made = line_of(
        *[(chance.choice("uvwxyz"), A) for _ in range(chance.randint(1, 60))]
    )
    for _ in range(chance.randint(0, 10)):
        if waiter := line.next("A"):
            line.serve(waiter, "A")
            made.remove(waiter)
    for waiter in chance.sample(made, len(made) // 4):
        line.remove(waiter)
        made.remove(waiter)
    promised = {line.position(w, {"A": 1}): w.arrival for w in made}
    served = [int(s[1:]) for s in serve(line, "A" * len(made)).split()]

    assert served == [promised[n] for n in range(1, len(made) + 1)]


def test_others_count_by_the_share_in_which_they_compete() -> None:
    """Of eight that may go to A or B (one slot each), four will come to A."""
    line, made = line_of(*[(f"v{n}", AB) for n in range(8)], ("u", A))

    assert 5 == line.position(made[-1], {"A": 1, "B": 1})
    assert 3 == line.position(made[-1], {"A": 1, "B": 3})


def test_position_in_a_wide_ring_is_estimated_well() -> None:
    line: FairQueue[Waiter] = FairQueue()
    users = [f"u{n}" for n in range(2000)]
    for n, user in enumerate(users * 2, 1):
        line.add(Waiter(user, n, A))
    middle = Waiter("u1500", 5000, A)
    line.add(middle)

    assert 4001 == line.position(middle, {"A": 1})
    second = line.of("u1500")[1]
    assert 3501 == line.position(second, {"A": 1})


def test_waiting_counts_each_once() -> None:
    line, made = line_of(("u", A), ("u", AB), ("v", B))

    assert 3 == line.waiting("AB")
    assert 2 == line.waiting("A")
    assert 0 == line.waiting("C")
    assert {made[0], made[1]} == set(line.at("A"))
    assert {made[0], made[1]} == set(line.of("u"))


def test_nothing_is_left_of_a_line_that_emptied() -> None:
    line, made = line_of(("u", A), ("u", AB), ("v", B))
    serve(line, "AB")
    line.remove(made[1] if made[1] in line.at("A") else made[2])

    assert {} == line._groups
    assert {} == line._at


def test_shares_are_equal_while_all_have_something_waiting() -> None:
    """Five users with 4 … 20 waiting on one slot: four rounds of five."""
    line: FairQueue[Waiter] = FairQueue()
    depths = {"a": 20, "b": 16, "c": 12, "d": 8, "e": 4}
    arrival = 0
    for user, depth in depths.items():
        for _ in range(depth):
            arrival += 1
            line.add(Waiter(user, arrival, A))
    served = Counter(s[0] for s in serve(line, "A" * 20).split())

    assert {user: 4 for user in depths} == served


# --- expected wait --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "servers", "expected"),
    [
        pytest.param(
            1, [BusySlots(1, 10, 0, [4])], 6, id="the-rest-of-the-one-running"
        ),
        pytest.param(3, [BusySlots(1, 10, 0, [4])], 26, id="two-whole-ones-more"),
        pytest.param(2, [BusySlots(2, 10, 0, [9, 3])], 7, id="the-second-slot"),
        pytest.param(1, [BusySlots(2, 10, 0, [3])], 0, id="one-slot-is-about-to-free"),
        pytest.param(1, [BusySlots(4, 8, 1, [1, 2, 3, 4])], 2, id="chance-even-rate"),
        pytest.param(6, [BusySlots(4, 8, 1, [1, 2, 3, 4])], 12, id="chance-sixth"),
        pytest.param(1, [BusySlots(1, 10, 0.5, [4])], 8, id="half-chance"),
        pytest.param(1, [BusySlots(1, 10, 0, [25])], 15, id="overdue-takes-its-time"),
        pytest.param(
            1, [BusySlots(1, 10, 0, [9, 8, 2])], 8, id="lowered-limit-frees-later"
        ),
        pytest.param(
            2, [BusySlots(1, 10, 0, [4]), BusySlots(1, 4, 0, [1])], 6, id="two-accounts"
        ),
        pytest.param(1, [], 0, id="no-account"),
    ],
)
def test_expected_wait(
    position: int, servers: list[BusySlots], expected: float
) -> None:
    assert pytest.approx(expected) == expected_wait_s(position, servers)


def test_service_times_fade() -> None:
    service = ServiceTimes()
    for seconds in [100.0] * 50 + [10.0] * 100:
        service.add(seconds)

    assert pytest.approx(10, rel=0.05) == service.mean_s
    assert service.spread < 0.2


def test_spread_tells_chance_from_order() -> None:
    chance = random.Random(1)
    even, wild = ServiceTimes(), ServiceTimes()
    for _ in range(200):
        even.add(5.0)
        wild.add(chance.expovariate(1 / 5))

    assert 0 == even.spread
    assert wild.spread > 0.4


def test_a_leap_of_the_clock_is_no_service_time() -> None:
    service = ServiceTimes()
    for seconds in [2.0] * 20 + [-50.0, float("nan"), 1e9]:
        service.add(seconds)

    assert 21 == service.count
    assert service.mean_s < 4


def test_without_any_measure_the_running_ones_are_the_measure() -> None:
    measured = ServiceTimes()
    measured.add(7.0)

    assert (7.0, 0.0) == mean_of((ServiceTimes(), measured), [1.0])
    assert (30.0, 1.0) == mean_of((ServiceTimes(), ServiceTimes()), [10.0, 20.0])
    assert (1.0, 1.0) == mean_of((), [])


def test_a_service_that_took_no_time_has_no_spread() -> None:
    assert 0 == ServiceTimes().spread


# --- reserved positions ---------------------------------------------------------------


def test_a_reserved_position_is_given_once_to_its_session() -> None:
    reserved = ReservedPositions()
    reserved.reserve("u", "s", 7, 3, 100.0)
    reserved.reserve("u", "s", 9, None, 101.0)
    reserved.reserve("u", "", 8, None, 101.0)

    assert reserved.take("u", "other", 102.0) is None
    assert reserved.take("v", "s", 102.0) is None
    assert reserved.take("u", "", 102.0) is None
    first, second = reserved.take("u", "s", 102.0), reserved.take("u", "s", 102.0)
    assert first and second
    assert (7, 3, 9, None) == (
        first.arrival,
        first.last_served,
        second.arrival,
        second.last_served,
    )
    assert reserved.take("u", "s", 102.0) is None


@pytest.mark.parametrize(
    "now", [pytest.param(100 + KEEP_S, id="over"), pytest.param(50.0, id="clock-back")]
)
def test_a_reserved_position_is_soon_forgotten(now: float) -> None:
    reserved = ReservedPositions()
    reserved.reserve("u", "s", 7, 3, 100.0)
    reserved.reserve("u", "t", 8, 3, 100.0)

    assert reserved.take("u", "s", now) is None
    assert {} == reserved._positions


def test_only_what_is_over_is_forgotten() -> None:
    reserved = ReservedPositions()
    reserved.reserve("u", "s", 7, None, 100.0)
    reserved.reserve("u", "s", 8, None, 103.0)
    position = reserved.take("u", "s", 106.0)

    assert position and 8 == position.arrival
