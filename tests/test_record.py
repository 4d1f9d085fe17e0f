"""What a record keeps of the bytes of an attempt's answer."""

from __future__ import annotations

from gateway.record import AttemptRecord


def test_the_longest_gap_is_between_two_pieces_of_one_answer() -> None:
    attempt = AttemptRecord(1, "a", 1000.0)
    for size, now in ((10, 100.0), (5, 101.0), (1, 104.0), (1, 105.0)):
        attempt.receive(size, now)

    assert (attempt.received_bytes, attempt.longest_gap_s) == (17, 3.0)


def test_the_wait_for_the_first_piece_is_no_gap() -> None:
    attempt = AttemptRecord(1, "a", 1000.0)
    attempt.receive(10, 5000.0)

    assert (attempt.received_bytes, attempt.longest_gap_s) == (10, 0.0)
