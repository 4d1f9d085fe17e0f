"""One request as ``gateway top`` opens it: why, what took the time, the timeline."""

from __future__ import annotations

from typing import Any

from gateway.endpoints.admin.page.requests import history_of
from gateway.ledger.render import bar_lines, mark_lines, try_lines, why_lines


def timeline_lines(detail: dict[str, Any]) -> list[str]:
    """The answer of ``GET /api/v1/requests/{id}`` for people, a line each."""
    how = " ".join(filter(None, (detail["outcome"], detail["error_code"])))
    head = (
        f"{detail['request_id']}  {detail['user']}  {detail['model']}  "
        f"{detail['state']} {how}".rstrip()
    )
    history = history_of(detail)
    return [
        head,
        "",
        *why_lines(history),
        *try_lines(history),
        *bar_lines(history),
        *mark_lines(history),
    ]
