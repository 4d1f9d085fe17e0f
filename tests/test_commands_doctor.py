"""``gateway doctor``: each fact that will hurt is a finding, and a good one is none."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.commands.doctor import command, through
from gateway.commands.doctor.check_unit import seconds_of
from gateway.commands.doctor.facts import (
    ClientFacts,
    DaemonFacts,
    Facts,
    LedgerFacts,
    PastFacts,
    ThroughFacts,
    WayFacts,
)
from gateway.commands.doctor.files import file_system, ledger_facts
from gateway.commands.doctor.findings import diagnose
from gateway.commands.doctor.unit import (
    settings_of,
    shipped_unit,
    unit_properties,
)
from gateway.config.schema import (
    Account,
    AdminSettings,
    Budget,
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
    "UnitFileState": "enabled",
    "Type": "notify",
    "NotifyAccess": "main",
    "TimeoutStopUSec": "11min",
    "LimitNOFILE": "65536",
    "Restart": "on-failure",
    "KillMode": "mixed",
    "WatchdogUSec": "30s",
    "NeedDaemonReload": "no",
    "ExecStart": "{ path=/g/bin/gateway ; argv[]=/g/bin/gateway serve --config "
    "/etc/gateway/config.toml ; ignore_errors=no }",
    "ProtectSystem": "strict",
    "StateDirectory": "gateway",
    "ReadWritePaths": "-/etc/gateway",
    "LoadCredential": "openai:/etc/gateway/credentials/openai",
}
DB = "/var/lib/gateway/gateway.db"
LEDGER = LedgerFacts(DB, "", DB, "ext4", "wal", 1 << 40, 1 << 20, 0o600)
THROUGH = ThroughFacts(
    "https://gateway.example.com",
    events=70,
    arrivals=68,
    gap_s=0.1,
    seconds=3.5,
    upgrades=True,
    certificate_s=80 * 86400.0,
)
OPENAI = Account(
    "openai-1", "https://api.openai.com/v1", "responses", "sk-1", max_concurrent=8
)
TRIAL = Account("trial", "embedded:", models=("trial", "trial-*"))
USED_KEY = {
    "prefix": "1f2e3d4c",
    "label": "laptop",
    "expires_at": None,
    "last_used_at": datetime.now(UTC).isoformat(),
}
SETTINGS = settings_of(shipped_unit())
CODEX = {"base_url": "http://127.0.0.1:8080/v1", "env_key": "GATEWAY_API_KEY"} | {
    "wire_api": "responses"
}
GOOD = Facts(
    config_path="/etc/gateway/config.toml",
    config=Config(admin=AdminSettings(token="t"), account=(OPENAI, TRIAL)),
    absent={"env:OPENAI_API_KEY": "the environment variable … is not set"},
    daemon="",
    inside=DaemonFacts(
        version=__version__,
        engine="up",
        accounts=({"name": "openai-1", "state": "ready", "reason": ""},),
        users=({"name": "alice", "keys": [USED_KEY]},),
        open_files=65536,
    ),
    ledger=LEDGER,
    past=PastFacts(
        requests=1000,
        codes={"queue_timeout": 2},
        absent_models={"typo": 1},
        in_vain={"alice": 2},
        attempts={"openai-1": 990},
        failures={"openai-1": {"upstream_reset": 9}},
        unpriced={"local": 4},
    ),
    unit=UNIT,
    unit_settings=SETTINGS,
    shipped_settings=SETTINGS,
    wanted_unit=True,
    clock_synchronized=True,
    sqlite=(3, 40, 1),
    socket_modes={"/g/admin.sock": 0o600},
    file_modes={"/etc/gateway/config.toml": 0o644, "/etc/gateway/key": 0o600},
    ways={"openai-1": WayFacts(certificate_s=80 * 86400.0)},
    through=THROUGH,
    accounts={"openai-1": ""},
    clients=(ClientFacts("~/.codex/config.toml", "gateway", CODEX),),
)
OPEN = ServerSettings(listen=("0.0.0.0:8080",))
ALICE, BOB = User("alice", ("a",)), User("bob", ("b",))


def test_a_good_installation_has_no_findings() -> None:
    assert [] == diagnose(GOOD)
    assert [] == diagnose(Facts())  # nothing is known


def ledger(**facts: Any) -> dict[str, Any]:
    return {"ledger": dataclasses.replace(LEDGER, **facts)}


def behind(**facts: Any) -> dict[str, Any]:
    return {"through": dataclasses.replace(THROUGH, **facts)}


def inside(**facts: Any) -> dict[str, Any]:
    return {"inside": dataclasses.replace(GOOD.inside, **facts)}


def past(**facts: Any) -> dict[str, Any]:
    return {"past": dataclasses.replace(GOOD.past, **facts)}


def unit(**facts: str) -> dict[str, Any]:
    return {"unit": UNIT | facts}


def config(**sections: Any) -> dict[str, Any]:
    return {"config": Config(**sections)}


def account(**facts: Any) -> dict[str, Any]:
    return config(account=(dataclasses.replace(OPENAI, **facts),))


def codex(**facts: Any) -> dict[str, Any]:
    return {"clients": (ClientFacts("config.toml", "gateway", CODEX | facts),)}


def key(**facts: Any) -> dict[str, Any]:
    return inside(users=({"name": "alice", "keys": [USED_KEY | facts]},))


THROUGH_URL = "through https://gateway.example.com"
SOON = (datetime.now(UTC) + timedelta(days=3)).isoformat()
CREDENTIAL = {"file:$CREDENTIALS_DIRECTORY/azure": "azure cannot be read"}


@pytest.mark.parametrize(
    ("facts", "part", "said"),
    [
        # the config
        ({"config": None, "mistakes": ("user[0].name: missing",)}, "config", "user[0]"),
        ({"warnings": ("ledger.url: holds a password",)}, "config", "ledger.url"),
        (config(limits=Limits(ping_interval_s=90.0)), "time-outs", "limits is 90"),
        (config(limits=Limits(ping_interval_s=25.0)), "time-outs", "Claude Code"),
        (
            config(user=(User("a", (), ping_interval_s=60.0),)),
            *("time-outs", "user a is 60"),
        ),
        (config(limits=Limits(queue_timeout_s=400.0)), "time-outs", "Node gives up"),
        (
            config(upstream=UpstreamLimits(connect_timeout_s=600.0)),
            *("time-outs", "connect_timeout_s"),
        ),
        (
            config(upstream=UpstreamLimits(first_event_timeout_s=20.0)),
            *("time-outs", "first_event_timeout_s = 600"),
        ),
        (
            config(upstream=UpstreamLimits(idle_timeout_s=20.0)),
            *("time-outs", "idle_timeout_s = 180"),
        ),
        (
            config(server=ServerSettings(drain_timeout_s=5.0)),
            *("time-outs", "drain_timeout_s = 600"),
        ),
        (
            config(server=ServerSettings(max_body_bytes=1 << 20)),
            *("limits", "max_body_bytes = 67108864"),
        ),
        (config(limits=Limits(queue_timeout_s=0.0)), "limits", "is ever served"),
        (
            config(
                user=(ALICE, BOB),
                account=(dataclasses.replace(OPENAI, max_concurrent=4),),
            ),
            *("limits", "max_concurrent = 2"),
        ),
        (
            config(user=(User("a", (), budget=Budget(9.0, 5.0)),)) | past(unpriced={}),
            *("limits", "usd_per_day = 0.25"),
        ),
        (
            config(admin=AdminSettings(listen=("0.0.0.0:8081",), token="t")),
            *("admin", "0.0.0.0:8081"),
        ),
        (config(server=OPEN), "metrics", "metrics_token"),
        # the daemon
        ({"daemon": "nothing answers"}, "config", "env:OPENAI_API_KEY"),
        ({"daemon": "nothing answers", "absent": {}}, "daemon", "systemctl start"),
        (
            {"daemon": None, "absent": CREDENTIAL},
            *("config", "LoadCredential=azure:"),
        ),
        (inside(problem="Permission denied"), "daemon", "Permission denied"),
        (inside(version="0.0.1"), "daemon", "gateway restart"),
        (inside(changed=("limits.max_queued",)), "config", "gateway reload"),
        (inside(open_files=1024), "daemon", "ulimit -n 65536"),
        (inside(lines_lost=7), "log", "7 lines"),
        (inside(slots_over=2), "engine", "shared.prefix"),
        (inside(engine="lost"), "engine", "shared.url"),
        (
            {"engine_problems": ("shared.url: it evicts keys",)},
            *("engine", "it evicts keys"),
        ),
        (key(expires_at=SOON), "user alice", "key new --user alice"),
        # the machine
        (ledger(problem="cannot connect"), "ledger", "cannot connect"),
        (ledger(file_system="nfs4"), "ledger", "nfs4"),
        (ledger(file_system="tmpfs"), "ledger", "memory"),
        (ledger(journal_mode="delete"), "ledger", "not wal"),
        (ledger(free_bytes=5 << 20), "disk", "5 MiB"),
        (ledger(free_files=5), "disk", "df -i"),
        (ledger(mode=0o644), "ledger", "chmod 600"),
        (ledger(unwritable=DB) | {"daemon": None, "absent": {}}, "ledger", "owner"),
        (ledger(skew_s=-7.0), "clock", "-7 s"),
        ({"sqlite": (3, 31, 1)}, "ledger", "3.31.1"),
        ({"clock_synchronized": False}, "clock", "set-ntp"),
        ({"socket_modes": {"/g/admin.sock": 0o666}}, "admin", "chmod 600"),
        ({"file_modes": {"/etc/gateway/key": 0o640}}, "config", "chmod 600"),
        ({"file_modes": {"/etc/gateway/config.toml": 0o664}}, "config", "chmod go-w"),
        (codex(wire_api="chat"), "codex", 'wire_api = "responses"'),
        (codex(env_key="gw-1234"), "codex", "name of a variable"),
        (codex(env_key=""), "codex", "env_key is missing"),
        (codex(stream_idle_timeout_ms=9000), "codex", "9000"),
        (codex(base_url="http://h:1/v1/responses"), "codex", '"http://h:1/v1"'),
        # systemd
        ({"unit": {"LoadState": "not-found"}}, "systemd", "gateway.service"),
        (unit(TimeoutStopUSec="1min 30s"), "systemd", "TimeoutStopSec"),
        (unit(LimitNOFILE="1024"), "systemd", "LimitNOFILE=65536"),
        (unit(Type="simple"), "systemd", "Type=notify"),
        (unit(NotifyAccess="none"), "systemd", "NotifyAccess=main"),
        (unit(WatchdogUSec="0"), "systemd", "WatchdogSec=30"),
        (unit(Restart="no"), "systemd", "Restart=on-failure"),
        (unit(KillMode="control-group"), "systemd", "KillMode=mixed"),
        (unit(UnitFileState="disabled"), "systemd", "systemctl enable"),
        (unit(NeedDaemonReload="yes"), "systemd", "daemon-reload"),
        (unit(ReadWritePaths=""), "systemd", "/etc/gateway/admin.sock"),
        (unit(StateDirectory=""), "systemd", DB),
        (
            {"config_path": "/home/me/config.toml", "file_modes": {}},
            *("systemd", "doctor --config /etc"),
        ),
        (
            {"unit_settings": SETTINGS - {"ExecReload", "NoNewPrivileges"}},
            *("systemd", "lacks ExecReload, NoNewPrivileges"),
        ),
        # a web server in front
        (behind(skew_s=60.0), "clock", "+60 s"),
        (behind(arrivals=3, gap_s=1.5), THROUGH_URL, "proxy_buffering off"),
        (behind(encoding="gzip"), THROUGH_URL, "gzip off"),
        (behind(whole=False), THROUGH_URL, "proxy_read_timeout"),
        (behind(status=502, server="nginx"), THROUGH_URL, "nginx answered 502"),
        (behind(problem="refused"), THROUGH_URL, "refused"),
        (
            behind(status=404, code="model_not_found"),
            *(THROUGH_URL, '"embedded:"'),
        ),
        (behind(status=401, direct_status=200), THROUGH_URL, "let Authorization"),
        (behind(status=401, direct_status=401), THROUGH_URL, "does not know the key"),
        (behind(body_limit=(64 << 20) - 1), THROUGH_URL, "client_max_body_size 64m"),
        (behind(upgrades=False), THROUGH_URL, "$http_upgrade"),
        (behind(open_paths=("/metrics",)), THROUGH_URL, "/metrics is open"),
        (behind(url="http://gw.example.com"), "through http://gw.example.com", "443"),
        (behind(certificate_s=86400.0), THROUGH_URL, "ends in 1 days"),
        # accounts
        (
            account(base_url="https://api.openai.com/v1/responses"),
            *("account openai-1", 'base_url = "https://api.openai.com/v1"'),
        ),
        (
            account(base_url="https://models.example.com/v1/v1"),
            *("account openai-1", 'base_url = "https://models.example.com/v1"'),
        ),
        (
            account(base_url="https://api.openai.com"),
            *("account openai-1", 'base_url = "https://api.openai.com/v1"'),
        ),
        (account(protocol="messages"), "account openai-1", 'protocol = "responses"'),
        (
            account(base_url="http://models.example.com/v1"),
            *("account openai-1", 'base_url = "https://models'),
        ),
        (
            config(account=(OPENAI, dataclasses.replace(TRIAL, models=("*",)))),
            *("account trial", '["trial", "trial-*"]'),
        ),
        (
            {"absent": {}}
            | config(account=(OPENAI, dataclasses.replace(OPENAI, name="two"))),
            *("account openai-1", "openai-1 and two"),
        ),
        ({"ways": {"a": WayFacts("name", "not known")}}, "account a", "not known"),
        ({"ways": {"a": WayFacts("connect", "refused")}}, "account a", "firewall"),
        ({"ways": {"a": WayFacts("tls", "expired")}}, "account a", "expired"),
        (
            {"ways": {"a": WayFacts(certificate_s=86400.0)}},
            *("account a", "ends in 1 days"),
        ),
        ({"accounts": {"a": "the key is wrong"}}, "account a", "the key is wrong"),
        (
            inside(accounts=({"name": "a", "state": "cooling", "reason": "refused"},)),
            *("account a", "gateway account reset a"),
        ),
        # the last day
        (past(absent_models={"gpt-9": 40}), "models", 'models = [..., "gpt-9"]'),
        (past(in_vain={"alice": 30}), "limits", "30 of the 1000"),
        (
            past(failures={"openai-1": {"upstream_reset": 400}}),
            *("account openai-1", "400 of its 990"),
        ),
        (past(codes={"crashed": 2}), "requests", "2 of the last day"),
        (
            {
                "config": dataclasses.replace(
                    GOOD.config,
                    user=(User("a", (), budget=Budget(usd_per_day=1.0)),),
                )
            },
            *("budgets", "local 4"),
        ),
    ],
)
def test_a_bad_fact_is_one_finding(facts: dict[str, Any], part: str, said: str) -> None:
    bad = dataclasses.replace(GOOD, **facts)
    if part == "config" and bad.daemon:
        bad = dataclasses.replace(bad, daemon=None)  # that it is away is another
    [finding] = diagnose(bad)

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

    assert 1 == command.doctor(path, as_json=True)

    found = json.loads(capsys.readouterr().out)["data"]
    assert "daemon" in [one["part"] for one in found]


def test_an_engine_that_is_away_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=[settings.TRIAL])
    url = f"redis://127.0.0.1:{free_port()}"
    path.write_text(f'{text}\n[shared]\nurl = "{url}"\n')

    parts = {one.part for one in diagnose(command.gather(path))}

    assert {"engine", "daemon"} <= parts


def test_mistakes_in_the_config_are_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nlisten = 7\n")

    assert 1 == command.doctor(path)

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
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  {servers}
}}
"""
SERVER = """
  server {{
    listen 127.0.0.1:{port};
    {outside}
    location / {{ proxy_pass {upstream}; {inside} }}
  }}
"""
BODY = "client_max_body_size 64m;"
INSIDE = "location ~ ^/(metrics|readyz) { deny all; }"
UPGRADE = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $connection_upgrade;"
)
BUFFERS = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on;"
GZIP = "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;"
WEB_SERVERS = {  # what is said of each: outside of its location, and in it
    "as it should be": (f"{BODY} {INSIDE}", UPGRADE, ""),
    "buffers": (f"{BODY} {INSIDE}", BUFFERS, "proxy_buffering off, $http_upgrade"),
    "small bodies": (INSIDE, UPGRADE, "client_max_body_size 64m"),
    "no upgrade": (f"{BODY} {INSIDE}", "", "$http_upgrade"),
    "open to all": (BODY, UPGRADE, "/metrics is open, /readyz is open"),
    "compresses": (f"{BODY} {INSIDE} {GZIP}", UPGRADE, "gzip off"),
    "takes the key": (
        f"{BODY} {INSIDE}",
        UPGRADE + 'proxy_set_header Authorization "";',
        "let Authorization",
    ),
    "refuses": (BODY, "return 403;", "answered 403"),
}


@pytest.mark.skipif(
    not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx"
)
async def test_streams_through_nginx(serve: Serve, tmp_path: Path) -> None:
    gateway = await serve(limits={"max_concurrent": 20})
    ports = {name: free_port() for name in WEB_SERVERS}
    servers = "".join(
        SERVER.format(port=port, upstream=gateway.base_url, outside=out, inside=within)
        for port, (out, within, _) in zip(ports.values(), WEB_SERVERS.values())
    )
    file = tmp_path / "nginx.conf"
    file.write_text(NGINX.format(folder=tmp_path, servers=servers))
    nginx = await asyncio.create_subprocess_exec(
        "/usr/sbin/nginx", *("-p", str(tmp_path), "-c", str(file), "-e", "stderr")
    )
    listen = (gateway.base_url.removeprefix("http://"),)
    try:
        async with asyncio.TaskGroup() as group:  # a stream takes its time
            tasks = {
                name: group.create_task(measured(port, listen))
                for name, port in ports.items()
            }
    finally:
        nginx.terminate()
        await nginx.wait()

    for name, (_, _, said) in WEB_SERVERS.items():
        found = diagnose(Facts(through=tasks[name].result()))
        words = ", ".join(f"{one.why} {one.change}" for one in found)
        assert bool(said) == bool(found), (name, tasks[name].result(), found)
        assert all(one in words for one in said.split(", ")), (name, words)
        assert len(found) <= 2, (name, found)


async def measured(port: int, listen: tuple[str, ...]) -> ThroughFacts:
    await listening(port)
    url, key = f"http://127.0.0.1:{port}", settings.key_of("alice")
    return await asyncio.to_thread(through.measure, url, key, listen, 64 << 20)


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
    assert "GATEWAY_API_KEY" in through.measure("http://127.0.0.1:1", "").problem


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://127.0.0.1:1"])
def test_an_address_that_cannot_be_asked(url: str) -> None:
    assert through.measure(url, "gw-x").problem
