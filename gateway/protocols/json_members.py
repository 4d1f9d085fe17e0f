"""
The members of a JSON object as the bytes that they are, to change one and no other.

A body is scanned once, whatever is in it: a value is skipped as a whole, mostly by one
match of a pattern, so a text that looks like a member costs no parse. The pattern never
goes back: the first byte of each piece says what it is.

The bytes must be valid JSON; the caller has parsed them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import orjson

_DEPTH = 6  # levels of nesting that one match skips

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = rb"[ \t\n\r]*"


def _inside(depth: int) -> bytes:
    """What may stand between brackets, with up to *depth* levels of them."""
    choices = [rb'[^"\[\]{}]+', _STRING]
    if depth:
        choices.append(rb"[\[{]" + _inside(depth - 1) + rb"[\]}]")
    return rb"(?>" + b"|".join(choices) + rb")*"


_KEY = re.compile(rb"(?>[\s,]*)(?>(" + _STRING + rb"))" + _SPACE + b":" + _SPACE, re.S)
_GAP = re.compile(rb"[\s,]*+")
_PLAIN = re.compile(rb'[^"\[\]{},\s]+|' + _STRING, re.S)
_INSIDE = re.compile(rb"(?>" + _inside(_DEPTH) + rb")", re.S)
_OPENING, _CLOSING = b"[{", b"]}"


Span = tuple[int, int]
"""Where a value begins and ends."""


class Member(NamedTuple):
    """A member of an object: its name, and where its value begins and ends."""

    name: bytes
    start: int
    end: int


def members(
    body: bytes, array: bytes = b"", elements: list[Span] | None = None
) -> Iterator[Member]:
    """
    The members of the object *body*, in order; a name may come twice.

    Args:
        array: the name of a member whose elements are wanted too, where it is a list.
        elements: takes them, by the way: one scan is enough for both.
    """
    at = body.index(b"{") + 1
    while key := _KEY.match(body, at):
        name, start = _name(key[1]), key.end()
        if elements is not None and name == array and body[start] in _OPENING[:1]:
            elements[:] = _elements(body, start)
            last = elements[-1][1] if elements else start + 1
            at = _gap_end(body, last) + 1
        else:
            at = _value_end(body, start)
        yield Member(name, start, at)


def _elements(body: bytes, start: int) -> Iterator[Span]:
    """Where each element of the array at *start* begins and ends."""
    at = _gap_end(body, start + 1)
    while body[at] not in _CLOSING:
        end = _value_end(body, at)
        yield at, end
        at = _gap_end(body, end)


def with_member(body: bytes, name: str, value: bytes) -> bytes:
    """
    The object *body* with *value* at *name*: wherever it has that member, else as its
    first. Every other byte stays.
    """
    pieces, done = [], 0
    for member in named(body, name):
        pieces += [body[done : member.start], value]
        done = member.end
    if pieces:
        return b"".join([*pieces, body[done:]])
    return with_first_member(body, name, value)


def with_known_member(body: bytes, name: str, value: bytes) -> bytes:
    """
    ``with_member`` of an object that is known to have *name*, by two searches where the
    body holds that name once. A scan takes ten times as long.
    """
    spelled = orjson.dumps(name)
    at = body.find(spelled)
    if at < 0 or body.find(spelled, at + 1) >= 0 or b"\\u00" in body:
        return with_member(body, name, value)
    key = _KEY.match(body, at)
    assert key
    return b"".join([body[: key.end()], value, body[_value_end(body, key.end()) :]])


def with_first_member(body: bytes, name: str, value: bytes) -> bytes:
    """The object *body*, which has no member *name*, with one."""
    start = body.index(b"{") + 1
    more = b"," if next(members(body), None) else b""
    return b"".join([body[:start], orjson.dumps(name), b":", value, more, body[start:]])


def named(body: bytes, name: str) -> list[Member]:
    """The members called *name*: mostly one, near the beginning."""
    wanted, found = name.encode(), []
    for member in members(body):
        if member.name == wanted:
            found.append(member)
            if len(found) == 1 and not _is_repeated(body, member.end, name):
                break
    return found


def _is_repeated(body: bytes, end: int, name: str) -> bool:
    """
    Whether another member called *name* is behind *end*. A search, or else a parse,
    finds out many times faster than a scan.
    """
    if body.find(orjson.dumps(name), end) < 0 and body.find(b"\\u00", end) < 0:
        return False
    rest = body[end:].lstrip()
    return rest[:1] == b"," and name in orjson.loads(b"{" + rest[1:])


def _gap_end(body: bytes, start: int) -> int:
    gap = _GAP.match(body, start)
    assert gap
    return gap.end()


def _name(key: bytes) -> bytes:
    return str(orjson.loads(key)).encode() if b"\\" in key else key[1:-1]


def _value_end(body: bytes, start: int) -> int:
    """The offset behind the value that begins at *start*."""
    if plain := _PLAIN.match(body, start):
        return plain.end()
    at, depth = start + 1, 1
    while depth:
        inside = _INSIDE.match(body, at)
        at = inside.end() if inside else at
        # A closing bracket of ours, or an opening one that is too deep for a match.
        depth += 1 if body[at] in _OPENING else -1
        at += 1
    return at
