"""
How much a model is asked to think: a client's wish in words that the model takes.

Rule 1: what an account's ``efforts`` name comes before what the model's name says.
Rule 2: a word that is not taken becomes the nearest that is, the lower of two: a
        client does not pay for more than it asked for without need. A wish to think
        is not made one not to think.
Rule 3: a model whose name is not known takes what the current ones of its vendor take.

Source: the vendors' model pages and their refusals ("Supported values are: …"), autumn
2026.
"""

from __future__ import annotations

import re

from gateway.protocols.claude_versions import claude_version
from gateway.protocols.options import EFFORTS, Options

_THREE = ("low", "medium", "high")
_CURRENT = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_OPENAI_PLAIN = re.compile(r"(?:^|/)(?:gpt-[34]|chatgpt-4)")
_OPENAI_THINKS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d))")
_OPENAI: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(rf"(?:^|/){pattern}"), efforts)
    for pattern, efforts in (
        (r"o\d", _THREE),
        (r"gpt-5-pro", ("high",)),
        (r"gpt-5-codex", _THREE),
        (r"gpt-5(?![.\d])", ("minimal", *_THREE)),
        (r"gpt-5\.1-codex-max", ("none", *_THREE, "xhigh")),
        (r"gpt-5\.1", ("none", *_THREE)),
        (r"gpt-5\.[2-5](?!\d)", ("none", *_THREE, "xhigh")),
        (r"gpt-6(?:-astra|\.1-sol)", (*_THREE, "xhigh", "max")),
    )
)


def openai_effort(model: str, effort: str, options: Options) -> str:
    """A neutral *effort* as a Responses model takes it; "" to say nothing."""
    if options.thinking == "none" or not effort:
        return ""
    if options.efforts:
        return _taken(effort, options.efforts, options)
    if _OPENAI_PLAIN.search(model):
        return ""
    for pattern, efforts in _OPENAI:
        if pattern.search(model):
            return _taken(effort, efforts, options)
    return _taken(effort, _CURRENT, options)


def chat_effort(model: str, effort: str, options: Options) -> str:
    """
    A neutral *effort* as a Chat model takes it; "" to say nothing. Servers that only
    follow OpenAI know three words; they have no word for not to think.
    """
    known = options.efforts or options.chat_extras and _OPENAI_THINKS.search(model)
    if known or options.thinking == "none":
        return openai_effort(model, effort, options)
    if effort == "none" or _OPENAI_PLAIN.search(model):
        return ""
    return _taken(effort, _THREE, options)


def messages_effort(model: str, effort: str, options: Options) -> str:
    """A neutral *effort*, not "none", as an adaptive Messages model takes it."""
    if options.efforts:
        return _taken(effort, options.efforts, options)
    version = claude_version(model)
    older = version is not None and version < (4, 7)
    efforts = ("max",) if older else ("xhigh", "max")
    return _taken(effort, (*_THREE, *efforts), options)


def _taken(effort: str, efforts: tuple[str, ...], options: Options) -> str:
    """*effort*, or the nearest of *efforts*; an unknown word goes on as it is."""
    if effort in efforts or effort not in EFFORTS:
        return effort
    if effort == "none" and options.no_effort == "omit":
        return ""
    at = EFFORTS.index
    thinks = [one for one in efforts if one != "none"]
    return min(thinks or efforts, key=lambda one: (abs(at(one) - at(effort)), at(one)))
