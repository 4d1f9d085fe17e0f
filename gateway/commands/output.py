"""
The standard output of a command, whose failures end the command properly.

Rule 1: output that cannot be written is one line on stderr and exit status 1.
Rule 2: a reader that has had enough, such as ``| head``, is no failure.
Rule 3: a failure of another file that the command uses is not taken for it.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO, cast


class OutputError(Exception):
    """Standard output cannot be written; ``number`` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class CheckedOutput:
    """
    *stream*, whose writes raise ``OutputError`` where they fail.

    Args:
        stream: None where the process was started with a closed descriptor.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _output_errors():
            if self._stream is None:
                raise OSError(errno.EBADF, "closed")
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            if self._stream is not None:
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno or errno.EIO) from error


@contextmanager
def checked_output() -> Iterator[None]:
    """
    Check what the block prints, also what is still buffered at its end.

    Raises:
        OutputError: it could not be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    output = CheckedOutput(sys.stdout)
    with redirect_stdout(cast(TextIO, output)):
        try:
            yield
        finally:
            output.flush()


def report(error: OutputError) -> int:
    """Say on stderr that the output failed; returns the command's exit status."""
    _discard_output()
    if error.number == errno.EPIPE:
        return 0
    with suppress(OSError):
        print(f"gateway: cannot write the output: {error}", file=sys.stderr)
    return 1


def _discard_output() -> None:
    """Keep the interpreter, at its exit, from failing at what is still buffered."""
    if sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def interrupted() -> int:
    """End a command whose operator pressed Ctrl-C; the status that shells expect."""
    with suppress(OSError):
        print(file=sys.stderr)
    return 128 + signal.SIGINT
