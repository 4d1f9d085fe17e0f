"""The timeline of one request as spans: what took which part of its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.ledger.report import RequestHistory
from gateway.record import TimelineMark


class Span(NamedTuple):
    """
    Attributes:
        kind: ``read`` (its body arrives), ``queue``, ``wait`` (an account was asked and
            has given nothing), ``answer`` (its output) or ``drain`` (its client has
            left).
        name: the user or account that it is spent at; "" for none.
        start_s, end_s: seconds since the request was received.
    """

    kind: str
    name: str
    start_s: float
    end_s: float


def spans_of(history: RequestHistory) -> list[Span]:
    """The spans of one request in order; empty where no timeline is kept."""
    return list(_spans(history.marks, history.request["user"]))


def _spans(marks: Sequence[TimelineMark], user: str) -> Iterator[Span]:
    """Each begins at one mark and ends at the next one that begins another."""
    began: tuple[str, str, float] | None = None
    for mark in marks:
        begins = _begins(mark, user, began)
        if begins is None:
            continue
        if began is not None and mark.at_s > began[2]:
            yield Span(*began, mark.at_s)
        began = (*begins, mark.at_s) if begins[0] else None
    if began is not None and marks and marks[-1].at_s > began[2]:
        yield Span(*began, marks[-1].at_s)


def _begins(
    mark: TimelineMark, user: str, now: tuple[str, str, float] | None
) -> tuple[str, str] | None:
    """The span that *mark* begins; ``("", "")`` for none, None if it ends none."""
    facts, name = mark.facts, now[1] if now else ""
    if mark.event == "received":
        return ("read", "")
    if mark.event == "queued":
        return ("queue", _awaited(mark, user))
    if mark.event == "granted":
        return ("wait", str(facts.get("account", "")))
    if mark.event == "first_output":
        return ("answer", name)
    if mark.event == "client_left" and facts.get("drain"):
        return ("drain", name)
    if mark.event in ("attempt_failed", "terminal", "failed", "refused", "client_left"):
        return ("", "")
    if mark.event == "chosen" and now and now[0] in ("read", "queue"):
        return ("", "")
    return None


def _awaited(mark: TimelineMark, user: str) -> str:
    if mark.facts.get("scope") == "user":
        return user
    return ", ".join(str(one[0]) for one in mark.facts.get("taken") or [])
