"""The request that a daemon without users prints at its start, obeyed word by word."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple


class PrintedRequest(NamedTuple):
    """A POST, as curl would send it."""

    url: str
    headers: dict[str, str]
    body: bytes


def printed_request(curl: str) -> PrintedRequest:
    """The request of the command line *curl*; the file of its body is read."""
    program, no_buffer, url, *options = shlex.split(curl)
    assert (program, no_buffer) == ("curl", "-N")
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for name, value in pairs if name == "-H")
    [body] = [value.removeprefix("@") for name, value in pairs if name == "-d"]
    return PrintedRequest(url, headers, Path(body).read_bytes())
