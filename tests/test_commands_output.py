"""Output that cannot be written ends a command with one line, not with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands.output import OutputError, checked_output

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "check": "check --config {config}",
    "mistakes": "check --config {folder}/none.toml",
    "key": "key new",
    "usage": "usage --config {config}",
    "usage-csv": "usage --csv --config {config}",
    "trace": "trace --config {config}",
    "help": "--help",
    "help-of-one": "usage --help",
    "version": "--version",
}
each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and the ledger of a daemon that has run."""
    folder = tmp_path_factory.mktemp("output")
    path = folder / "config.toml"
    path.write_text('[[account]]\nname = "a"\nbase_url = "embedded:"\n')
    from gateway.ledger.database import Database

    database = Database("sqlite:///gateway.db", folder)
    database.prepare()
    database.dispose()
    return folder


def run(command: str, folder: Path, stdout: int) -> subprocess.CompletedProcess[str]:
    words = command.format(config=folder / "config.toml", folder=folder).split()
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=50,
    )


@pytest.fixture
def full() -> Iterator[int]:
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


@each_command
def test_a_full_disk_is_one_line_and_status_1(
    folder: Path, full: int, command: str
) -> None:
    done = run(command, folder, full)

    expected = "gateway: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


@each_command
def test_a_reader_that_has_left_is_no_failure(folder: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(command, folder, writer)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_is_one_line_and_status_1(folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m gateway key new >&-', sys.executable],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=50,
    )

    expected = "gateway: cannot write the output: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_what_the_output_cannot_encode_is_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--config", f"{tmp_path}/é.toml"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=50,
    )

    assert (done.returncode, done.stderr) == (2, "")
    assert "\\xe9.toml: cannot be read" in done.stdout


def test_the_failure_of_another_file_is_not_taken_for_the_outputs() -> None:
    with pytest.raises(OSError, match="another file"), checked_output():
        raise OSError(28, "another file")


def test_a_large_output_fails_before_its_end(
    monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    with open(full, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputError, match="No space left"), checked_output():
            print("x" * 1_000_000)
            raise AssertionError("written")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, full)  # what is buffered is written at the close
        os.close(null)
