"""
The programs that take part: built, started on one core, measured, ended.

The upstream and the load generator have the one core, the program under test the
other, so what is measured is one core's worth. CPU time is user and system of the
whole process tree; memory is what the tree alone holds (PSS).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import rivals

HERE = Path(__file__).parent
KEY = "sk-bench"
QUEUE_KEY = "sk-bench-queue"  # its user has one slot
MANY_SLOTS = 10_000
START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
TEST_CORE, TOOL_CORE = "0", "1"

CERTIFICATE = (
    "openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=127.0.0.1 "
    "-addext subjectAltName=IP:127.0.0.1"
)

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
log_format = "json"
drain_timeout_s = 0.0
coalesce_ms = {coalesce_ms}
[limits]
max_concurrent = 10000
max_queued = 10000
queue_timeout_s = 600.0
[upstream]
client_gone_drain_s = 0.0
[ledger]
url = "sqlite:///ledger.db"
[[user]]
name = "bench"
key_sha256 = ["{key}"]
[[user]]
name = "queue"
key_sha256 = ["{queue_key}"]
max_concurrent = 1
[[account]]
name = "scripted"
protocol = "{protocol}"
base_url = "{scheme}://127.0.0.1:{upstream}/v1"
api_key = "env:BENCH_UPSTREAM_KEY"
max_concurrent = {slots}
"""

ADMIN = """
[admin]
listen = ["unix:admin.sock"]
"""

NGINX = """
worker_processes 1; daemon off; error_log stderr error; pid {folder}/nginx.pid;
worker_rlimit_nofile 16000;
events {{ worker_connections 8000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream scripted {{ server 127.0.0.1:{upstream}; keepalive 2048; }}
  server {{
    listen 127.0.0.1:{port} {tls} backlog=4096;
    keepalive_requests 100000000; client_max_body_size 64m;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass {scheme}://scripted; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def build(folder: Path) -> None:
    """Compile the tools into *folder*."""
    for name in ("load", "upstream"):
        source, target = HERE / "tools" / f"{name}.c", folder / name
        subprocess.run(["cc", "-O2", "-o", target, source], check=True)


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a server listens on *port*."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def on_core(core: str) -> list[str]:
    """The prefix of a command that pins it to *core*, if the machine can."""
    can = shutil.which("taskset") and len(os.sched_getaffinity(0)) > 1
    return ["taskset", "-c", core] if can else []


class Program:
    """
    One started program.

    Args:
        environment: besides the present one.
        headers: that every request to it has besides.

    Attributes:
        start_s: from its start to its first accepted connection.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        core: str,
        folder: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name, self.port, self.headers = name, port, headers
        self._log = folder / f"{name}.log"
        own = {"BENCH_UPSTREAM_KEY": "sk-scripted", **environment}
        begun = time.monotonic()
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [*on_core(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **own},
                cwd=HERE.parent,
            )
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() - begun > START_S:
                self.stop()
                raise RuntimeError(f"{name} did not start: {self.output()}")
            time.sleep(0.005)
        self.start_s = time.monotonic() - begun

    def output(self) -> str:
        """Its last lines of output, without those of successful requests."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"outcome":"ok"' not in line][-20:])

    def stop(self) -> None:
        """Stop it and all its children."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_s(self) -> float:
        """Seconds of CPU that it and its children have used so far."""
        ticks = 0
        for pid in tree(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def exact_cpu_s(self) -> float:
        """As ``cpu_s``, in nanoseconds; without threads that have ended."""
        used_ns = 0
        for pid in tree(self.process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                used_ns += int((task / "schedstat").read_text().split()[0])
        return used_ns / 1e9

    def memory_mb(self) -> float:
        """Megabytes that it and its children hold."""
        kib = 0
        for pid in tree(self.process.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
        return kib / 1024

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        finally:
            connection.close()


def tree(pid: int) -> list[int]:
    """*pid* and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            children = (task / "children").read_text().split()
            found += [int(child) for child in children]
    return found


class Upstream(Program):
    """The scripted upstream."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [str(folder / "upstream"), str(port)]
        super().__init__("upstream", command, port, TOOL_CORE, folder)
        self._folder = folder
        self._tls: Program | None = None

    def with_tls(self) -> Program:
        """An nginx before it that speaks TLS; its certificate is ``tls.pem``."""
        if self._tls is None:
            own = self._folder / "tls"
            own.mkdir()
            command = [*CERTIFICATE.split(), "-out", f"{self._folder}/tls.pem"]
            command += ["-keyout", f"{own}/key.pem"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            port = free_port()
            pair = f"{self._folder}/tls.pem; ssl_certificate_key {own}/key.pem"
            facts = {"port": port, "upstream": self.port, "folder": own}
            text = NGINX.format(**facts, scheme="http", tls="ssl")
            (own / "nginx.conf").write_text(
                text.replace("keepalive_req", f"ssl_certificate {pair}; keepalive_req")
            )
            self._tls = Program("tls", nginx(own), port, TOOL_CORE, self._folder)
        return self._tls

    def stop(self) -> None:
        """Stop it, and what speaks TLS before it."""
        if self._tls is not None:
            self._tls.stop()
        super().stop()

    def script(self, path: str, script: bytes) -> None:
        """Play *script* at *path* from now on."""
        self.ask("PUT", path, script)

    def stats(self) -> dict[str, Any]:
        """
        The numbers of streams: started, finished, aborted, active; and ``gap_us``, from
        the end of an answer to the next request where no other is played: count, p50,
        p99.
        """
        found: dict[str, Any] = json.loads(self.ask("GET", "/stats"))
        return found


def start(name: str, upstream: Upstream, folder: Path) -> Program:
    """
    Start a program under test.

    Args:
        name: "nginx", "relay", or "gateway", "gateway-chat", "gateway-messages" (with
            an account of that protocol), "gateway-no-ledger", "gateway-no-tick" (with
            ``server.coalesce_ms = 0``), "gateway-one-slot" (whose account has one
            slot), "gateway-websocket" (whose account is spoken
            to over websockets), "nginx-tls", "gateway-tls" (by TLS to the
            upstream), "gateway-alone" or "gateway-watched" (with an admin side), or
            one of ``rivals.installed()``.
    """
    port = free_port()
    own = folder / name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    environment = {}
    if name in rivals.NAMES:
        made = rivals.rival(name, port, free_port(), upstream.port, own, KEY)
        return Program(name, made.command, port, TEST_CORE, folder, *made[1:])
    upstream_port, scheme = upstream.port, "http"
    if name.endswith("-tls"):
        upstream_port, scheme = upstream.with_tls().port, "https"
        environment = {"SSL_CERT_FILE": str(folder / "tls.pem")}
    if name in ("nginx", "nginx-tls"):
        facts = {"port": port, "upstream": upstream_port, "folder": own}
        (own / "nginx.conf").write_text(NGINX.format(**facts, scheme=scheme, tls=""))
        command = nginx(own)
    elif name == "relay":
        script = HERE / "plain_relay.py"
        command = [sys.executable, str(script), str(port), str(upstream.port)]
    else:
        kind = name.partition("-")[2]
        protocol = kind if kind in ("chat", "messages") else "responses"
        tick_ms = 0.0 if kind == "no-tick" else 1.0
        slots = 1 if kind == "one-slot" else MANY_SLOTS
        text = config(port, upstream_port, protocol, scheme, tick_ms, slots)
        if kind in ("alone", "watched"):
            text += ADMIN
        if kind == "websocket":
            text += 'transport = "websocket"\n'
        (own / "config.toml").write_text(text)
        bare = kind == "no-ledger"
        module = "benchmarks.without_ledger" if bare else "gateway"
        command = [sys.executable, "-m", module, "serve"]
        command += ["--config", str(own / "config.toml")]
    return Program(name, command, port, TEST_CORE, folder, environment)


def config(
    port: int,
    upstream_port: int,
    protocol: str = "responses",
    scheme: str = "http",
    tick_ms: float = 1.0,
    slots: int = MANY_SLOTS,
) -> str:
    """The config of a gateway with one account, whose server is the upstream."""
    return CONFIG.format(
        port=port,
        upstream=upstream_port,
        protocol=protocol,
        scheme=scheme,
        coalesce_ms=tick_ms,
        slots=slots,
        key=hashlib.sha256(KEY.encode()).hexdigest(),
        queue_key=hashlib.sha256(QUEUE_KEY.encode()).hexdigest(),
    )


def nginx(folder: Path) -> list[str]:
    """The command of an nginx whose config is in *folder*."""
    # -e: the log file compiled into nginx may not be writable
    return ["nginx", "-e", "stderr", "-p", f"{folder}", "-c", f"{folder}/nginx.conf"]


def load(port: int, request: bytes, folder: Path, **options: object) -> dict[str, Any]:
    """Run the load generator; see ``tools/load.c`` for *options* and the result."""
    process = load_soon(port, request, folder, **options)
    out, _ = process.communicate(timeout=120)
    result: dict[str, Any] = json.loads(out)
    return result


def load_soon(
    port: int, request: bytes, folder: Path, **options: object
) -> subprocess.Popen[bytes]:
    """Start the load generator; its stdout is the result."""
    path = folder / f"request-{hashlib.sha256(request).hexdigest()[:12]}"
    path.write_bytes(request)
    words = [str(folder / "load"), str(port), str(path)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen([*on_core(TOOL_CORE), *words], stdout=subprocess.PIPE)
