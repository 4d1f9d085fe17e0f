"""
Why a request went as it did, in sentences, from what was recorded on its way.

    waits      for whose slots, and who held them
    accounts   which were left alone and until when, and what became of each attempt
    the client what it was shown meanwhile, and what it got in the end

Rule 1: a sentence states what was recorded when it happened; nothing is guessed. What
        an older version has not recorded has no sentence.
Rule 2: every event of a timeline either has its own sentences (``_Story``), is a part
        of those of another (``WITHIN``), or is a step of the usual way (``USUAL``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from gateway.errors import CODES
from gateway.ledger.narrative_words import OUTAGES, cause, held_slots, listed, span
from gateway.ledger.report import ReportRow, RequestHistory
from gateway.record import TimelineMark

MAX_POSITIONS = 12
"""Positions in a queue that one sentence lists; the middle of more is left out."""

WITHIN = frozenset(
    (
        *("position_shown", "first_output", "client_left", "terminal"),
        *("failed", "refused"),
    )
)
"""Events that the sentences of waits, attempts and the ending hold."""

USUAL = frozenset(("received", "authenticated", "connecting", "head", "first_event"))
"""Steps that every request takes; how long each took is in the bars."""

NOW = {
    "arriving": "Its body is still arriving.",
    "queued_user": "It still waits.",
    "queued_account": "It still waits.",
    "running": "It is still running.",
    "draining": "The answer is still read, for its usage.",
}
"""By the phase of a request that has not ended."""

DRAINED = {
    "whole": "and the whole of it came",
    "failed": "and it broke",
    "given_up": "and given up when it took too long or its slot was needed",
}
"""By how a drain ended."""


def sentences(history: RequestHistory) -> list[str]:
    """The story of one request, in the order in which it happened."""
    row, marks = history.request, history.marks
    story = _Story(history)
    lines: list[str] = []
    for index, mark in enumerate(marks):
        lines += story.of(index, mark)
    if shown := _shown(marks):
        lines.append(shown)
    if row["dropped"]:
        account, fields = row["account"], row["dropped"].replace(",", ", ")
        lines.append(f"Left out of the request, which {account} cannot take: {fields}.")
    if history.age_s is not None:
        return [*lines, NOW.get(row["phase"], NOW["running"])]
    return [*lines, *_ending(row, marks)]


class _Story:
    """The sentences of single marks; attempts are counted as they come."""

    def __init__(self, history: RequestHistory) -> None:
        self._marks = history.marks
        self._is_live = history.age_s is not None
        self._until_s = history.age_s or (
            history.marks[-1].at_s if history.marks else 0.0
        )
        self._attempts = history.attempts
        self._started_at: datetime = history.request["started_at"]
        self._user = history.request["user"]
        self._said: set[str] = set()  # what each choice would say again
        self._account = ""  # that is asked
        self._n = 0

    def of(self, index: int, mark: TimelineMark) -> Iterator[str]:
        """What *mark* says."""
        if say := self.SENTENCES.get(mark.event):
            yield from say(self, index, mark)

    # --- waits ------------------------------------------------------------------------

    def _room(self, index: int, mark: TimelineMark) -> Iterator[str]:
        facts = mark.facts
        limit = f"{facts.get('limit_bytes', 0) / (1 << 20):g} MiB"
        yield (
            f"Its body waited {span(facts.get('waited_s', 0.0))} for room: the"
            f" bodies of {self._user} that arrive or wait may take {limit}."
        )

    def _queued(self, index: int, mark: TimelineMark) -> Iterator[str]:
        end_s = self._wait_end_s(index)
        verb = "Waited" if end_s is not None else "Has waited"
        took_s = (self._until_s if end_s is None else end_s) - mark.at_s
        waited = f"{verb} {span(took_s)} for a slot of"
        taken = mark.facts.get("taken") or []
        if mark.facts.get("scope") == "user":
            limit = taken[0][1] if taken else 0
            slots = f", whose {limit} slots were all taken" if limit else ""
            yield f"{waited} user {self._user}{slots}."
            return
        names = listed([str(one[0]) for one in taken], "or") or "an account"
        held = "; ".join(filter(None, (held_slots(*one) for one in taken)))
        yield f"{waited} {names}{': ' if held else ''}{held}."

    def _wait_end_s(self, index: int) -> float | None:
        """When the wait that began at *index* was over; None if it still goes on."""
        for mark in self._marks[index + 1 :]:
            if mark.event != "position_shown":
                return mark.at_s
        return None if self._is_live else self._until_s

    def _paused(self, index: int, mark: TimelineMark) -> Iterator[str]:
        facts = mark.facts
        yield (
            f"Waited {span(facts.get('s', 0.0))} before {facts.get('account')} was"
            " asked again: no other was free, and it had not said for how long it"
            " limits the rate."
        )

    # --- accounts ---------------------------------------------------------------------

    def _chosen(self, index: int, mark: TimelineMark) -> Iterator[str]:
        yield from self._bound(mark)
        yield from self._rejected(mark)
        if mark.facts.get("last_resort") and mark.facts.get("tiers"):
            yield "None of its accounts was well, so one was asked all the same."

    def _bound(self, mark: TimelineMark) -> Iterator[str]:
        bound = mark.facts.get("bound_to")
        if bound and "bound_to" not in self._said:
            self._said.add("bound_to")
            made = "made" if len(bound) == 1 else "may have made"
            yield (
                f"It could only go to {listed(bound, 'or')}, which {made} what it"
                " goes on from."
            )

    def _rejected(self, mark: TimelineMark) -> Iterator[str]:
        for name, reason, *more in mark.facts.get("rejected") or []:
            if reason == "tried" or name in self._said:
                continue
            self._said.add(name)
            why = OUTAGES.get(reason, reason)
            left_s, dated = (*more, None, False)[:2]
            if left_s is None:
                yield f"{name} was left alone: {why}."
                continue
            back = self._started_at + timedelta(seconds=mark.at_s + left_s)
            said = ", the time that it gave itself" if dated else ""
            yield f"{name} was left alone until {back:%H:%M:%S} UTC{said}: {why}."

    def _stripped(self, index: int, mark: TimelineMark) -> Iterator[str]:
        facts = mark.facts
        if pieces := facts.get("pieces"):
            noun = (
                "piece of reasoning was" if pieces == 1 else "pieces of reasoning were"
            )
            before = facts.get("before") or self._account
            maker = f": {before} had answered before" if before != self._account else ""
            yield f"{pieces} {noun} left out, which {self._account} cannot read{maker}."
        if facts.get("thinking_off"):
            yield "Thinking was switched off: its history does not allow it."

    def _granted(self, index: int, mark: TimelineMark) -> Iterator[str]:
        self._n += 1
        self._account = str(mark.facts.get("account", ""))
        if before := mark.facts.get("moved_from"):
            yield (
                f"The session moved from {before} to {self._account},"
                " which does not have its prompt in its cache."
            )
        if not self._has_failed(index):
            yield from self._answered(index, mark)

    def _has_failed(self, index: int) -> bool:
        """Whether the attempt that was granted at *index* failed."""
        for mark in self._marks[index + 1 :]:
            if mark.event in ("attempt_failed", "granted"):
                return mark.event == "attempt_failed"
        return False

    def _answered(self, index: int, mark: TimelineMark) -> Iterator[str]:
        later = self._marks[index + 1 :]
        for one in later:
            if one.event == "first_output":
                took = span(one.at_s - mark.at_s)
                yield f"{self._attempt(mark)} gave its first output after {took}."
                return
            if one.event in ("granted", "queued", "chosen"):
                self._n -= 1  # it was not asked: another request tried it meanwhile
                return
        took = span(self._until_s - mark.at_s)
        if self._is_live:
            yield f"{self._attempt(mark)} has given no output yet, after {took}."
        else:
            yield f"{self._attempt(mark)} gave no output within {took}."

    def _ended(self, index: int, mark: TimelineMark) -> Iterator[str]:
        who = mark.facts.get("who")
        by = f" ({who})" if who else ""
        yield f"The operator{by} ended it after {span(mark.at_s)}."

    def _attempt_failed(self, index: int, mark: TimelineMark) -> Iterator[str]:
        began = max(
            (m.at_s for m in self._marks[:index] if m.event == "granted"), default=0.0
        )
        had_output = any(
            m.event == "first_output" and m.at_s >= began for m in self._marks[:index]
        )
        when = "within its answer" if had_output else "before any output"
        took = span(mark.at_s - began)
        why = cause(str(mark.facts.get("code", "")), self._status())
        yield f"{self._attempt(mark)} failed {when}, after {took}: {why}."

    def _attempt(self, mark: TimelineMark) -> str:
        account = mark.facts.get("account", "")
        return (
            f"Attempt {self._n}, at {account},"
            if self._n
            else f"An attempt at {account}"
        )

    def _status(self) -> int:
        """The HTTP status of the present attempt, 0 if there was none."""
        if 0 < self._n <= len(self._attempts):
            return int(self._attempts[self._n - 1]["status"] or 0)
        return 0

    SENTENCES: ClassVar[
        Mapping[str, Callable[[_Story, int, TimelineMark], Iterator[str]]]
    ] = {
        "room_awaited": _room,
        "queued": _queued,
        "paused": _paused,
        "chosen": _chosen,
        "stripped": _stripped,
        "granted": _granted,
        "ended": _ended,
        "attempt_failed": _attempt_failed,
    }
    """By the event of a mark."""


# --- the client -----------------------------------------------------------------------


def _shown(marks: Sequence[TimelineMark]) -> str:
    """The positions that the client was shown while it waited."""
    positions = [
        str(mark.facts["position"]) for mark in marks if mark.event == "position_shown"
    ]
    if not positions:
        return ""
    if len(positions) > MAX_POSITIONS:
        half = MAX_POSITIONS // 2
        positions = [*positions[:half], "…", *positions[-half:]]
    noun = "position" if len(positions) == 1 else "positions"
    return f"While it waited, the client was shown the {noun} {', '.join(positions)}."


def _ending(row: ReportRow, marks: Sequence[TimelineMark]) -> Iterator[str]:
    outcome = row["outcome"]
    if outcome == "open":
        yield "It is still running, or the gateway crashed while it ran."
    elif outcome == "ok":
        yield "The client got the whole answer."
    elif outcome == "incomplete":
        yield "The client got a whole answer that the model had to cut short."
    elif outcome == "client_gone":
        yield from _gone(marks)
    elif row["error_code"] == "crashed":
        yield "The gateway's process ended before the answer did."
    else:
        yield _failure(row, marks)


def _gone(marks: Sequence[TimelineMark]) -> Iterator[str]:
    left = next((mark for mark in marks if mark.event == "client_left"), None)
    when = f" after {span(left.at_s)}" if left else ""
    had = any(mark.event == "first_output" for mark in marks)
    yield f"The client left{when}, {'within' if had else 'before'} its answer."
    if left and left.facts.get("drain"):
        how = next((m.facts.get("outcome") for m in marks if m.event == "terminal"), "")
        came = DRAINED.get(str(how), DRAINED["failed"])
        yield f"The answer was read on for its usage, {came}."


def _failure(row: ReportRow, marks: Sequence[TimelineMark]) -> str:
    whose = {
        "client": "the client's own request",
        "gateway": "the gateway",
        "upstream": "the upstream",
    }.get(row["origin"], row["origin"])
    message = next(
        (str(m.facts["message"]) for m in marks[::-1] if "message" in m.facts), ""
    )
    if not message:
        message = (
            CODES[row["error_code"]].sentence if row["error_code"] in CODES else ""
        )
    in_stream = any(mark.event == "terminal" for mark in marks)
    how = "an ending in its stream" if in_stream else f"HTTP {row['status'] or '-'}"
    verb = "was refused with" if row["outcome"] == "refused" else "got"
    said = f': "{message}"' if message else ""
    return f"The client {verb} {how} ({row['error_code']}), caused by {whose}{said}."
