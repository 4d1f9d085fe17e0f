"""Why a request went as it did: one sentence for each thing that was recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from gateway.ledger.narrative import MAX_POSITIONS, sentences
from gateway.ledger.report import RequestHistory
from gateway.ledger.spans import Span, spans_of
from gateway.record import TimelineMark

NOON = datetime(2026, 11, 24, 12, 0, 0)


def history(*marks: tuple[Any, ...], **row: Any) -> RequestHistory:
    """A request that went well; each mark is (seconds, event, facts)."""
    request = {
        "started_at": NOON,
        "user": "alice",
        "account": "a",
        "outcome": "ok",
        "origin": "",
        "error_code": "",
        "status": 200,
        "dropped": "",
        **row,
    }
    found = [TimelineMark(at, event, dict(*facts)) for at, event, *facts in marks]
    return RequestHistory(request, [{"status": 0}, {"status": 529}], found)


WHOLE = "The client got the whole answer."


def test_a_request_that_met_nothing_has_one_sentence() -> None:
    assert [
        "Attempt 1, at a, gave its first output after 250 ms.",
        WHOLE,
    ] == sentences(
        history(
            (0.0, "received"),
            (0.0, "granted", {"account": "a"}),
            (0.25, "first_output"),
            (0.5, "terminal"),
        )
    )


@pytest.mark.parametrize(
    ("rejected", "sentence"),
    [
        (["b", "refused"], "b was left alone: it had refused its credential."),
        (
            ["b", "overloaded", 5.0, False],
            "b was left alone until 12:00:15 UTC: it was overloaded.",
        ),
        (
            ["b", "rate_limited", 60.0, True],
            "b was left alone until 12:01:10 UTC, the time that it gave itself:"
            " it had limited the rate.",
        ),
        (["b", "a new one"], "b was left alone: a new one."),
    ],
)
def test_an_account_that_is_left_alone_says_why(rejected: Any, sentence: str) -> None:
    chosen = {"tiers": [["a"]], "rejected": [rejected, ["c", "tried"]]}
    marks = [(10.0, "chosen", chosen), (11.0, "chosen", chosen)]
    assert [sentence, WHOLE] == sentences(history(*marks))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"scope": "user"}, "Waited 2.0 s for a slot of user alice."),
        (
            {"scope": "user", "taken": [["alice", 3, [["alice", 3]]]]},
            "Waited 2.0 s for a slot of user alice, whose 3 slots were all taken.",
        ),
        ({"scope": "account"}, "Waited 2.0 s for a slot of an account."),
        (
            {"scope": "account", "taken": [["a", 2, [["bob", 2]]], ["b", 0, []]]},
            "Waited 2.0 s for a slot of a or b: bob held 2 of the 2 slots of a.",
        ),
    ],
)
def test_a_wait_says_for_what_and_for_whom(
    facts: dict[str, Any], sentence: str
) -> None:
    marks = [
        (1.0, "queued", facts),
        (2.0, "position_shown", {"position": 1}),
        (3.0, "granted", {"account": "a"}),
    ]
    assert sentence == sentences(history(*marks))[0]


def test_a_wait_that_never_ended_lasts_to_the_end() -> None:
    marks = [
        (1.0, "queued", {"scope": "user"}),
        (31.0, "refused", {"code": "queue_timeout", "message": "Too many"}),
    ]
    facts = {"outcome": "refused", "origin": "gateway", "error_code": "queue_timeout"}
    assert [
        "Waited 30.0 s for a slot of user alice.",
        "The client was refused with HTTP 429 (queue_timeout), caused by the gateway:"
        ' "Too many".',
    ] == sentences(history(*marks, status=429, **facts))


def test_attempts_that_failed_are_counted_and_say_what_they_met() -> None:
    marks = [
        (0.0, "granted", {"account": "a"}),
        (0.031, "attempt_failed", {"account": "a", "code": "upstream_reset"}),
        (0.1, "granted", {"account": "b", "moved_from": "a"}),
        (150.1, "attempt_failed", {"account": "b", "code": "upstream_overloaded"}),
        (151.0, "granted", {"account": "c"}),
        (151.5, "first_output"),
        (152.0, "attempt_failed", {"account": "c", "code": "passed_on"}),
    ]
    assert [
        "Attempt 1, at a, failed before any output, after 31 ms: the upstream broke the"
        " connection (upstream_reset).",
        "The session moved from a to b, which does not have its prompt in its cache.",
        "Attempt 2, at b, failed before any output, after 2 min 30 s: the upstream is"
        " overloaded (HTTP 529, upstream_overloaded).",
        "Attempt 3, at c, failed within its answer, after 1.0 s: the upstream found the"
        " request itself at fault.",
        WHOLE,
    ] == sentences(history(*marks))


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ([2], "While it waited, the client was shown the position 2."),
        ([3, 2, 1], "While it waited, the client was shown the positions 3, 2, 1."),
        (
            range(100, 0, -1),
            "While it waited, the client was shown the positions"
            " 100, 99, 98, 97, 96, 95, …, 6, 5, 4, 3, 2, 1.",
        ),
    ],
)
def test_the_positions_that_were_shown_are_listed(shown: Any, sentence: str) -> None:
    marks = [(float(n), "position_shown", {"position": p}) for n, p in enumerate(shown)]
    assert [sentence, WHOLE] == sentences(history(*marks))
    assert sentence.count(",") <= MAX_POSITIONS + 2


@pytest.mark.parametrize(
    ("row", "marks", "endings"),
    [
        ({"outcome": "ok"}, [], [WHOLE]),
        (
            {"outcome": "incomplete"},
            [],
            ["The client got a whole answer that the model had to cut short."],
        ),
        (
            {"outcome": "open"},
            [],
            ["It is still running, or the gateway crashed while it ran."],
        ),
        (
            {"outcome": "failed", "origin": "gateway", "error_code": "crashed"},
            [],
            ["The gateway's process ended before the answer did."],
        ),
        (
            {"outcome": "failed", "origin": "upstream", "error_code": "upstream_cut"},
            [(3.0, "terminal")],
            [
                "The client got an ending in its stream (upstream_cut), caused by the"
                ' upstream: "The upstream closed the stream before it finished".'
            ],
        ),
        (
            {"outcome": "client_gone"},
            [(3.0, "client_left")],
            ["The client left after 3.0 s, before its answer."],
        ),
        (
            {"outcome": "client_gone"},
            [
                (1.0, "first_output"),
                (3.0, "client_left", {"drain": True}),
                (4.0, "terminal", {"outcome": "whole"}),
            ],
            [
                "The client left after 3.0 s, within its answer.",
                "The answer was read on for its usage, and the whole of it came.",
            ],
        ),
    ],
)
def test_the_ending_is_what_the_client_got(
    row: dict[str, Any], marks: list[Any], endings: list[str]
) -> None:
    assert endings == sentences(history(*marks, **row))


def test_fields_that_were_left_out_are_named() -> None:
    assert [
        "Left out of the request, which a cannot take: store, seed.",
        WHOLE,
    ] == sentences(history(dropped="store,seed"))


def test_spans_follow_each_other() -> None:
    marks = [
        (0.0, "received"),
        (0.5, "queued", {"scope": "user"}),
        (1.0, "chosen", {}),
        (1.0, "queued", {"scope": "account", "taken": [["a", 1, []], ["b", 1, []]]}),
        (2.0, "granted", {"account": "a"}),
        (2.5, "attempt_failed", {"account": "a", "code": "upstream_reset"}),
        (3.0, "granted", {"account": "b"}),
        (4.0, "first_output"),
        (6.0, "client_left", {"drain": True}),
        (7.0, "terminal", {"outcome": "whole"}),
    ]
    assert [
        Span("read", "", 0.0, 0.5),
        Span("queue", "alice", 0.5, 1.0),
        Span("queue", "a, b", 1.0, 2.0),
        Span("wait", "a", 2.0, 2.5),
        Span("wait", "b", 3.0, 4.0),
        Span("answer", "b", 4.0, 6.0),
        Span("drain", "b", 6.0, 7.0),
    ] == spans_of(history(*marks))


def test_a_request_that_still_runs_has_its_spans_so_far() -> None:
    assert [] == spans_of(history())
    marks = [(0.0, "received"), (1.0, "granted", {"account": "a"}), (3.0, "head")]
    assert [Span("read", "", 0.0, 1.0), Span("wait", "a", 1.0, 3.0)] == spans_of(
        history(*marks)
    )
