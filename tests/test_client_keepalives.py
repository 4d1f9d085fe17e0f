"""Each kind of client gets the keepalives that it understands."""

from __future__ import annotations

import orjson
import pytest

from gateway.client.interface import QueuePlace
from gateway.client.keepalives import (
    COMMENT,
    DATA_EVENT,
    QueueStatus,
    SseKeepalives,
    queue_comment,
)
from gateway.client.kinds import KINDS, OTHER, ClientKind
from gateway.protocols.sse import events, field, payload

[CODEX] = [kind for kind in KINDS if kind.name == "codex"]
PLACE = QueuePlace(3, 12.2, 1.0)
STATUS = b"response.reasoning_summary_text.delta"


def test_the_comment_tells_place_and_time() -> None:
    assert queue_comment(PLACE) == b": queued position=3 expected=12s\n\n"
    assert queue_comment(QueuePlace(1, 0.1, 1.0)) == (
        b": queued position=1 expected=1s\n\n"
    )
    assert queue_comment(QueuePlace(1, None, 1.0)) == b": queued position=1\n\n"


@pytest.mark.parametrize("kind", [*KINDS, OTHER], ids=lambda kind: kind.name)
def test_only_a_client_that_shows_the_queue_gets_more_than_comments_in_it(
    kind: ClientKind,
) -> None:
    """And that from the second one on: most waits are over before."""
    keepalives = SseKeepalives(kind, "fd277bc5-ff7e")
    first, second, third = [keepalives.next(PLACE, n * 15.0, 0.0) for n in (1, 2, 3)]

    assert first == queue_comment(PLACE)
    assert (STATUS in second, STATUS in third) == (kind is CODEX, kind is CODEX)
    assert second.startswith(queue_comment(PLACE))
    assert (b"output_item.added" in second, b"output_item.added" in third) == (
        kind is CODEX,
        False,
    )


@pytest.mark.parametrize(
    ("kind", "now", "last_output_at", "due"),
    [
        pytest.param(CODEX, 130.0, 0.0, True, id="no-output-yet"),
        pytest.param(CODEX, 119.0, 0.0, False, id="too-early"),
        pytest.param(CODEX, 130.0, 60.0, False, id="output-meanwhile"),
        pytest.param(OTHER, 10_000.0, 0.0, False, id="comments-are-enough"),
    ],
)
def test_a_data_event_is_due_when_no_output_came_for_long(
    kind: ClientKind, now: float, last_output_at: float, due: bool
) -> None:
    keepalive = SseKeepalives(kind, "id").next(None, now, last_output_at)

    assert keepalive == (COMMENT + DATA_EVENT if due else COMMENT)


def test_a_data_event_and_a_status_restart_the_client_s_timer() -> None:
    keepalives = SseKeepalives(CODEX, "id")
    found = [
        DATA_EVENT in keepalives.next(place, now, 0.0)
        for place, now in [
            (None, 130.0),
            (None, 240.0),
            (PLACE, 245.0),
            (None, 260.0),
            (None, 365.0),
        ]
    ]

    assert found == [True, False, False, False, True]


def test_the_status_is_opened_once_and_never_closed() -> None:
    status = QueueStatus("fd277bc5-ff7e")
    frames = [status.frame(QueuePlace(n, 5.0 * n, 10.0)) for n in (3, 2)]
    kinds = [[field(event, b"event").decode() for event in events(f)] for f in frames]

    assert kinds == [
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
        ],
        ["response.reasoning_summary_text.delta"],
    ]
    delta = orjson.loads(payload(frames[1]))["delta"]
    assert delta == "**Waiting in queue (10 s, 1 ahead, about 10 s to go)**\n\n"
