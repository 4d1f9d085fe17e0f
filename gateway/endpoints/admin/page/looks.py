"""
The states that the page shows: each has a word and a shape, and only then a colour.
"""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """
    Attributes:
        shape: the symbol ``shape-…`` of ``parts.html``.
        tone: a class of the style sheet; "" for none.
    """

    word: str
    shape: str
    tone: str = ""


LOOKS = {
    # a request
    "running": Look("running", "play", "busy"),
    "waiting": Look("waiting", "wait", "warn"),
    "arriving": Look("arriving", "dot", "busy"),
    "draining": Look("read to its end", "short", "quiet"),
    "open": Look("running", "play", "busy"),
    "ok": Look("ok", "check", "good"),
    "incomplete": Look("incomplete", "short", "warn"),
    "failed": Look("failed", "fail", "bad"),
    "refused": Look("refused", "stop", "warn"),
    "client_gone": Look("client left", "leave", "quiet"),
    # an account
    "ready": Look("ready", "check", "good"),
    "cooling": Look("cooling down", "wait", "warn"),
    "paused": Look("paused", "pause", "warn"),
    # a key
    "expired": Look("expired", "stop", "warn"),
    # a process
    "serving": Look("serves", "play", "busy"),
    "leaving": Look("finishes what it has", "short", "quiet"),
    "starting": Look("starts", "dot", "quiet"),
    "configured": Look("starts", "dot", "quiet"),
    # the page's own connection
    "live": Look("live", "dot"),
    "lost": Look("reconnecting", "lost"),
    # a verdict
    "well": Look("all is well", "check", "good"),
    "us": Look("us", "fail", "bad"),
    "them": Look("them", "fail", "bad"),
    "both": Look("both", "fail", "bad"),
    "nothing": Look("no data", "dot", "quiet"),
}


def look(state: object) -> Look:
    """The look of *state*; an unknown one is its own word."""
    return LOOKS.get(str(state)) or Look(str(state or "unknown"), "dot", "quiet")
