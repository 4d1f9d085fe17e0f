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
Rule 3: it fits whole reads. Each string in them is whole, not empty, and has no half of
        a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
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

_PLAIN = rb'[^"\\\x00-\x1f]'
_CANONICAL = rb'\\["\\bfnrt]'  # escapes that ``quote`` writes
_ANY = rb'\\(?:["\\/bfnrt]|u(?![dD])[0-9a-fA-F]{4})'


def _strings(escape: bytes = b"") -> Callable[[bytes], object]:
    """What finds that all of some bytes is strings, none empty, with NUL between."""
    one = b"%b+" % _PLAIN
    if escape:
        one = b"(?:%b|%b)%b*(?:%b%b*)*" % (_PLAIN, escape, _PLAIN, escape, _PLAIN)
    return re.compile(b"%b(?:\\x00%b)*" % (one, one)).fullmatch


_are_plain = _strings()
_are_canonical = _strings(_CANONICAL)
_are_whole = _strings(_ANY)


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
        self._prefix = prefix
        self._suffix = suffix
        self._between = suffix + prefix
        self._start, self._end = len(prefix), -len(suffix)
        self._varying = varying
        self._notes = notes
        self._say = say

    def convert(self, data: bytes) -> bytes | None:
        """Whole events for the client; None if *data* has to be read."""
        strings = self._strings_in(data)
        joined = _NUL.join(strings)
        try:
            text = joined.decode()
        except UnicodeDecodeError:
            return None
        if _are_plain(joined):
            if len(strings) > 1:
                text = text.replace("\0", "")
        elif _are_whole(joined):
            texts = texts_of(strings)
            text = "".join(texts)
            if not _are_canonical(joined):
                strings = [quote(text)[1:-1] for text in texts]
        else:
            return None
        self.has_fitted = True
        for note in self._notes:
            note(text)
        return self._say(strings, text)

    def _strings_in(self, data: bytes) -> list[bytes]:
        """What is between prefixes and suffixes in *data*; none if it has others."""
        if data.find(_NUL) >= 0:
            return []
        for member in self._varying:
            data = member.sub(_VARIED, data)
        prefix, suffix, start, end = self._prefix, self._suffix, self._start, self._end
        if not (data.startswith(prefix) and data.endswith(suffix)):
            return []
        string = data[start:end]
        if string.find(b"\n") < 0:
            return [string]
        # Searches for much shorter bytes than prefix and suffix are many times as fast.
        events = data.split(b"\n\n")
        events.pop()
        end += 2
        strings = [event[start:end] for event in events]
        whole = prefix + self._between.join(strings) + suffix
        return strings if whole == data else []


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
