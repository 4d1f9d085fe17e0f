"""The channel between the parent and a worker, over a real pair of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gateway.daemon.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(sock) for sock in socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_messages_and_beats_come_in_their_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send({"do": "boot"})
    one.beat()
    one.send({"do": "serve", "text": "ä" * 10})

    messages = [received.message for received in other.receive()]
    assert messages == [{"do": "boot"}, None, {"do": "serve", "text": "ä" * 10}]
    assert [] == other.receive()


def test_descriptors_come_with_their_message(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    pipes = [os.pipe() for _ in range(3)]
    one.send({"n": 0})
    one.send({"n": 1}, [pipes[0][1], pipes[1][1]])
    one.send({"n": 2}, [pipes[2][1]])
    for _, writer in pipes:
        os.close(writer)  # what was sent is the receiver's own

    come = other.receive()
    assert [0, 2, 1] == [len(received.fds) for received in come]
    for number, fd in enumerate([*come[1].fds, *come[2].fds]):
        assert not os.get_inheritable(fd)
        os.write(fd, b"x")
        os.close(fd)
        assert b"x" == os.read(pipes[number][0], 9)
        os.close(pipes[number][0])


def test_what_the_peer_does_not_read_waits(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    big = "x" * 2_000_000
    reader, writer = os.pipe()
    one.send({"text": big})
    one.send({"n": 2}, [writer])
    os.close(writer)
    assert one.wants_write
    one.beat()  # words wait, which say as much

    come = []
    while len(come) < 2:
        come += other.receive()
        one.flush()
    assert [{"text": big}, {"n": 2}] == [received.message for received in come]
    assert not one.wants_write
    os.close(come[1].fds[0])
    os.close(reader)


def test_another_program_goes_on_in_the_middle_of_a_frame() -> None:
    ours, theirs = socket.socketpair()
    frame = b'\0\0\0\x07{"n":1}'
    theirs.send(frame[:6])
    first = Channel(ours)
    assert [] == first.receive()
    theirs.send(frame[6:])
    second = Channel(ours, first.unread)

    assert [{"n": 1}] == [received.message for received in second.receive()]
    second.close()
    theirs.close()


def test_the_end_of_the_peer_is_seen_behind_its_last_words(
    ends: tuple[Channel, Channel],
) -> None:
    one, other = ends
    one.send({"n": 1})
    one.close()

    assert [{"n": 1}] == [received.message for received in other.receive()]
    with pytest.raises(EOFError):
        other.receive()
    other.send({"n": 2})  # dropped
    assert not other.wants_write


def test_nonsense_ends_the_channel(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.send(b"\xff\xff\xff\xff")
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()
    theirs.close()
