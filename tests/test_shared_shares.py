"""The slots of a node that is alone: a table, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.shared.shares import equal_part, share_of
from gateway.shared.standstill import Standstill


@pytest.mark.parametrize(
    ("limit", "held", "spare", "nodes", "rank", "share"),
    [
        (6, 0, None, 1, 0, 6),  # alone from the beginning
        (6, 0, None, 4, 1, 2),  # a gate of which nothing was said: it was free
        (6, 3, None, 4, 1, 3),
        (6, 3, 2, 2, 0, 5),
        (6, 0, 0, 2, 0, 0),  # all of it was another's
        (6, 6, 0, 2, 1, 6),
        (2, 3, 0, 2, 0, 3),  # above a lowered limit: what runs, runs
        (2, 1, 3, 2, 0, 2),  # more was set aside before it was lowered
        (5, 0, None, 0, 0, 5),  # no node was ever counted
    ],
)
def test_a_share(
    limit: int, held: int, spare: int | None, nodes: int, rank: int, share: int
) -> None:
    assert share_of(limit, held, spare, nodes, rank) == share


@given(st.integers(1, 12), st.integers(0, 100))
def test_all_equal_parts_together_are_the_limit(nodes: int, limit: int) -> None:
    parts = [equal_part(limit, nodes, rank) for rank in range(nodes)]

    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1


def test_a_standstill_is_over_with_an_answer_to_what_was_sent_behind_it() -> None:
    still = Standstill()
    before = still.beat(10.0)
    assert not still.seen
    after = still.beat(0.0)  # as if ten seconds had passed
    still.answered(before)
    assert still.seen
    still.answered(after)
    assert not still.seen
    still.rest()  # without the engine there is nothing to beat
    still.beat(0.0)
    assert not still.seen
