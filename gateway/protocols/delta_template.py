"""
Deltas that are converted without being read: the bytes around their text are known.

The deltas of one part of an answer differ in their text alone, and a text is the same
JSON string in every protocol. So of events that are like the one before, only the
strings are taken, and put between the bytes that the writer has for this part.

    PREFIX text SUFFIX PREFIX text SUFFIX  ─▶  HEAD text TAIL HEAD text TAIL

Rule 1: what comes out is what reading and writing would give, byte for byte, and reader
        and stages are left as that would leave them. Whatever is not certain is read.
Rule 2: a template is made of an event that was read, and holds until another one is
        read: nothing but its own deltas lies between.
Rule 3: each string is whole, not empty, and has no half of a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import orjson

from gateway.protocols.event_json import quote
from gateway.protocols.events import Delta

Note = Callable[[str], object]
"""Takes the text of deltas that were not read."""

Say = Callable[[list[bytes], str], bytes]
"""
Whole events with more deltas of a part, in the client's protocol. Takes what is inside
of their JSON strings, as ``quote`` writes them, and the text of all together.
"""

MAX_TRIES = 16
"""Templates in a row that fit nothing, before a new part begins."""

MAX_FRAME_BYTES = 4096
"""Of a longer event there is no template."""


class Growth(NamedTuple):
    """
    One more delta, and nothing else.

    Attributes:
        note: lets the reader know of more text; None: it keeps nothing of it.
    """

    text: str
    note: Note | None = None


class GrowthReader(Protocol):
    """The part of an ``AnswerReader`` that a template is made with."""

    def growth(self, frame: bytes, event: Delta) -> Growth | None:
        """
        What *frame* would mean if it came next: more of the part of *event*, and
        nothing else, whatever the text; None if it may mean, or change, more.
        """
        ...


# Members that differ from event to event, and that no reader looks at.
_VARYING = (
    (b'"sequence_number":', re.compile(rb'"sequence_number": ?(?:0|[1-9]\d{0,17})')),
    (b'"obfuscation":', re.compile(rb'"obfuscation": ?"[A-Za-z0-9]*"')),
)
_NUL = b"\0"  # is in no JSON
_VARIED = b'"\0"'  # replaces them, and comes from nowhere else

_SPECIAL = bytes(range(32)) + b'"\\'  # a string without them is its own text
_ONE = rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_are_whole = re.compile(rb"%b(?:\x00%b)*" % (_ONE, _ONE)).fullmatch
"""Whether some bytes are strings with NUL between them."""
_seldom_written = re.compile(rb"\\[/u]").search  # ``quote`` has most without an escape


class DeltaTemplate:
    """
    Args:
        prefix, suffix: of an event, around the inside of its string; those of
            ``_VARYING`` that it holds are replaced.
        varying: what finds them.
        notes: what else must know of the text.

    Attributes:
        has_fitted: something was converted with it.
    """

    __slots__ = (
        "has_fitted",
        "_lead",
        "_tail",
        "_prefix",
        "_suffix",
        "_between",
        "_start",
        "_end",
        "_varying",
        "_notes",
        "_say",
    )

    def __init__(
        self,
        prefix: bytes,
        suffix: bytes,
        varying: Sequence[re.Pattern[bytes]],
        notes: Sequence[Note],
        say: Say,
    ) -> None:
        self.has_fitted = False
        # What an event begins and ends with, whatever varies in between.
        self._lead = prefix.partition(_VARIED)[0]
        self._tail = suffix.rpartition(_VARIED)[2]
        self._prefix = prefix
        self._suffix = suffix
        self._between = suffix + prefix
        self._start, self._end = len(prefix), -len(suffix)
        self._varying = varying
        self._notes = notes
        self._say = say

    def convert(self, data: bytes) -> bytes | None:
        """Whole events for the client; None if *data* has to be read."""
        if not (data.startswith(self._lead) and data.endswith(self._tail)):
            return None
        if self._varying:
            if data.find(_NUL) >= 0:
                return None
            for member in self._varying:
                data = member.sub(_VARIED, data)
            if not (data.startswith(self._prefix) and data.endswith(self._suffix)):
                return None
        string = data[self._start : self._end]
        strings = [string] if string.find(b"\n") < 0 else self._strings_in(data)
        joined = string if len(strings) == 1 else b"".join(strings)
        if not (joined and all(strings)):
            return None
        if joined.translate(None, _SPECIAL) != joined:
            return self._convert_escapes(strings)
        try:
            text = joined.decode()
            if len(text) < len(joined) and len(strings) > 1:
                b" ".join(strings).decode()  # each by itself
        except UnicodeDecodeError:
            return None
        return self._write(strings, text)

    def convert_some(self, frames: Sequence[bytes], at: int) -> tuple[int, bytes]:
        """
        The same of events without their blank lines, from *at* on, as far as they look
        alike. Returns how many were converted, and what they have become.
        """
        lead, tail = self._lead, self._tail[:-2]
        alike: list[bytes] = []
        for frame in islice(frames, at, None):
            if not (frame.startswith(lead) and frame.endswith(tail)):
                break
            alike.append(frame)
        converted = self.convert(b"\n\n".join([*alike, b""])) if alike else None
        return (0, b"") if converted is None else (len(alike), converted)

    def _strings_in(self, data: bytes) -> list[bytes]:
        """What is between prefixes and suffixes in *data*; none if it has others."""
        # Searches for much shorter bytes than prefix and suffix are many times as fast.
        events = data.split(b"\n\n")
        events.pop()
        start, end = self._start, self._end + 2
        strings = [event[start:end] for event in events]
        whole = self._prefix + self._between.join(strings) + self._suffix
        return strings if whole == data else []

    def _convert_escapes(self, strings: list[bytes]) -> bytes | None:
        """As ``convert``; some of *strings* are not their own text."""
        joined = _NUL.join(strings)
        if not _are_whole(joined):
            return None
        try:
            texts = texts_of(strings)
        except orjson.JSONDecodeError:
            return None
        if _seldom_written(joined):
            strings = [quote(text)[1:-1] for text in texts]
        return self._write(strings, "".join(texts))

    def _write(self, strings: list[bytes], text: str) -> bytes:
        self.has_fitted = True
        for note in self._notes:
            note(text)
        return self._say(strings, text)


def texts_of(strings: list[bytes]) -> list[str]:
    """The texts of JSON strings, given without their quotes."""
    texts: list[str] = orjson.loads(b'["%b"]' % b'","'.join(strings))
    return texts


def template_of(
    frame: bytes, event: Delta, reader: GrowthReader, notes: Sequence[Note], say: Say
) -> DeltaTemplate | None:
    """
    The template of *frame*, which was read as *event*; None if it cannot be one.

    That the string found is the one that is read is tried with another text in it.

    Args:
        notes: besides the reader's own.
    """
    if len(frame) > MAX_FRAME_BYTES or b"\r" in frame:
        return None
    if not frame.startswith((b"data:", b"event:")):
        return None
    before, string, behind = frame.partition(quote(event.text))
    if not string:  # other servers write all that is not ASCII as escapes
        string = json.dumps(event.text).encode()
        before, string, behind = frame.partition(string)
    if not string or string in behind:
        return None
    other = event.text + "."
    growth = reader.growth(before + quote(other) + behind, event)
    if growth is None or growth.text != other:
        return None
    prefix, suffix = before + b'"', b'"' + behind.removesuffix(b"\n\n") + b"\n\n"
    varying = [member for mark, member in _VARYING if mark in before or mark in behind]
    for member in varying:
        prefix, suffix = member.sub(_VARIED, prefix), member.sub(_VARIED, suffix)
    noted = (*notes, growth.note) if growth.note else notes
    return DeltaTemplate(prefix, suffix, varying, noted, say)
