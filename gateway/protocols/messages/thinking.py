"""
``thinking`` of Messages bodies: efforts ⇄ budgets of tokens.

Source: the Anthropic API reference (extended thinking).
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.claude_versions import claude_version
from gateway.protocols.model import Request, Thinking
from gateway.protocols.model_traits import thinking_mode
from gateway.protocols.options import Options
from gateway.protocols.toolset import forced

BUDGET_MIN = 1024
BUDGETS = {
    "minimal": 1024,
    "low": 2048,
    "medium": 4096,
    "high": 16384,
    "xhigh": 24576,
    "max": 32768,
    "ultra": 32768,
}


def effort_of_budget(budget: int | None) -> str:
    """The effort that matches a thinking budget (tokens); None: adaptive."""
    if budget is None:
        return "high"
    for most, effort in ((2048, "low"), (8192, "medium"), (20000, "high")):
        if budget <= most:
            return effort
    return "xhigh"


def thinking_form(
    thinking: Thinking, body: dict[str, Any], request: Request, options: Options
) -> dict[str, Any]:
    """``thinking`` of a Messages *body*; empty: it has none."""
    mode = thinking_mode(request.model, options)
    if mode == "none":
        request.drop(request.path("effort"))
        return {}
    if thinking.effort == "none":
        return {"type": "disabled"}
    if forced(request.choice) and claude_version(request.model) is not None:
        request.drop("thinking" if mode == "adaptive" else request.path("effort"))
        return {}
    if mode == "adaptive":
        shown = {"display": "summarized"} if thinking.summary else {}
        return {"type": "adaptive", **shown}
    wanted = BUDGETS.get(thinking.effort, BUDGETS["high"])
    budget = max(BUDGET_MIN, min(wanted, body["max_tokens"] - BUDGET_MIN))
    if budget >= body["max_tokens"] or forced(request.choice):
        request.drop(request.path("effort"))
        return {}
    if _lost_thinking(body["messages"]):
        request.drop(request.path("effort"))
        return {"type": "disabled"}
    return {"type": "enabled", "budget_tokens": budget}


def _lost_thinking(messages: list[dict[str, Any]]) -> bool:
    """Whether the tool loop that goes on began without its thinking block."""
    if not messages or messages[-1]["content"][0]["type"] != "tool_result":
        return False
    first = messages[-2]["content"][0]["type"] if len(messages) > 1 else ""
    return first not in ("thinking", "redacted_thinking")
