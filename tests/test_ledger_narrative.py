"""Why a request went as it did: one sentence for each thing that was recorded."""

from __future__ import annotations

import ast
from datetime import datetime
from typing import Any, get_args

import pytest

from gateway.accounts.outage import PAUSED
from gateway.accounts.verdict import Reason
from gateway.endpoints.admin.schema import Phase
from gateway.errors import CODES, UPSTREAM_CODES
from gateway.ledger.narrative import (
    DRAINED,
    MAX_POSITIONS,
    NOW,
    USUAL,
    WITHIN,
    _Story,
    sentences,
)
from gateway.ledger.narrative_words import OUTAGES
from gateway.ledger.report import RequestHistory
from gateway.ledger.spans import Span, spans_of
from gateway.record import OUTCOMES, TimelineMark
from tests.kit.project import SOURCES

NOON = datetime(2026, 11, 24, 12, 0, 0)


def history(
    *marks: tuple[Any, ...], age_s: float | None = None, **row: Any
) -> RequestHistory:
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
    return RequestHistory(request, [{"status": 0}, {"status": 529}], found, age_s)


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


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (
            [(1.0, "room_awaited", {"waited_s": 0.5, "limit_bytes": 32 << 20})],
            "Its body waited 500 ms for room: the bodies of alice that arrive or wait"
            " may take 32 MiB.",
        ),
        (
            [(1.0, "paused", {"account": "a", "s": 1.5})],
            "Waited 1.5 s before a was asked again: no other was free, and it had not"
            " said for how long it limits the rate.",
        ),
        (
            [(1.0, "chosen", {"tiers": [["a"]], "bound_to": ["a"]})] * 2,
            "It could only go to a, which made what it goes on from.",
        ),
        (
            [(1.0, "chosen", {"tiers": [["a"]], "bound_to": ["a", "b"]})],
            "It could only go to a or b, which may have made what it goes on from.",
        ),
        (
            [(1.0, "chosen", {"tiers": [["a"]], "last_resort": True})],
            "None of its accounts was well, so one was asked all the same.",
        ),
        (
            [(3.0, "ended", {"who": "unix:0"})],
            "The operator (unix:0) ended it after 3.0 s.",
        ),
    ],
)
def test_what_happens_seldom_has_its_sentence(marks: list[Any], said: str) -> None:
    assert [said, WHOLE] == sentences(history(*marks))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"pieces": 2, "before": "b"},
            "2 pieces of reasoning were left out, which a cannot read: b had answered"
            " before.",
        ),
        (
            {"pieces": 1, "before": "a"},
            "1 piece of reasoning was left out, which a cannot read.",
        ),
        (
            {"pieces": 0, "thinking_off": True},
            "Thinking was switched off: its history does not allow it.",
        ),
    ],
)
def test_reasoning_that_is_left_out_is_named(facts: dict[str, Any], said: str) -> None:
    marks = [(0.0, "granted", {"account": "a"}), (0.0, "stripped", facts)]
    assert said in sentences(history(*marks, (1.0, "first_output")))


def test_an_account_that_was_granted_and_not_asked_is_no_attempt() -> None:
    marks = [
        (0.0, "granted", {"account": "a"}),
        (0.1, "chosen", {"rejected": [["a", "failed"]]}),
        (0.2, "granted", {"account": "b"}),
        (3.0, "client_left"),
    ]
    assert [
        "a was left alone: it had failed.",
        "Attempt 1, at b, gave no output within 2.8 s.",
        "The client left after 3.0 s, before its answer.",
    ] == sentences(history(*marks, outcome="client_gone"))


# --- what runs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "marks", "said"),
    [
        ("arriving", [(0.0, "received")], []),
        (
            "queued_user",
            [
                (1.0, "queued", {"scope": "user"}),
                (2.0, "position_shown", {"position": 1}),
            ],
            [
                "Has waited 9.0 s for a slot of user alice.",
                "While it waited, the client was shown the position 1.",
            ],
        ),
        (
            "running",
            [(0.0, "granted", {"account": "a"})],
            ["Attempt 1, at a, has given no output yet, after 10.0 s."],
        ),
        (
            "running",
            [(0.0, "granted", {"account": "a"}), (1.0, "first_output")],
            ["Attempt 1, at a, gave its first output after 1.0 s."],
        ),
    ],
)
def test_what_still_runs_says_what_it_does_now(
    phase: str, marks: list[Any], said: list[str]
) -> None:
    found = history(*marks, age_s=10.0, phase=phase, outcome="open")
    assert [*said, NOW[phase]] == sentences(found)


# --- nothing is without its sentence --------------------------------------------------


def marked() -> set[str]:
    """Every event that the code enters into a timeline."""
    found = {"failed", "refused"}  # by the outcome of a record
    texts = (path.read_text("utf-8") for path in SOURCES)
    for text in (text for text in texts if "mark(" in text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "mark":
                    said = (one for one in node.args if isinstance(one, ast.Constant))
                    found |= {one.value for one in said if isinstance(one.value, str)}
    return found


def test_every_event_of_a_timeline_has_its_sentence() -> None:
    assert marked() == WITHIN | USUAL | set(_Story.SENTENCES)


def test_every_reason_and_phase_and_end_of_a_drain_has_its_words() -> None:
    assert {*get_args(Reason), PAUSED.reason} - {""} == set(OUTAGES)
    assert {*get_args(Phase)} - {"ended"} == set(NOW)
    assert {"whole", "failed", "given_up"} == set(DRAINED)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_sentence_as_a_refusal(code: str) -> None:
    facts = {"origin": "gateway", "error_code": code, "status": CODES[code].status}
    [said] = sentences(history(outcome="refused", **facts))
    assert CODES[code].sentence in said and code in said


@pytest.mark.parametrize("code", sorted(UPSTREAM_CODES))
def test_every_code_has_its_sentence_as_the_end_of_an_attempt(code: str) -> None:
    marks = [(0.0, "granted", {"account": "a"})]
    failed = (1.0, "attempt_failed", {"account": "a", "code": code})
    assert code in sentences(history(*marks, failed))[0]


@pytest.mark.parametrize("outcome", [*OUTCOMES, "open"])
def test_every_outcome_has_its_sentence(outcome: str) -> None:
    assert sentences(history(outcome=outcome))


# --- spans ----------------------------------------------------------------------------


def test_spans_follow_each_other() -> None:
    marks = [
        (0.0, "received"),
        (0.5, "queued", {"scope": "user"}),
        (1.0, "chosen", {}),
        (1.0, "queued", {"scope": "account", "taken": [["a", 1, []], ["b", 1, []]]}),
        (2.0, "granted", {"account": "a"}),
        (2.5, "attempt_failed", {"account": "a", "code": "upstream_reset"}),
        (3.0, "granted", {"account": "b"}),
        (3.0, "connecting", {"account": "b"}),
        (3.5, "head"),
        (4.0, "first_output"),
        (6.0, "client_left", {"drain": True}),
        (7.0, "terminal", {"outcome": "whole"}),
    ]
    assert [
        Span("read", "", 0.0, 0.5),
        Span("queue", "user alice", 0.5, 1.0),
        Span("queue", "a, b", 1.0, 2.0),
        Span("connect", "a", 2.0, 2.5, 1, "upstream_reset"),
        Span("connect", "b", 3.0, 3.5, 2),
        Span("think", "b", 3.5, 4.0, 2),
        Span("answer", "b", 4.0, 6.0, 2),
        Span("drain", "b", 6.0, 7.0, 2),
    ] == spans_of(history(*marks))


def test_a_request_that_is_ended_says_so_in_its_last_span() -> None:
    marks = [(1.0, "connecting", {"account": "a"}), (2.0, "ended"), (3.0, "terminal")]
    assert [Span("connect", "a", 1.0, 2.0, 1, "ended_by_operator")] == spans_of(
        history(*marks)
    )


def test_a_request_that_still_runs_has_its_spans_until_now() -> None:
    assert [] == spans_of(history())
    marks = [(0.0, "received"), (1.0, "granted", {"account": "a"}), (3.0, "head")]
    assert [
        Span("read", "", 0.0, 1.0),
        Span("connect", "a", 1.0, 3.0, 1),
        Span("think", "a", 3.0, 9.0, 1),
    ] == spans_of(history(*marks, age_s=9.0))
