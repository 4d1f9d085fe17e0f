"""What a daemon sets up for its whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.schema import Account, Config
from gateway.daemon import upstream_wiring

ROOT = Path(__file__).parents[1]
LIMIT = """
import resource
from gateway.daemon.process import StartError, raise_file_limit

resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
try:
    print(raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
except StartError as error:
    print(error)
"""
GARBAGE = """
import gc
from gateway.daemon.process import GC_THRESHOLDS, tune_garbage_collection

made = [object() for _ in range(10)]
tune_garbage_collection()
print(gc.get_threshold() == GC_THRESHOLDS, gc.get_freeze_count() > 1000)
"""


def printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=50,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (20, 200, "200 (200, 200)"),
        (16, 16, "16 (16, 16)"),
        (
            *(15, 15),
            "only 15 files may be open (RLIMIT_NOFILE); at least 16 are needed to "
            "start, and two for each request",
        ),
    ],
    ids=["raised", "just-enough", "too-few"],
)
def test_it_may_open_as_many_files_as_the_system_allows(
    soft: int, hard: int, expected: str
) -> None:
    assert printed(LIMIT.format(soft=soft, hard=hard)) == expected


def test_what_the_start_has_made_is_not_collected_again() -> None:
    assert printed(GARBAGE) == "True True"


@pytest.mark.parametrize(
    ("server", "proxy", "made"),
    [
        ("http://127.0.0.1:9", "", 0),
        ("https://api.example.test", "", 1),
        ("http://127.0.0.1:9", "https://proxy.example.test", 1),
    ],
)
async def test_the_authorities_are_read_when_something_speaks_tls(
    monkeypatch: pytest.MonkeyPatch, server: str, proxy: str, made: int
) -> None:
    """And not before the daemon listens: the first connection need not wait."""
    makes: list[int] = []
    monkeypatch.setattr(upstream_wiring, "tls_context", lambda: makes.append(1))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)

    await upstream_wiring.warm_up(Config(account=(Account("one", server),)))

    assert len(makes) == made
