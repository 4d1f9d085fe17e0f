"""
Other gateways to compare with, where they are installed.

``python -m benchmarks --install`` puts them below ``.cache/benchmark/rivals``. A rival
that is not there, or does not start, is left out of the table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(".cache/benchmark/rivals").absolute()
PACKAGES = {
    "smg": "smg==1.13.0",
    "sglang-router": "sglang-router==0.3.2",
    "litellm": "litellm[proxy]",
}
# A newer @hono/node-server breaks the streams of this version.
PORTKEY = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    "overrides": {"@hono/node-server": "1.13.8"},
}
NAMES = (*PACKAGES, "portkey")
START = "node_modules/@portkey-ai/gateway/build/start-server.js"
LITELLM = """
model_list:
  - model_name: bench-model
    litellm_params:
      model: openai/bench-model
      api_base: "http://127.0.0.1:{upstream}/v1"
      api_key: sk-upstream
litellm_settings: {{num_retries: 0, request_timeout: 600, telemetry: false}}
general_settings: {{master_key: {key}}}
"""
ROUTER = (
    *("--host", "127.0.0.1", "--backend", "openai", "--policy", "round_robin"),
    *("--disable-retries", "--disable-circuit-breaker", "--history-backend", "none"),
    *("--log-level", "error", "--max-concurrent-requests", "-1"),
)


class Rival(NamedTuple):
    """
    Attributes:
        headers: that every request to it has besides.
    """

    command: list[str]
    environment: dict[str, str]
    headers: dict[str, str]


def installed() -> set[str]:
    """The names of the rivals that are there."""
    found = {name for name in PACKAGES if _program(name).exists()}
    if (FOLDER / "portkey" / START).exists() and shutil.which("node"):
        found.add("portkey")
    return found


def install() -> None:
    """Install what is missing; what cannot be is named and left out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, package in PACKAGES.items():
        if name not in installed():
            own = FOLDER / name
            pip = [str(own / "bin" / "pip"), "install", "-q", package]
            _try(name, [sys.executable, "-m", "venv", str(own)], pip)
    if "portkey" not in installed():
        own = FOLDER / "portkey"
        own.mkdir(exist_ok=True)
        (own / "package.json").write_text(json.dumps(PORTKEY))
        _try("portkey", ["npm", "install", "--prefix", str(own), "--no-audit"])


def _try(name: str, *commands: list[str]) -> None:
    print(f"installing {name}", file=sys.stderr)
    try:
        for command in commands:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr)


def rival(
    name: str, port: int, other_port: int, upstream: int, folder: Path, key: str
) -> Rival:
    """
    How *name* is started.

    Args:
        other_port: for its metrics.
        upstream: the port of the upstream.
        folder: for its config.
        key: that the clients send.
    """
    url = f"http://127.0.0.1:{upstream}"
    if name == "portkey":
        command = ["node", str(FOLDER / name / START), "--headless", f"--port={port}"]
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{url}/v1"}
        return Rival(command, {"NODE_ENV": "production"}, headers)
    if name == "litellm":
        path = folder / "litellm.yaml"
        path.write_text(LITELLM.format(upstream=upstream, key=key))
        command = [str(_program(name)), "--config", str(path), "--num_workers", "1"]
        quiet = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
        alone = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        place = ["--host", "127.0.0.1", "--port", str(port)]
        path_of = {"PATH": f"{_program(name).parent}{os.pathsep}{os.environ['PATH']}"}
        return Rival([*command, *place], {**quiet, **alone, **path_of}, {})
    start = {
        "smg": [str(_program("smg")), "launch"],
        "sglang-router": [
            str(FOLDER / "sglang-router" / "bin" / "python"),
            *("-m", "sglang_router.launch_router"),
        ],
    }[name]
    ports = ["--port", str(port), "--prometheus-port", str(other_port)]
    return Rival([*start, *ROUTER, *ports, "--worker-urls", url], {}, {})


def _program(name: str) -> Path:
    program = {"sglang-router": "python"}.get(name, name)
    return FOLDER / name / "bin" / program
