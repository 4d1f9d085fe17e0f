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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEY = "sk-bench"
QUEUE_KEY = "sk-bench-queue"  # its user has one slot
TICKS = os.sysconf("SC_CLK_TCK")
TEST_CORE, TOOL_CORE = "0", "1"

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
log_format = "json"
drain_timeout_s = 0.0
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
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "env:BENCH_UPSTREAM_KEY"
max_concurrent = 10000
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
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 100000000; client_max_body_size 64m;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass http://scripted; proxy_http_version 1.1; proxy_buffering off;
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


def on_core(core: str) -> list[str]:
    """The prefix of a command that pins it to *core*, if the machine can."""
    can = shutil.which("taskset") and len(os.sched_getaffinity(0)) > 1
    return ["taskset", "-c", core] if can else []


class Program:
    """
    One started program.

    Attributes:
        start_s: from its start to its first accepted connection.
    """

    def __init__(
        self, name: str, command: list[str], port: int, core: str, folder: Path
    ) -> None:
        self.name, self.port = name, port
        self._log = folder / f"{name}.log"
        environment = {**os.environ, "BENCH_UPSTREAM_KEY": "sk-scripted"}
        begun = time.monotonic()
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [*on_core(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=HERE.parent,
            )
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() - begun > 30:
                self.stop()
                raise RuntimeError(f"{name} did not start: {self.output()}")
            time.sleep(0.005)
        self.start_s = time.monotonic() - begun

    def output(self) -> str:
        """Its last lines of output, without those of successful requests."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"outcome":"ok"' not in line][-20:])

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

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

    def script(self, path: str, script: bytes) -> None:
        """Play *script* at *path* from now on."""
        self.ask("PUT", path, script)

    def stats(self) -> dict[str, int]:
        """The numbers of streams: started, finished, aborted, active."""
        found: dict[str, int] = json.loads(self.ask("GET", "/stats"))
        return found


def start(name: str, upstream: Upstream, folder: Path) -> Program:
    """
    Start a program under test.

    Args:
        name: "nginx", "relay", or "gateway", "gateway-chat", "gateway-messages" (with
            an account of that protocol), "gateway-no-ledger".
    """
    port = free_port()
    own = folder / name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    facts: dict[str, Any] = {"port": port, "upstream": upstream.port, "folder": own}
    if name == "nginx":
        (own / "nginx.conf").write_text(NGINX.format(**facts))
        # -e: the log file compiled into nginx may not be writable
        command = ["nginx", "-e", "stderr", "-p", f"{own}", "-c", f"{own}/nginx.conf"]
    elif name == "relay":
        script = HERE / "plain_relay.py"
        command = [sys.executable, str(script), str(port), str(upstream.port)]
    else:
        kind = name.partition("-")[2]
        facts["protocol"] = kind if kind in ("chat", "messages") else "responses"
        facts["key"] = hashlib.sha256(KEY.encode()).hexdigest()
        facts["queue_key"] = hashlib.sha256(QUEUE_KEY.encode()).hexdigest()
        (own / "config.toml").write_text(CONFIG.format(**facts))
        bare = kind == "no-ledger"
        module = "benchmarks.without_ledger" if bare else "gateway"
        command = [sys.executable, "-m", module, "serve"]
        command += ["--config", str(own / "config.toml")]
    return Program(name, command, port, TEST_CORE, folder)


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
