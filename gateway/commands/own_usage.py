"""``gateway usage --mine``: what ``GET /v1/usage`` says to a user, with its own key."""

from __future__ import annotations

import argparse
import os
import urllib.error
import urllib.request
from typing import Any

import orjson

from gateway.commands.refusal import refuse
from gateway.commands.tables import print_json, print_table

TIMEOUT_S = 30.0
MAX_BYTES = 8 << 20


def own_usage(args: argparse.Namespace) -> int:
    """Print it; returns 0, or 1 when the gateway cannot be asked."""
    key = os.environ.get("GATEWAY_API_KEY", "")
    if not key:
        return refuse(args, "missing_key", "set GATEWAY_API_KEY to your own key")
    address = args.url.rstrip("/").removesuffix("/v1") + "/v1/usage"
    try:
        document = _asked(address, key)
    except (OSError, ValueError) as error:
        return refuse(args, "no_answer", f"{address} cannot be asked: {error}")
    if args.json:
        print_json(document)
    else:
        _print(document)
    return 0


def _asked(address: str, key: str) -> Any:
    """
    The answer at *address*.

    Raises:
        OSError, ValueError: there is none.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError("it must begin with http:// or https://")
    request = urllib.request.Request(
        address, headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return orjson.loads(reply.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        try:
            said = orjson.loads(error.read(MAX_BYTES))["error"]["message"]
        except (ValueError, LookupError, TypeError):
            said = error.reason
        raise OSError(f"{error.code} {said}") from None


def _print(document: dict[str, Any]) -> None:
    limits = document["limits"]
    print(
        f"{document['user']}: {document['running']} of "
        f"{limits['max_concurrent'] or '∞'} running, {document['waiting']} of "
        f"{limits['max_queued']} waiting"
    )
    for name, budget in document["budget"].items():
        resets = budget.get("resets_at", "")[:16].replace("T", " ")
        until = f", until {resets} UTC" if resets else ""
        print(f"{name}: {budget['used']:g} of {budget['limit']:g} used{until}")
    if document["usage"]:
        heads = (
            "day",
            "model",
            "requests",
            "input_tokens",
            "output_tokens",
            "cost_usd",
        )
        rows = [[one[head] for head in heads] for one in document["usage"]]
        print_table(heads, rows, right=heads[2:])
