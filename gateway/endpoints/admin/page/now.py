"""The view Now: who runs, who waits, and how the accounts are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.endpoints.admin.page.text import number, seconds


def now_values(status: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``now.html``."""
    return {
        "process": process_line(status),
        "figures": [
            {"name": "running", "value": number(status["running"])},
            {"name": "waiting", "value": number(status["waiting"])},
        ],
    }


def process_line(status: Mapping[str, Any]) -> str:
    """What serves, and for how long."""
    workers = status["workers"]
    words = [f"version {status['version']}", f"up {seconds(status['uptime_s'])}"]
    if workers != 1:
        words.append(f"{number(workers)} workers")
    if status["engine"] == "lost":
        words.append("the engine is lost: this host goes on with its share")
    if status["draining"]:
        words.append("draining: it takes nothing new")
    return ", ".join(words)
