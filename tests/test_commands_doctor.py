"""``gateway doctor``: each fact that will hurt is a finding, and a good one is none."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import doctor, doctor_through
from gateway.commands.doctor_checks import diagnose, seconds_of
from gateway.commands.doctor_facts import Facts, LedgerFacts, ThroughFacts
from gateway.commands.doctor_gather import file_system, ledger_facts, unit_properties
from gateway.config.schema import (
    AdminSettings,
    Config,
    Limits,
    ServerSettings,
    UpstreamLimits,
    User,
)
from tests.conftest import Serve
from tests.kit import settings
from tests.kit.daemon import free_port
from tests.kit.runtime import added, change_elsewhere

UNIT = {
    "LoadState": "loaded",
    "Type": "notify",
    "NotifyAccess": "main",
    "TimeoutStopUSec": "11min",
    "LimitNOFILE": "65536",
    "Restart": "on-failure",
    "KillMode": "mixed",
}
LEDGER = LedgerFacts("/g/gateway.db", "", "ext4", "wal", 1 << 40, 0o600, 0.1)
THROUGH = ThroughFacts("http://x", events=70, arrivals=68, gap_s=0.1, seconds=3.5)
GOOD = Facts(
    config=Config(admin=AdminSettings(token="t")),
    daemon="",
    engine="up",
    ledger=LEDGER,
    unit=UNIT,
    wanted_unit=True,
    clock_synchronized=True,
    socket_modes={"/g/admin.sock": 0o600},
    through=THROUGH,
    accounts={"openai-1": ""},
)
OPEN = ServerSettings(listen=("0.0.0.0:8080",))


def test_a_good_installation_has_no_findings() -> None:
    assert [] == diagnose(GOOD)
    assert [] == diagnose(Facts())  # nothing is known


def ledger(**facts: Any) -> dict[str, Any]:
    return {"ledger": dataclasses.replace(LEDGER, **facts)}


def through(**facts: Any) -> dict[str, Any]:
    return {"through": dataclasses.replace(THROUGH, **facts)}


def config(**sections: Any) -> dict[str, Any]:
    return {"config": Config(**sections)}


@pytest.mark.parametrize(
    ("facts", "part", "said"),
    [
        ({"config": None, "mistakes": ("user[0].name: missing",)}, "config", "user[0]"),
        ({"warnings": ("ledger.url: holds a password",)}, "config", "ledger.url"),
        ({"daemon": "nothing answers"}, "daemon", "systemctl start"),
        ({"engine": "lost"}, "engine", "shared.url"),
        (
            {"engine_problems": ("shared.url: it evicts keys",)},
            *("engine", "it evicts keys"),
        ),
        (ledger(problem="cannot connect"), "ledger", "cannot connect"),
        (ledger(file_system="nfs4"), "ledger", "nfs4"),
        (ledger(journal_mode="delete"), "ledger", "not wal"),
        (ledger(free_bytes=5 << 20), "disk", "5 MiB"),
        (ledger(mode=0o644), "ledger", "chmod 600"),
        (ledger(skew_s=-7.0), "clock", "-7 s"),
        ({"unit": {"LoadState": "not-found"}}, "systemd", "gateway.service"),
        ({"unit": UNIT | {"TimeoutStopUSec": "1min 30s"}}, "systemd", "TimeoutStopSec"),
        ({"unit": UNIT | {"LimitNOFILE": "1024"}}, "systemd", "LimitNOFILE=65536"),
        ({"unit": UNIT | {"NotifyAccess": "none"}}, "systemd", "NotifyAccess=main"),
        ({"unit": UNIT | {"Restart": "no"}}, "systemd", "Restart=on-failure"),
        ({"unit": UNIT | {"KillMode": "control-group"}}, "systemd", "KillMode=mixed"),
        (config(limits=Limits(ping_interval_s=90.0)), "time-outs", "limits is 90"),
        (
            config(user=(User("a", (), ping_interval_s=60.0),)),
            *("time-outs", "user a is 60"),
        ),
        (
            config(upstream=UpstreamLimits(connect_timeout_s=600.0)),
            *("time-outs", "connect_timeout_s"),
        ),
        (
            config(admin=AdminSettings(listen=("0.0.0.0:8081",), token="t")),
            *("admin", "0.0.0.0:8081"),
        ),
        ({"socket_modes": {"/g/admin.sock": 0o666}}, "admin", "chmod 600"),
        (config(server=OPEN), "metrics", "metrics_token"),
        ({"clock_synchronized": False}, "clock", "set-ntp"),
        (through(skew_s=60.0), "clock", "+60 s"),
        (through(arrivals=3, gap_s=1.5), "through http://x", "proxy_buffering off"),
        (through(whole=False), "through http://x", "proxy_read_timeout"),
        (through(status=502, server="nginx"), "through http://x", "nginx answered 502"),
        (through(problem="refused"), "through http://x", "refused"),
        ({"accounts": {"a": "the key is wrong"}}, "account a", "the key is wrong"),
    ],
)
def test_a_bad_fact_is_one_finding(facts: dict[str, Any], part: str, said: str) -> None:
    [finding] = diagnose(dataclasses.replace(GOOD, **facts))

    assert part == finding.part
    assert said in f"{finding.what} {finding.why} {finding.change}"
    assert all(finding)


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        ("1min 30s", 90.0),
        ("11min", 660.0),
        ("1h 1.5s", 3601.5),
        ("500ms", 0.5),
        ("0", 0.0),
        ("infinity", None),
        ("", None),
    ],
)
def test_time_spans_of_systemd(span: str, seconds: float | None) -> None:
    assert seconds == seconds_of(span)


def test_the_ledger_is_looked_at_and_not_made(tmp_path: Path) -> None:
    facts = ledger_facts(Config(), tmp_path)
    assert ("", None) == (facts.problem, facts.journal_mode)
    assert not list(tmp_path.iterdir())

    change_elsewhere(tmp_path, added("carol"))
    facts = ledger_facts(Config(), tmp_path)
    assert ("", "wal", 0o600) == (facts.problem, facts.journal_mode, facts.mode)
    assert facts.free_bytes

    (tmp_path / "gateway.db").write_bytes(b"no database at all" * 100)
    assert ledger_facts(Config(), tmp_path).problem


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    assert "not there" in ledger_facts(Config(), tmp_path / "away").problem


def test_file_systems_have_the_kernels_names() -> None:
    assert "proc" == file_system(Path("/proc/self"))


def test_a_unit_is_asked_for_where_there_is_systemd() -> None:
    found = unit_properties("no-such-unit.service")
    assert found is None or "not-found" == found["LoadState"]


def test_no_daemon_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    listen = [f"127.0.0.1:{free_port()}"]
    path.write_text(settings.config_text(listen=listen, accounts=[settings.TRIAL]))

    assert 1 == doctor.doctor(path, as_json=True)

    found = json.loads(capsys.readouterr().out)["data"]
    assert "daemon" in [one["part"] for one in found]


def test_an_engine_that_is_away_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=[settings.TRIAL])
    url = f"redis://127.0.0.1:{free_port()}"
    path.write_text(f'{text}\n[shared]\nurl = "{url}"\n')

    parts = {one.part for one in diagnose(doctor.gather(path))}

    assert {"engine", "daemon"} <= parts


def test_mistakes_in_the_config_are_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nlisten = 7\n")

    assert 1 == doctor.doctor(path)

    said = capsys.readouterr().out
    assert "server.listen: must be a list" in said
    assert "change: server.listen" in said


# --- a web server between -----------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {upstream}; {rules} }}
  }}
}}
"""
BUFFERS = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on;"


@pytest.mark.skipif(
    not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx"
)
@pytest.mark.parametrize(
    ("rules", "said"),
    [
        pytest.param("", "", id="as-it-is"),
        pytest.param(BUFFERS, "proxy_buffering off", id="buffers"),
        pytest.param("return 403;", "answered 403", id="refuses"),
    ],
)
async def test_a_stream_through_nginx(
    serve: Serve, tmp_path: Path, rules: str, said: str
) -> None:
    gateway = await serve()
    port = free_port()
    file = tmp_path / "nginx.conf"
    file.write_text(
        NGINX.format(folder=tmp_path, port=port, upstream=gateway.base_url, rules=rules)
    )
    nginx = await asyncio.create_subprocess_exec(
        "/usr/sbin/nginx", *("-p", str(tmp_path), "-c", str(file), "-e", "stderr")
    )
    try:
        await listening(port)
        url, key = f"http://127.0.0.1:{port}", settings.key_of("alice")
        seen = await asyncio.to_thread(doctor_through.measure, url, key)
    finally:
        nginx.terminate()
        await nginx.wait()

    found = diagnose(Facts(through=seen))
    assert bool(said) == bool(found), (seen, found)
    assert said in "".join(f"{one.why} {one.change}" for one in found)


async def listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


def test_without_a_key_nothing_is_measured() -> None:
    assert "GATEWAY_API_KEY" in doctor_through.measure("http://127.0.0.1:1", "").problem


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://127.0.0.1:1"])
def test_an_address_that_cannot_be_asked(url: str) -> None:
    assert doctor_through.measure(url, "gw-x").problem
