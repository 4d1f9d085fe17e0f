"""
The package: what ``make dist`` builds is complete, and serves without the checkout.

The wheel is installed into a virtual environment of its own. That borrows its
dependencies from the environment of the tests, so no package index is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import create_engine

import gateway
from gateway.ledger import schema
from tests.kit.daemon import free_port
from tests.kit.greeting import printed_request

ROOT = Path(__file__).parents[1]
NOT_SOURCES = (
    *(".cache", ".git", ".gitignore", ".hypothesis", ".mypy_cache", ".pytest_cache"),
    *(".venv", ".coverage*", "__pycache__", "*.egg-info", "*.db*"),
    *("build", "dist", "mutants"),
)

pytestmark = pytest.mark.timeout(300)


class Built(NamedTuple):
    sources: Path
    archive: Path
    wheel: Path


class Installed(NamedTuple):
    prefix: Path
    folder: Path  # to run in; not in the checkout

    def run(self, *words: str) -> str:
        """What the installed ``gateway WORDS`` prints; it must succeed."""
        done = subprocess.run(
            [self.prefix / "bin/gateway", *words],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


def environment() -> dict[str, str]:
    """Without what leads Python to the checkout."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The two archives, made from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    sources, out = folder / "sources", folder / "out"
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out]
    done = subprocess.run(
        [*command, sources], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [archive], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sources, archive, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    prefix = tmp_path_factory.mktemp("prefix")
    venv.create(prefix, symlinks=True)
    python = prefix / "bin/python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        + ["--no-index", "--no-deps", "--disable-pip-version-check", built.wheel],
        env=environment(),
        check=True,
    )
    [packages] = prefix.glob("lib/python*/site-packages")
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    return Installed(prefix, tmp_path_factory.mktemp("elsewhere"))


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_source_archive_holds_the_whole_checkout(built: Built) -> None:
    with tarfile.open(built.archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert files_in(built.sources) - names == set()


def test_the_wheel_holds_the_package_config_units_and_docs(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    [data] = {name.partition("/")[0] for name in names if ".data/" in name}
    files = files_in(built.sources)
    package = {name for name in files if name.startswith("gateway/")}
    docs = {name for name in files if name.startswith("docs/")}
    docs |= {"LICENSE", *(name for name in files if re.fullmatch(r"\w+\.md", name))}
    units = {name for name in files if name.startswith("systemd/")}
    expected = package | {f"{data}/data/share/doc/gateway/{name}" for name in docs}
    expected |= {f"{data}/data/share/gateway/{n}" for n in {"config.toml", *units}}

    assert {one for one in names if ".dist-info/" not in one} == expected


def test_the_version_is_that_of_the_package(built: Built, installed: Installed) -> None:
    assert f"-{gateway.__version__}-" in built.wheel.name
    assert installed.run("--version").strip() == gateway.__version__


def test_every_command_is_there(installed: Installed) -> None:
    text = installed.run("--help")

    for command in ("serve", "check", "key", "trace", "usage"):
        assert re.search(rf"(?m)^ +{command} ", text)


def test_without_a_config_the_installed_example_is_named(installed: Installed) -> None:
    if Path("/etc/gateway/config.toml").exists():
        pytest.skip("this machine has a config")
    done = subprocess.run(
        [installed.prefix / "bin/gateway", "check"],
        cwd=installed.folder,
        env=environment(),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    example = installed.prefix / "share/gateway/config.toml"
    assert done.stdout == (
        "/etc/gateway/config.toml: cannot be read: No such file or directory"
        f" (an example is {example})\n"
    )


@pytest.fixture
def config(installed: Installed, tmp_path: Path) -> Path:
    """The installed example, on a free port, beside a ledger of the first version."""
    text = (installed.prefix / "share/gateway/config.toml").read_text()
    assert text.count('"127.0.0.1:8080"') == 1
    path = tmp_path / "config.toml"
    for shown in (":8080", ":8081"):
        text = text.replace(shown, f":{free_port()}")
    path.write_text(text)
    engine = create_engine(f"sqlite:///{tmp_path / 'gateway.db'}")
    with engine.begin() as connection:
        schema.upgrade(connection, schema.VERSIONS[0])
    engine.dispose()
    return path


def test_it_serves_the_example_config(installed: Installed, config: Path) -> None:
    """One stream of the trial account; an old ledger is migrated and has its row."""
    assert ": fine" in installed.run("check", "--config", str(config))
    with subprocess.Popen(
        [installed.prefix / "bin/gateway", "serve", "--config", config],
        cwd=installed.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as daemon:
        try:
            assert daemon.stdout
            printed = printed_request(greeting(daemon.stdout))
            request = urllib.request.Request(
                printed.url, data=printed.body, headers=printed.headers
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = response.read()
        finally:
            daemon.terminate()
        daemon.communicate(timeout=30)

    assert daemon.returncode == 0
    assert b"event: response.completed" in answer
    with sqlite3.connect(config.with_name("gateway.db")) as ledger:
        [version] = ledger.execute("select version_num from alembic_version").fetchone()
        rows = ledger.execute("select model, outcome from request").fetchall()
    assert version == schema.NEWEST
    assert rows == [("trial", "ok")]
    assert "trial" in installed.run("usage", "--config", str(config))


def greeting(lines: Iterator[str]) -> str:
    """The printed command among the daemon's lines."""
    for line in lines:
        event = json.loads(line)
        if event["event"] == "server.greeted":
            return str(event["curl"])
    raise AssertionError("the daemon ended without a greeting")


def test_it_runs_from_where_it_is_installed(installed: Installed) -> None:
    done = subprocess.run(
        [installed.prefix / "bin/python", "-c", "import gateway; print(gateway)"],
        cwd=installed.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert f"{installed.prefix}/lib" in done.stdout
