"""States and sockets between the daemon and systemd, and the shipped units."""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.schema import ServerSettings
from gateway.daemon import systemd
from gateway.daemon.systemd import Notifier, address_text, passed_sockets
from gateway.daemon.worker_pool import MAX_SLEEP_S

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd/gateway.service"


# --- states -----------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Plays systemd: a socket that hears states."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        yield heard


MADE: list[Notifier] = []


@pytest.fixture(autouse=True)
def closed_notifiers() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def notifier_of(environment: dict[str, str]) -> Notifier:
    MADE.append(Notifier(environment))
    return MADE[-1]


def notifier(heard: socket.socket) -> Notifier:
    return notifier_of({"NOTIFY_SOCKET": address_text(heard).removeprefix("unix:")})


def test_the_watchdog_is_fed_with_no_descriptor_left(manager: socket.socket) -> None:
    notifies = notifier(manager)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert notifies.watchdog()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert b"WATCHDOG=1" == manager.recv(100)


def test_each_state_is_one_message(manager: socket.socket) -> None:
    notifies = notifier(manager)
    sent = [notifies.ready(), notifies.watchdog(), notifies.stopping()]
    heard = [manager.recv(4096).decode() for _ in sent]

    assert sent == [True] * 3
    assert heard == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_reloading_says_when(manager: socket.socket) -> None:
    notifier(manager).reloading()

    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096))


def test_an_abstract_socket_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("")  # the kernel picks an abstract name
        heard.settimeout(5)
        address = address_text(heard)

        assert address.startswith("unix:@")
        assert notifier(heard).ready()
        assert b"READY=1" == heard.recv(4096)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="no-systemd"),
        pytest.param({"NOTIFY_SOCKET": ""}, id="empty"),
        pytest.param({"NOTIFY_SOCKET": "relative"}, id="no-absolute-path"),
        pytest.param({"NOTIFY_SOCKET": "/nonexistent/notify"}, id="no-listener"),
    ],
)
def test_without_a_listener_nothing_is_sent(environment: dict[str, str]) -> None:
    assert not notifier_of(environment).ready()


def test_a_full_socket_does_not_hold_up_the_daemon(manager: socket.socket) -> None:
    notifies = notifier(manager)
    sent = [notifies.watchdog() for _ in range(5000)]

    assert (True, False) == (sent[0], sent[-1])


# --- passed sockets ---------------------------------------------------------------


def handed(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that hands a copy of *listener* to this process."""
    monkeypatch.setattr(systemd, "LISTEN_FDS_START", os.dup(listener.fileno()))
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "gateway.socket",
        "OTHER": "kept",
    }


@pytest.mark.parametrize(
    ("family", "where"),
    [
        pytest.param(socket.AF_INET, "127.0.0.1", id="ipv4"),
        pytest.param(socket.AF_INET6, "::1", id="ipv6"),
    ],
)
def test_a_passed_listener_is_taken_with_its_address(
    family: socket.AddressFamily, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((where, 0))
        except OSError as error:
            pytest.skip(f"no {where} here: {error}")
        listener.listen()
        port = listener.getsockname()[1]
        environment = handed(listener, monkeypatch)
        [passed] = passed_sockets(environment)

        with passed.socket:
            shown = f"[{where}]" if ":" in where else where
            assert f"{shown}:{port}" == passed.address
            assert not passed.socket.get_inheritable()
            assert {"OTHER": "kept"} == environment
            assert [] == passed_sockets(environment)


def test_a_passed_unix_listener_is_known_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        [passed] = passed_sockets(handed(listener, monkeypatch))

        with passed.socket:
            assert f"unix:{tmp_path}/s" == passed.address


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"LISTEN_PID": "1"}, id="for-another-process"),
        pytest.param({"LISTEN_PID": ""}, id="no-pid"),
        pytest.param({"LISTEN_FDS": "many"}, id="no-number"),
        pytest.param({"LISTEN_FDS": "0"}, id="none"),
    ],
)
def test_sockets_of_others_are_not_taken(change: dict[str, str]) -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"} | change

    assert [] == passed_sockets(environment)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(socket.SOCK_DGRAM, id="datagrams"),
        pytest.param(socket.SOCK_STREAM, id="does-not-listen"),
    ],
)
def test_what_is_no_listener_is_refused(
    kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, kind) as odd:
        odd.bind(("127.0.0.1", 0))
        environment = handed(odd, monkeypatch)
        with pytest.raises(ValueError, match="not a listening stream"):
            passed_sockets(environment)


CHILD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
from gateway.daemon.systemd import passed_sockets
[passed] = passed_sockets()
connection, _ = passed.socket.accept()
connection.sendall(passed.address.encode())
"""


def test_a_process_serves_on_the_descriptor_that_it_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=ROOT,
        )
        with socket.create_connection(listener.getsockname(), timeout=20) as client:
            heard = client.recv(100).decode()

        assert 0 == child.wait(20)
        assert address_text(listener) == heard


DAEMON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
command = [sys.executable, "-m", "gateway", "serve", "--config", sys.argv[2]]
os.execv(command[0], command)
"""
CONFIG = """
[ledger]
url = "sqlite:///gateway.db"
[[account]]
name = "trial"
base_url = "embedded:"
models = ["trial"]
"""


def states_until(manager: socket.socket, state: str) -> list[str]:
    """The first line of each message, up to *state*."""
    states: list[str] = []
    while state not in states:
        states.append(manager.recv(4096).decode().partition("\n")[0])
    return states


def test_the_daemon_lives_as_its_unit_wants(
    manager: socket.socket, tmp_path: Path
) -> None:
    """On a passed socket: ready, alive, reloading, stopping, gone with status 0."""
    manager.settimeout(30)
    (tmp_path / "config.toml").write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = [str(listener.fileno()), str(tmp_path / "config.toml")]
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, *arguments],
            pass_fds=[listener.fileno()],
            cwd=ROOT,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "1000000",
            },
            stdout=subprocess.PIPE,
        )
    try:
        states = states_until(manager, "READY=1")
        states += states_until(manager, "WATCHDOG=1")
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", "/readyz")
        status = client.getresponse().status
        client.close()
        daemon.send_signal(signal.SIGHUP)
        states += states_until(manager, "RELOADING=1")
        states += states_until(manager, "READY=1")
        daemon.terminate()
        states += states_until(manager, "STOPPING=1")
        output, _ = daemon.communicate(timeout=30)
    finally:
        daemon.kill()
        daemon.communicate()

    assert 200 == status
    assert ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"] == [
        state for state in states if state != "WATCHDOG=1"
    ]
    assert f'"listen":["127.0.0.1:{port}"]'.encode() in output
    assert 0 == daemon.returncode


# --- the shipped units ------------------------------------------------------------


def setting(name: str) -> list[str]:
    """The values of *name* in the unit, in order."""
    found = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return [value.strip() for value in found]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here (Debian: apt-get install systemd)")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=50
    )


def test_the_unit_is_hardened() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    exposure = re.search(r"exposure level for gateway.service: ([\d.]+)", done.stdout)

    assert exposure, done.stderr
    assert float(exposure[1]) <= 2.0


def test_the_units_are_well_formed(tmp_path: Path) -> None:
    for unit in UNIT.parent.iterdir():  # the program stands in /opt once installed
        text = unit.read_text().replace("/opt/gateway/bin/gateway", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / name) for name in ("gateway.service", "gateway.socket")]
    done = analyze("verify", "--man=no", *units)
    complaints = [line for line in done.stderr.splitlines() if "gateway." in line]

    assert [] == complaints
    assert 0 == done.returncode


def test_the_unit_lets_streams_finish_before_it_kills() -> None:
    [stop_s] = setting("TimeoutStopSec")

    assert int(stop_s) > ServerSettings().drain_timeout_s


def test_the_unit_tells_ready_and_alive_and_checks_first() -> None:
    assert ["notify"] == setting("Type")
    assert 4 * MAX_SLEEP_S <= int(setting("WatchdogSec")[0])
    assert " check " in setting("ExecStartPre")[0]
    assert "kill -HUP" in setting("ExecReload")[0]
    assert ["yes"] == setting("DynamicUser")
    assert ["gateway"] == setting("StateDirectory")
    assert ["2"] == setting("RestartPreventExitStatus")
