"""The ids that requests are given."""

from __future__ import annotations

import uuid

from gateway.request_ids import new_uuid

NOON = 1_795_521_600.0


def test_a_new_id_is_a_uuid_that_bears_its_time() -> None:
    made = uuid.UUID(new_uuid(NOON + 0.0019))

    assert (7, uuid.RFC_4122) == (made.version, made.variant)
    assert int(NOON * 1000) + 1 == made.int >> 80


def test_ids_grow_with_the_time_and_are_never_the_same() -> None:
    later = [new_uuid(NOON + n / 1000) for n in range(100)]

    assert sorted(later) == later
    assert 10_000 == len({new_uuid(NOON) for _ in range(10_000)})
