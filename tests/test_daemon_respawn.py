"""When a worker that has ended is started again."""

from __future__ import annotations

import pytest

from gateway.daemon.respawn import MAX_DEATHS, MAX_S, WELL_S, WINDOW_S, Respawn


def test_the_first_is_replaced_at_once_and_pauses_grow() -> None:
    respawn = Respawn()

    waits = [respawn.died(100.0 * n, 1.0) for n in range(9)]

    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, MAX_S, MAX_S]


def test_a_worker_that_lived_well_is_replaced_at_once_again() -> None:
    respawn = Respawn()
    respawn.died(0.0, 1.0)
    respawn.died(100.0, 1.0)

    assert 0.0 == respawn.died(200.0, WELL_S)


@pytest.mark.parametrize(("apart_s", "often"), [(WINDOW_S / 5, True), (16.0, False)])
def test_too_many_deaths_in_a_short_time_are_noticed(
    apart_s: float, often: bool
) -> None:
    respawn = Respawn()

    noticed = []
    for number in range(MAX_DEATHS):
        respawn.died(number * apart_s, 11.0)
        noticed.append(respawn.too_often(number * apart_s))

    assert noticed == [False] * (MAX_DEATHS - 1) + [often]
