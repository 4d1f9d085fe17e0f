"""Admission under a simulated clock: it grants as ``Registry`` does."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.admission.interface import Holder
from gateway.admission.registry import Registry
from gateway.admission.simulation import (
    Arrival,
    Passage,
    Plan,
    Simulation,
    UserLimits,
    by_user,
    percentile,
    waits_of,
)
from gateway.errors import GatewayError
from gateway.transport import timers
from tests.kit import virtual_time
from tests.kit.virtual_time import now

TIERS = (
    (("a",),),
    (("a", "b"),),
    (("b",), ("a", "c")),
    (("a", "b", "c"),),
)


def some_arrivals(chance: random.Random, number: int) -> list[Arrival]:
    """Moments that never coincide, so that the order of events is one."""
    at_s, found = 0.0, []
    for n in range(number):
        at_s += chance.expovariate(2.0) + 0.000101
        tiers = chance.choice(TIERS)
        names = [name for tier in tiers for name in tier]
        found.append(
            Arrival(
                round(at_s, 6),
                chance.choice("uvw"),
                tiers,
                round(chance.expovariate(0.4) + 0.001 + n * 1e-7, 9),
                round(chance.uniform(0.1, 20.0), 6) if chance.random() < 0.2 else None,
                chance.choice(names) if chance.random() < 0.3 else "",
            )
        )
    return found


async def really(plan: Plan, arrivals: list[Arrival]) -> list[Passage]:
    """The same through the ``Registry`` of a process, in virtual time."""
    registry, began = Registry(clock=now), now()
    for user, limits in plan.users.items():
        registry.set_user(user, limits.max_concurrent, limits.max_queued)
    for account, slots in plan.accounts.items():
        registry.set_account(account, slots)

    async def serve(n: int, one: Arrival) -> Passage:
        await asyncio.sleep(began + one.at_s - now())
        came = now()
        deadline = came + plan.users[one.user].queue_timeout_s
        holder = Holder(str(n), one.user)
        leaving = None if one.patience_s is None else came + one.patience_s
        try:
            async with asyncio.timeout_at(leaving) as patience:
                with await registry.user_slot(one.user, holder, deadline):
                    slot = await registry.account_slot(
                        one.tiers,
                        holder,
                        deadline,
                        prefer=one.prefer,
                        prefer_until=now() + plan.sticky_wait_s,
                    )
                    patience.reschedule(None)
                    with slot:
                        wait_s = now() - came
                        await asyncio.sleep(one.service_s)
                        return Passage(wait_s, slot.account, "")
        except TimeoutError:
            return Passage(now() - came, "", "left")
        except GatewayError as error:
            return Passage(now() - came, "", error.code)

    return list(await asyncio.gather(*map(serve, range(len(arrivals)), arrivals)))


@pytest.mark.parametrize("seed", range(8))
def test_it_grants_refuses_and_times_as_the_registry_does(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its timers come within a tick, or a second where they were far away.
    for name, seconds in (("TICK_S", 1e-6), ("EARLY_S", 1e-6), ("FAR_S", 1e6)):
        monkeypatch.setattr(timers, name, seconds)
    chance = random.Random(seed)
    plan = Plan(
        {
            user: UserLimits(chance.randint(0, 4), chance.randint(0, 9), timeout_s)
            for user, timeout_s in zip("uvw", (4.003, 9.007, 60.011), strict=True)
        },
        {"a": 2, "b": 1, "c": chance.randint(0, 2)},
        chance.choice([0.0, 0.503, 3.009]),
    )
    arrivals = some_arrivals(chance, 300)
    simulated = Simulation(plan).run(arrivals)
    expected = virtual_time.run(really(plan, arrivals))

    assert [(one.account, one.refused) for one in expected] == [
        (one.account, one.refused) for one in simulated
    ]
    assert [one.wait_s for one in expected] == pytest.approx(
        [one.wait_s for one in simulated], abs=1e-4
    )
    kinds = {one.refused for one in simulated}
    assert {"", "left"} <= kinds  # else the seed says little


def one_account(slots: int, **limits: float) -> Plan:
    given = {"max_concurrent": 0, "max_queued": 100, "queue_timeout_s": 60.0, **limits}
    user = UserLimits(
        int(given["max_concurrent"]), int(given["max_queued"]), given["queue_timeout_s"]
    )
    return Plan({"u": user, "v": user}, {"a": slots}, 3.0)


def test_more_slots_shorten_the_wait() -> None:
    arrivals = [Arrival(n / 1000, "u", (("a",),), 1.0) for n in range(4)]
    one, two = Simulation(one_account(1)), Simulation(one_account(2))

    assert [0.0, 0.999, 1.998, 2.997] == pytest.approx(
        [p.wait_s for p in one.run(arrivals)]
    )
    assert [0.0, 0.0, 0.998, 0.998] == pytest.approx(
        [p.wait_s for p in two.run(arrivals)]
    )
    assert {"a": 4.0} == one.busy_s == two.busy_s


def test_progress_is_reported() -> None:
    arrivals = [Arrival(float(n), "u", (("a",),), 0.1) for n in range(2500)]
    seen: list[int] = []
    Simulation(one_account(1)).run(arrivals, seen.append)
    assert [0, 1000, 2000] == seen


def test_waits_are_summed_up_by_user() -> None:
    arrivals = [Arrival(0.0, user, (("a",),), 1.0) for user in "uuvvv"]
    passages = [
        Passage(0.0, "a", ""),
        Passage(4.0, "a", ""),
        Passage(0.0, "", "queue_full"),
        Passage(9.0, "", "queue_timeout"),
        Passage(2.0, "", "left"),
    ]
    found = dict(by_user(arrivals, passages))

    assert (2, 1, 4.0, 4.0, 0, 0) == found["u"]
    assert (3, 0, 0.0, 0.0, 2, 1) == found["v"]
    assert (5, 1, 4.0, 4.0, 2, 1) == waits_of(passages)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([1.0], 0.95, 1.0), (list(map(float, range(100))), 0.95, 95.0)],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert expected == percentile(values, share)
