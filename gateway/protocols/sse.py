"""
Cut a byte stream into whole Server-Sent Events, wherever the chunks break.

A half-received event is never handed out, so a caller that writes only what came from
here can stop between any two writes and still leave a well-formed stream. Bytes pass as
they are: line ends, comments, unknown fields, a leading byte order mark.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

MAX_EVENT_BYTES = 32 * 1024 * 1024

# A blank line is a line end directly after a line end. The groups are atomic: CRLF
# is one line end, never a CR and an LF.
_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
# As numbers: an index costs a third of a slice, and to look for bytes with "in" costs
# CPython an exception first.
_LF, CR = b"\n\r"

Needle = re.Pattern[bytes]
"""
What an event is searched for. It should begin with as much fixed text as it can: a
pattern is then found as fast as a plain string, whatever alternatives follow.
"""


def is_plain(data: bytes, heads: tuple[bytes, ...], start: int, end: int) -> bool:
    """
    Whether *data* from *start* to *end* is one event, up to its blank line in LF, that
    begins with one of *heads*.
    """
    return (
        data.startswith(heads, start)
        and data.find(b"\n\n", start) == end - 2
        and data.find(b"\r", start, end) < 0
    )


class EventTooLarge(Exception):
    """One event is larger than ``MAX_EVENT_BYTES``."""


class EventScanner:
    """
    Hold back what is not yet a whole event.

    ``feed`` hands out all bytes up to the last blank line seen so far. The common
    case, a chunk that ends with its blank line, costs one comparison and no copy.

    A CR behind a line that ended in LF waits for the next byte: it is mostly the first
    half of a CRLF, and an event that went without its LF could not be taken out, or
    be the last, byte for byte.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: Final = bytearray()  # of an event that is not finished

    def feed(self, chunk: bytes) -> bytes:
        """
        The whole events that *chunk* completes, ``b""`` for none.

        Raises:
            EventTooLarge: when the unfinished event outgrows ``MAX_EVENT_BYTES``.
        """
        held = self.held
        if not held and chunk.endswith(b"\n\n"):
            return chunk
        seen = len(held)
        held += chunk
        end = _last_blank_line(held, max(0, seen - 2))
        if not end:
            if len(held) > MAX_EVENT_BYTES:
                raise EventTooLarge
            return b""
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def rest(self) -> bytes:
        """What has come of an event that was never finished."""
        return bytes(self.held)

    @property
    def lacks_lf_alone(self) -> bool:
        """Whether the rest is a whole event, but for the LF that may follow its CR."""
        return self.held.endswith(b"\n\r")


def _last_blank_line(data: bytearray, start: int) -> int:
    """The offset behind the last blank line at or after *start*, 0 for none."""
    end = data.rfind(b"\n\n", start) + 2
    size = len(data)
    # Behind the last byte of the pair there must be another, which may be its LF.
    for pair, before in ((b"\n\r", size - 1), (b"\r\r", size)):
        found = data.rfind(pair, start, before) + 2
        if found > end:
            end = found + (data[found : found + 1] == b"\n")
    return end if end > 1 else 0


def events(data: bytes) -> Iterator[bytes]:
    """The single events of *data*, each with its blank line."""
    start, size, at = 0, len(data), event_finder(data)
    while start < size:
        event = at(data, start)
        yield event
        start += len(event)


EventAt = Callable[[bytes, int], bytes]
"""Gives the event that begins at an offset, with its blank line."""


def event_finder(data: bytes) -> EventAt:
    """
    How the events of *data* are found: a search for LF would run to the end of data
    that has none, once for each event.
    """
    return _event_with_cr if CR in data else _event_at


def _event_at(data: bytes, start: int) -> bytes:
    # Most events have one or two lines, and of these the second may be long: a search
    # for one byte is many times faster than one for two.
    try:
        end = data.index(b"\n", start) + 1
        if data[end] != _LF:
            end = data.index(b"\n", end) + 1
            if data[end] != _LF:
                end = data.index(b"\n\n", end) + 1
        return data[start : end + 1]
    except (ValueError, IndexError):
        return data[start:]


def _event_with_cr(data: bytes, start: int) -> bytes:
    blank = _BLANK_LINE.search(data, start)
    return data[start : blank.end()] if blank else data[start:]


def next_telling(
    data: bytes,
    start: int,
    needles: Sequence[Needle],
    hits: list[int],
    event_at: EventAt,
) -> int:
    """
    Where, from *start* on, the next event begins in which one of *needles* is found;
    the end of *data* for none.

    Args:
        hits: up to where each of *needles* has been looked for, at first -1; it is kept
            up here. Behind the first one that is found none is looked for: the event
            there may be as large as the whole answer.
        event_at: the ``event_finder`` of *data*.
    """
    hit = size = len(data)
    for index, needle in enumerate(needles):
        if hits[index] < start:
            found = needle.search(data, start, hit)
            hits[index] = found.start() if found else hit
        if hits[index] < hit:
            hit = hits[index]
    return size if hit == size else _event_start(data, start, hit, event_at)


def _event_start(data: bytes, start: int, within: int, event_at: EventAt) -> int:
    """Where the event begins that holds the offset *within*; *start* begins one."""
    if data.find(b"\r", start, within) < 0:
        blank_line = data.rfind(b"\n\n", start, within)
        return start if blank_line < 0 else blank_line + 2
    while (end := start + len(event_at(data, start))) <= within:
        start = end
    return start


def payload(event: bytes) -> bytes:
    """The data of one *event*, its lines joined by LF; ``b""`` if it has none."""
    # The usual form, a data line alone or behind the event's name, is one slice.
    start = event.find(b"\n") + 7 if event.startswith(b"event:") else 6
    if (
        event[start - 6 : start] == b"data: "
        and event.find(b"\n", start) == len(event) - 2
        and event.endswith(b"\n\n")
        and CR not in event
    ):
        return event[start:-2]
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in _lines(event)
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines)


def field(event: bytes, name: bytes) -> bytes:
    """The last value of the field *name* in one *event*, ``b""`` if there is none."""
    value = b""
    for line in _lines(event):
        if line.startswith(name + b":"):
            value = line[len(name) + 1 :].removeprefix(b" ")
    return value


def _lines(event: bytes) -> list[bytes]:
    return _LINE_END.split(event) if CR in event else event.split(b"\n")
