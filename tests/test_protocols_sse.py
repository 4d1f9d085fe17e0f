"""Events come out whole, wherever the chunks break."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols import sse
from gateway.protocols.sse import (
    EventScanner,
    EventTooLarge,
    event_finder,
    events,
    field,
    next_telling,
    payload,
)
from tests.kit.counted import CountedBytes

ENDS = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}
BLANK_LINES = [
    pytest.param(first + second, id=f"{a}-{b}")
    for a, first in ENDS.items()
    for b, second in ENDS.items()
    if first + second != "\r\n"  # is one line end
]


def scanned(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """What a scanner hands out for each chunk, and what it keeps."""
    scanner = EventScanner()
    return [scanner.feed(chunk) for chunk in chunks], scanner.rest()


@pytest.mark.parametrize("blank", BLANK_LINES)
def test_an_event_is_whole_at_its_blank_line_at_every_split(blank: str) -> None:
    whole = f"data: one{blank}".encode()
    stream = whole + b"data: tw"
    for split in range(len(stream) + 1):
        out, rest = scanned([stream[:split], stream[split:]])

        assert b"".join(out) + rest == stream
        assert b"".join(out).rstrip(b"\r\n") == b"data: one"


def test_what_arrived_together_leaves_together() -> None:
    stream = b"data: 1\n\ndata: 2\n\n: note\n\n"
    scanner = EventScanner()

    assert scanner.feed(stream) is stream


def test_a_half_event_is_kept() -> None:
    out, rest = scanned([b"data: 1\n\ndata: 2\n", b"data: 3"])

    assert [b"data: 1\n\n", b""] == out
    assert b"data: 2\ndata: 3" == rest


@given(
    st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b"\r\n", b": c", b"\xc3"])),
    st.lists(st.integers(0, 60)),
)
def test_no_byte_is_lost_changed_or_reordered(
    pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(pieces)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in zip(places, places[1:])]
    out, rest = scanned(chunks)

    assert b"".join(out) + rest == stream
    assert b"".join(events(b"".join(out))) == b"".join(out)


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    scanner = EventScanner()
    scanner.feed(b"data: " + b"x" * 80)

    with pytest.raises(EventTooLarge):
        scanner.feed(b"x" * 80)


def test_bytes_one_by_one_cost_no_rescan() -> None:
    """A long event in single bytes must not be searched from its beginning."""
    scanner = EventScanner()
    for _ in range(200_000):
        scanner.feed(b"x")

    assert 200_000 == len(scanner.rest())


@pytest.mark.parametrize(
    ("event", "data"),
    [
        pytest.param(b"data: one\n\n", b"one", id="plain"),
        pytest.param(b"data:one\n\n", b"one", id="no-space"),
        pytest.param(b"data:  one\n\n", b" one", id="one-space-is-taken"),
        pytest.param(b"data: a\r\ndata: b\r\n\r\n", b"a\nb", id="lines-crlf"),
        pytest.param(b"data: a\rdata: b\r\r", b"a\nb", id="lines-cr"),
        pytest.param(b"data\n\n", b"", id="no-colon"),
        pytest.param(b": note\n\n", b"", id="comment"),
        pytest.param(b"event: x\n\n", b"", id="no-data"),
        pytest.param(b"event: x\ndata: y\nid: 1\n\n", b"y", id="other-fields"),
    ],
)
def test_payload_joins_the_data_lines(event: bytes, data: bytes) -> None:
    assert data == payload(event)


LINES = [b"data: a", b"data:b", b"data", b"event: data: c", b"event:d", b"id: e", b":f"]


@given(
    st.lists(st.sampled_from(LINES), max_size=4),
    st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]),
    st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n", b""]),
)
def test_the_usual_form_is_read_like_any_other(
    lines: list[bytes], line_end: bytes, end: bytes
) -> None:
    found = [line[4:] for line in lines if line.startswith(b"data")]
    values = [value.removeprefix(b":").removeprefix(b" ") for value in found]

    assert b"\n".join(values) == payload(line_end.join(lines) + end)


PATTERNS = [re.compile(b"needle"), re.compile(b"ne(?:st|t)")]


@given(
    st.lists(st.sampled_from([b"data: needle", b"nest", b"net\nx", b"y", b"ne\nt"])),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_the_events_with_a_needle_are_found(
    pieces: list[bytes], line_end: bytes
) -> None:
    data = b"".join((piece + b"\n\n").replace(b"\n", line_end) for piece in pieces)
    found, start, hits, at = [], 0, [-1, -1], event_finder(data)
    while (start := next_telling(data, start, PATTERNS, hits, at)) < len(data):
        found.append(at(data, start))
        start += len(found[-1])

    assert found == [
        event for event in events(data) if any(p.search(event) for p in PATTERNS)
    ]


def test_a_cr_behind_a_line_waits_for_its_lf() -> None:
    """The event would else go without its last byte, which came too late."""
    scanner = EventScanner()

    assert b"" == scanner.feed(b"data: 1\r\n\r")
    assert scanner.lacks_lf_alone
    assert b"data: 1\r\n\r\n" == scanner.feed(b"\ndata: 2\r\n")
    assert not scanner.lacks_lf_alone


def test_lines_that_end_in_cr_alone_do_not_wait() -> None:
    assert b"data: 1\r\r" == EventScanner().feed(b"data: 1\r\r")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=list(ENDS))
def test_each_event_is_searched_once(line_end: bytes) -> None:
    """A search that runs to the end of data for each event would be quadratic."""
    event = b"event: x|data: y|id: z||".replace(b"|", line_end)
    data = CountedBytes(event * 1000)

    assert [event] * 1000 == list(events(data))
    assert data.work_bytes < 4 * len(data)


def test_the_last_field_of_a_name_counts() -> None:
    assert b"b" == field(b"event: a\nevent:b\ndata: x\n\n", b"event")
    assert b"" == field(b"data: x\n\n", b"event")
