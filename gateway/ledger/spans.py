"""
The timeline of one request as spans: what took which part of its time.

    read │ queue │ connect │ think │ answer │ drain
                 └──────── one attempt ─────┘

Each begins at one mark and ends at the next one that begins another, or ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.ledger.report import RequestHistory
from gateway.record import TimelineMark


class Span(NamedTuple):
    """
    Attributes:
        kind: ``read`` (its body arrives), ``queue``, ``connect`` (to the upstream's
            head), ``think`` (to the first output), ``answer`` (its output) or ``drain``
            (its client has left).
        name: the account, or what is waited for; "" for none.
        start_s, end_s: seconds since the request was received.
        attempt: the number of the attempt that it is a part of; 0 for none.
        code: of the failure that ended it; "" for none.
    """

    kind: str
    name: str
    start_s: float
    end_s: float
    attempt: int = 0
    code: str = ""


ENDED = "ended_by_operator"
_ENDS = frozenset(
    ("attempt_failed", "ended", "terminal", "failed", "refused", "client_left")
)
_NEXT = {"head": "think", "first_output": "answer"}
"""What goes on in an attempt."""


def spans_of(history: RequestHistory) -> list[Span]:
    """
    The spans of one request in order; empty where no timeline is kept. The last one of
    a request that runs lasts until now.
    """
    walk = _Walk(history.request["user"])
    return [
        span
        for span in walk.spans(history.marks, history.age_s or 0.0)
        if span.code or span.end_s > span.start_s
    ]


class _Walk:
    """One pass over the marks; what is under way has begun and not ended."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._now: Span | None = None
        self._attempts = 0

    def spans(self, marks: Sequence[TimelineMark], until_s: float) -> Iterator[Span]:
        for mark in marks:
            following = self._following(mark)
            if following is self._now:
                continue
            if self._now:
                yield self._now._replace(end_s=mark.at_s, code=_code(mark))
            self._now = following
        if self._now:
            yield self._now._replace(end_s=max(marks[-1].at_s, until_s))

    def _following(self, mark: TimelineMark) -> Span | None:
        """What is under way from *mark* on; the same span if that does not change."""
        event, facts, now = mark.event, mark.facts, self._now
        if event == "received":
            return _begun("read", "", mark)
        if event == "queued":
            return _begun("queue", _awaited(mark, self._user), mark)
        if event == "granted":
            return self._attempt(mark)
        if event == "connecting":
            return now if now and now.kind == "connect" else self._attempt(mark)
        if event == "chosen":
            return now if now and now.attempt else None
        if now and now.attempt:
            if event == "client_left" and facts.get("drain"):
                return _begun("drain", now.name, mark, now.attempt)
            if kind := _NEXT.get(event):
                return _begun(kind, now.name, mark, now.attempt)
        return None if event in _ENDS else now

    def _attempt(self, mark: TimelineMark) -> Span:
        self._attempts += 1
        name = str(mark.facts.get("account", ""))
        return _begun("connect", name, mark, self._attempts)


def _begun(kind: str, name: str, mark: TimelineMark, attempt: int = 0) -> Span:
    return Span(kind, name, mark.at_s, mark.at_s, attempt)


def _code(mark: TimelineMark) -> str:
    """Why *mark* ended what was under way, where that is a failure."""
    if mark.event == "attempt_failed":
        return str(mark.facts.get("code", "")) or "failed"
    return ENDED if mark.event == "ended" else ""


def _awaited(mark: TimelineMark, user: str) -> str:
    if mark.facts.get("scope") == "user":
        return f"user {user}"
    names = [str(one[0]) for one in mark.facts.get("taken") or []]
    return ", ".join(names) or "an account"
