"""Listening sockets: one daemon per address, and only its own file is removed."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.daemon import listeners as listening
from gateway.daemon.listeners import ListeningSocket, listen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sock"


@pytest.fixture
def live(path: Path) -> Iterator[ListeningSocket]:
    [listener] = listen(f"unix:{path}")
    yield listener
    listener.close()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_live_unix_socket_is_not_taken_over(
    path: Path, live: ListeningSocket
) -> None:
    with pytest.raises(OSError) as caught:
        listen(f"unix:{path}")

    assert errno.EADDRINUSE == caught.value.errno
    assert answers(path)


def test_a_listener_with_a_full_backlog_is_alive(path: Path) -> None:
    """It neither refuses nor accepts: a probe that waited would wait for ever."""
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            with pytest.raises(OSError) as caught:
                listen(f"unix:{path}")

    assert errno.EADDRINUSE == caught.value.errno


def test_a_stale_unix_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    [listener] = listen(f"unix:{path}")

    assert f"unix:{path}" == listener.address
    assert answers(path)
    listener.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "datagrams"])
def test_what_is_no_listener_stays(path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        if kind == "datagrams":
            other.bind(str(path))
        elif kind == "file":
            path.write_text("precious")
        else:
            path.mkdir()
        with pytest.raises(OSError):
            listen(f"unix:{path}")

        assert path.exists()


def test_another_ones_socket_is_not_removed_at_the_end(path: Path) -> None:
    [first] = listen(f"unix:{path}")
    path.unlink()
    [second] = listen(f"unix:{path}")
    first.close()

    assert answers(path)
    second.close()
    assert not path.exists()
    second.close()  # a second time it does nothing


def test_of_many_that_start_at_once_one_wins(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    won: list[ListeningSocket] = []
    lost: list[OSError] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            won.extend(listen(f"unix:{path}"))
        except OSError as error:
            lost.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1, 7) == (len(won), len(lost))
    assert answers(path)
    won[0].close()


def test_a_tcp_port_belongs_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    [first] = listen("127.0.0.1:0")
    with pytest.raises(OSError) as caught:
        listen(first.address)

    assert errno.EADDRINUSE == caught.value.errno
    first.close()
    [again] = listen(first.address)
    again.close()


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """And if one of them cannot be had, none is kept."""
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(listening.socket, "getaddrinfo", lambda *_, **__: both)
    found = listen("both.test:0")
    assert ["127.0.0.1", "127.0.0.2"] == [
        one.address.partition(":")[0] for one in found
    ]
    for one in found:
        one.close()
    both[1] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        listen("both.test:0")

    assert open_before == len(os.listdir("/proc/self/fd"))
