"""
Why a request went as it did, in sentences, from what was recorded on its way.

    waits      for whose slots, and who held them
    accounts   which were left alone and until when, and what became of each attempt
    the client what it was shown meanwhile, and what it got in the end

Rule: a sentence states what was recorded when it happened; nothing is guessed. What an
older version has not recorded has no sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from gateway.errors import CODES
from gateway.ledger.report import ReportRow, RequestHistory
from gateway.record import TimelineMark

MAX_POSITIONS = 12
"""Positions in a queue that one sentence lists; the middle of more is left out."""

OUTAGES = {
    "network": "it could not be reached",
    "failed": "it had failed",
    "overloaded": "it was overloaded",
    "rate_limited": "it had limited the rate",
    "quota": "its quota was used up",
    "refused": "it had refused its credential",
    "no_model": "it did not have the model",
    "paused": "the operator has paused it",
}


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
    return [*lines, *_ending(row, marks)]


class _Story:
    """The sentences of single marks; attempts are counted as they come."""

    def __init__(self, history: RequestHistory) -> None:
        self._marks = history.marks
        self._attempts = history.attempts
        self._started_at: datetime = history.request["started_at"]
        self._user = history.request["user"]
        self._left_alone: set[str] = set()
        self._n = 0

    def of(self, index: int, mark: TimelineMark) -> Iterator[str]:
        """What *mark* says."""
        if mark.event == "queued":
            yield self._wait(index, mark)
        elif mark.event == "chosen":
            yield from self._rejected(mark)
        elif mark.event == "granted":
            self._n += 1
            if before := mark.facts.get("moved_from"):
                account = mark.facts.get("account")
                yield (
                    f"The session moved from {before} to {account},"
                    " which does not have its prompt in its cache."
                )
            if not self._has_failed(index):
                yield from self._answered(mark)
        elif mark.event == "attempt_failed":
            yield self._failed(index, mark)

    # --- waits ------------------------------------------------------------------------

    def _wait(self, index: int, mark: TimelineMark) -> str:
        waited = _seconds(self._wait_s(index))
        taken = mark.facts.get("taken") or []
        if mark.facts.get("scope") == "user":
            limit = taken[0][1] if taken else 0
            slots = f", whose {limit} slots were all taken" if limit else ""
            return f"Waited {waited} for a slot of user {self._user}{slots}."
        names = _listed([str(one[0]) for one in taken], "or") or "an account"
        held = "; ".join(filter(None, (held_slots(*one) for one in taken)))
        return f"Waited {waited} for a slot of {names}{': ' if held else ''}{held}."

    def _wait_s(self, index: int) -> float:
        """From the mark at *index* to what ended the wait."""
        began = self._marks[index].at_s
        for mark in self._marks[index + 1 :]:
            if mark.event != "position_shown":
                return mark.at_s - began
        return self._marks[-1].at_s - began

    # --- accounts ---------------------------------------------------------------------

    def _rejected(self, mark: TimelineMark) -> Iterator[str]:
        for name, reason, *more in mark.facts.get("rejected") or []:
            if reason == "tried" or name in self._left_alone:
                continue
            self._left_alone.add(name)
            why = OUTAGES.get(reason, reason)
            left_s, dated = (*more, None, False)[:2]
            if left_s is None:
                yield f"{name} was left alone: {why}."
                continue
            back = self._started_at + timedelta(seconds=mark.at_s + left_s)
            said = ", the time that it gave itself" if dated else ""
            yield f"{name} was left alone until {back:%H:%M:%S} UTC{said}: {why}."

    def _has_failed(self, index: int) -> bool:
        """Whether the attempt that was granted at *index* failed."""
        for mark in self._marks[index + 1 :]:
            if mark.event in ("attempt_failed", "granted"):
                return mark.event == "attempt_failed"
        return False

    def _answered(self, mark: TimelineMark) -> Iterator[str]:
        first = next((m for m in self._marks if m.event == "first_output"), None)
        if first is not None and first.at_s >= mark.at_s:
            took = _seconds(first.at_s - mark.at_s)
            yield f"{self._attempt(mark)} gave its first output after {took}."

    def _failed(self, index: int, mark: TimelineMark) -> str:
        began = max(
            (m.at_s for m in self._marks[:index] if m.event == "granted"), default=0.0
        )
        had_output = any(
            m.event == "first_output" and m.at_s >= began for m in self._marks[:index]
        )
        when = "within its answer" if had_output else "before any output"
        took = _seconds(mark.at_s - began)
        why = _cause(str(mark.facts.get("code", "")), self._status())
        return f"{self._attempt(mark)} failed {when}, after {took}: {why}."

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


def held_slots(name: str, limit: int, holders: Sequence[tuple[str, int]]) -> str:
    """``bob held 3 and carol 1 of the 4 slots of openai-1``"""
    if not limit or not holders:
        return ""
    who = [
        f"{user} held {slots}" if n == 0 else f"{user} {slots}"
        for n, (user, slots) in enumerate(holders)
    ]
    rest = limit - sum(slots for _, slots in holders)
    if rest > 0:
        who.append(f"others {rest}")
    return f"{_listed(who, 'and')} of the {limit} slots of {name}"


def _cause(code: str, status: int) -> str:
    if code == "passed_on":
        text = "the upstream found the request itself at fault"
    else:
        sentence = CODES[code].sentence if code in CODES else code or "unknown"
        text = sentence[:1].lower() + sentence[1:]
    facts = [f"HTTP {status}"] if status >= 400 else []
    if code in CODES:
        facts.append(code)
    return f"{text} ({', '.join(facts)})" if facts else text


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
    when = f" after {_seconds(left.at_s)}" if left else ""
    had = any(mark.event == "first_output" for mark in marks)
    yield f"The client left{when}, {'within' if had else 'before'} its answer."
    if left and left.facts.get("drain"):
        how = next((m.facts.get("outcome") for m in marks if m.event == "terminal"), "")
        came = {
            "whole": "and the whole of it came",
            "given_up": "and given up when it took too long or its slot was needed",
        }.get(str(how), "and it broke")
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


# --- words ----------------------------------------------------------------------------


def _seconds(seconds: float) -> str:
    """``31 ms``, ``12.4 s``, ``3 min 5 s``"""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _listed(words: Sequence[Any], last: str) -> str:
    """``a, b or c``"""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
