"""Lines are lost, never waited for; lost lines are counted and reported."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import log_writer
from gateway.telemetry.log_writer import MAX_WAITING_BYTES, WRITE_BYTES, LogWriter

PIPE_BYTES = 4096  # the least that Linux gives a pipe


def notice(lost: int) -> bytes:
    return b'{"lost":%d}\n' % lost


def line(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "text": "x" * size}).encode() + b"\n"


class Reading:
    """What a reader got: the numbers of the lines, and how many were reported lost."""

    def __init__(self, data: bytes) -> None:
        assert data.endswith(b"\n") or not data
        self.lines = [json.loads(one) for one in data.splitlines()]
        self.numbers = [one["n"] for one in self.lines if "n" in one]
        self.reported = sum(one.get("lost", 0) for one in self.lines)

    def is_whole(self, count: int) -> bool:
        """Whether *count* lines are there in order, or reported in their place."""
        at = 0
        for one in self.lines:
            if one.get("n", at) != at:
                return False
            at += one.get("lost", 1)
        return at == count


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A small pipe: the end to read from, the end to write to."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    open_ends = {reader, writer}
    try:
        yield reader, writer
    finally:
        for fd in open_ends:
            try:
                os.close(fd)
            except OSError:
                pass  # the test has closed it


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_in_background(fd: int) -> Callable[[], bytes]:
    """Drain *fd* in a thread; call what is returned for everything up to its end."""
    parts: list[bytes] = []
    thread = threading.Thread(target=lambda: parts.append(read_all(fd)))
    thread.start()

    def result() -> bytes:
        thread.join()
        return parts[0]

    return result


def test_lines_arrive_in_order_and_the_end_waits_for_them() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd, notice)
        got = read_in_background(reader)
        for number in range(2000):
            writer.put(line(number, 50))
        writer.close()
        os.close(fd)

        assert list(range(2000)) == Reading(got()).numbers
    assert 0 == writer.lost


def test_a_reader_that_stands_still_costs_lines_and_nothing_else() -> None:
    """Nothing waits for it; a notice replaces what it missed."""
    with pipe() as (reader, fd):
        writer = LogWriter(fd, notice)
        size = 1000
        count = 2 * (MAX_WAITING_BYTES + WRITE_BYTES) // size
        for number in range(count):
            writer.put(line(number, size))
        lost_at_first = writer.lost
        got = read_in_background(reader)
        writer.close(60.0)
        os.close(fd)

        reading = Reading(got())
    assert lost_at_first == writer.lost == reading.reported > 0
    assert reading.is_whole(count)


def test_what_waits_is_bounded() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd, notice)
        size = 1000
        for number in range(4 * MAX_WAITING_BYTES // size):
            writer.put(line(number, size))
        got = read_in_background(reader)
        writer.close(60.0)
        os.close(fd)
        data = got()

    bound = MAX_WAITING_BYTES + WRITE_BYTES + PIPE_BYTES + 3 * size
    assert MAX_WAITING_BYTES - 2 * size < len(data) <= bound


def test_lines_behind_a_gap_stand_behind_the_line_that_tells_of_it() -> None:
    writer = stepped()
    count = 0
    while not writer.lost:
        writer.put(line(count, 1000))
        count += 1
    taken = writer._take()
    writer.put(line(count))
    while more := writer._take():
        taken += more

    reading = Reading(b"".join(one.data for one in taken))
    assert {"lost": 1} == reading.lines[-2]
    assert reading.is_whole(count + 1)


def test_a_reader_that_is_gone_costs_lines() -> None:
    with pipe() as (reader, fd):
        os.close(reader)
        writer = LogWriter(fd, notice)
        for number in range(5):
            writer.put(line(number))
        writer.close()

        assert 5 == writer.lost


def test_a_new_reader_gets_a_notice_of_what_it_missed(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fd = os.open(path, os.O_WRONLY)
    writer = LogWriter(fd, notice)
    os.close(first)
    for number in range(3):
        writer.put(line(number))
    while writer.lost < 3:
        time.sleep(0.001)
    second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(second, True)
    writer.put(line(3))
    writer.close()
    os.close(fd)
    reading = Reading(read_all(second))
    os.close(second)

    assert [{"lost": 3}, {"n": 3, "text": ""}] == reading.lines


def test_a_full_disk_costs_lines() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(fd, notice)
    for number in range(5):
        writer.put(line(number))
    writer.close()
    os.close(fd)

    assert 5 == writer.lost


def test_without_a_descriptor_every_line_is_lost() -> None:
    writer = LogWriter(None, notice, lost=2)
    writer.put(line(1))
    writer.close()

    assert 3 == writer.lost


def test_a_descriptor_that_somebody_made_non_blocking_gets_every_line() -> None:
    with pipe() as (reader, fd):
        os.set_blocking(fd, False)
        writer = LogWriter(fd, notice)
        for number in range(100):
            writer.put(line(number, 1000))
        got = read_in_background(reader)
        writer.close(60.0)
        os.close(fd)

        assert list(range(100)) == Reading(got()).numbers
    assert 0 == writer.lost


def test_the_end_does_not_wait_for_a_reader_that_stands_still() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd, notice)
        writer.put(line(1, 2 * PIPE_BYTES))
        writer.close(0.05)

        assert writer._thread.is_alive()
        os.set_blocking(reader, False)
        while (
            writer._thread.is_alive()
        ):  # else it would write to the next file of its number
            with suppress(BlockingIOError):
                os.read(reader, 1 << 16)
            writer._thread.join(0.05)


def test_a_line_may_be_made_while_another_is_put() -> None:
    """By a finaliser that fails at just this moment, in the same thread."""

    def making(lost: int) -> bytes:
        writer.put(line(-1))
        return notice(lost)

    with pipe() as (reader, fd):
        writer = LogWriter(fd, making)
        writer._gap = 1
        writer.put(line(1))
        writer.close()
        os.close(fd)

        assert {-1, 1} == set(Reading(read_all(reader)).numbers)


class Disk:
    """A descriptor that takes so many bytes, and then refuses."""

    def __init__(self, moves: list[int | str]) -> None:
        self.data = b""
        self.readers = [b""]  # what each reader of a pipe got
        self._moves = moves

    def write(self, fd: int, data: bytes) -> int:
        move = self._moves.pop(0) if self._moves else len(data)
        if move == "full":
            raise OSError(errno.ENOSPC, "no space left")
        if move == "gone":
            self.readers.append(b"")
            raise OSError(errno.EPIPE, "broken pipe")
        assert isinstance(move, int)
        taken = data[: max(1, move)]
        self.readers[-1] += taken
        return len(taken)


MOVES = st.lists(st.one_of(st.integers(1, 60), st.sampled_from(["full"])), max_size=30)


@given(moves=MOVES, batches=st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_a_disk_that_is_full_now_and_then_holds_whole_lines(
    moves: list[int | str], batches: list[int]
) -> None:
    """Each line is there or is reported lost, however many bytes were taken."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(moves)
        fake: Any = type("os", (), {"write": staticmethod(disk.write)})
        patch.setattr(log_writer, "os", fake)
        writer, put = stepped(), 0
        for batch in batches:
            for _ in range(batch):
                writer.put(line(put))
                put += 1
            writer._write(writer._take())
        moves.clear()  # from now on it takes everything
        writer.put(line(put))
        writer._write(writer._take())

    reading = Reading(disk.readers[0])
    assert reading.is_whole(put + 1)
    assert writer.lost == reading.reported


def test_a_new_reader_of_a_pipe_gets_no_half_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk([5, "gone"])
    monkeypatch.setattr(
        log_writer, "os", type("os", (), {"write": staticmethod(disk.write)})
    )
    writer = stepped()
    writer.put(line(1))
    writer._write(writer._take())
    writer.put(line(2))
    writer._write(writer._take())

    assert [{"lost": 1}, {"n": 2, "text": ""}] == Reading(disk.readers[1]).lines


def stepped() -> LogWriter:
    """A writer without a thread: the test takes and writes."""
    writer = LogWriter(None, notice)
    writer._stopping = False
    writer._fd = 1
    return writer
