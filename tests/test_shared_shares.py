"""The slots of a node that is alone: a table, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.shared.shares import LastBeat, equal_part, share_of


@pytest.mark.parametrize(
    ("limit", "held", "last", "nodes", "rank", "share"),
    [
        (6, 0, None, 1, 0, 6),  # alone from the beginning
        (6, 0, None, 4, 1, 2),  # a gate that was never asked about: it was free
        (6, 3, LastBeat(3, 3), 2, 0, 5),
        (6, 0, LastBeat(3, 0), 2, 1, 1),
        (6, 0, LastBeat(6, 0), 2, 0, 0),  # all of it was another's
        (6, 6, LastBeat(6, 6), 2, 1, 6),
        (6, 4, LastBeat(2, 2), 2, 0, 4),  # granted since: it is in what was free
        (2, 3, LastBeat(3, 3), 2, 0, 3),  # above a lowered limit: what runs, runs
        (1, 0, LastBeat(0, 0), 3, 0, 1),
        (1, 0, LastBeat(0, 0), 3, 2, 0),
        (5, 0, LastBeat(0, 0), 0, 0, 5),  # no node was ever counted
    ],
)
def test_a_share(
    limit: int, held: int, last: LastBeat | None, nodes: int, rank: int, share: int
) -> None:
    assert share_of(limit, held, last, nodes, rank) == share


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 40))
def test_all_shares_together_are_the_limit(held: list[int], limit: int) -> None:
    used, nodes = sum(held), len(held)

    shares = [
        share_of(limit, own, LastBeat(used, own), nodes, rank)
        for rank, own in enumerate(held)
    ]

    assert sum(shares) == max(limit, used)
    assert all(share >= own for share, own in zip(shares, held))


@given(st.integers(1, 12), st.integers(0, 100))
def test_all_equal_parts_together_are_the_limit(nodes: int, limit: int) -> None:
    parts = [equal_part(limit, nodes, rank) for rank in range(nodes)]

    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1
