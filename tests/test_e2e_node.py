"""The vendors' SDKs for Node in front of the real daemon."""

from __future__ import annotations

import pytest

from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of

pytestmark = [clients.needs_node_sdks, pytest.mark.timeout(120)]

NODE = ["responses", "responsesHelper", "chat", "messages", "messagesHelper"]


@pytest.mark.parametrize("client", NODE)
async def test_node_reads_turns_and_raises_true_reasons(
    serve: Serve, upstream: ScriptedUpstream, client: str
) -> None:
    """On the real daemon: a turn, each kind of cut, a dead upstream, no such model."""
    protocol = client.removesuffix("Helper")
    gateway = await serve(daemon=True)
    broken = {
        "cut": plays.cut(2),
        "reset": plays.reset(2),
        "eof": plays.eof(2),
        "half": plays.half_event(2),
    }
    for name, play in broken.items():
        upstream.always(play, model=f"{protocol}-{name}")
    upstream.always(plays.cut(None), model=f"{protocol}-z-dead")
    models = ["good", *broken, "z-dead"]
    url = gateway.base_url + ("" if protocol == "messages" else "/v1")

    outcomes = await clients.node(
        client,
        url,
        key_of("alice"),
        *[f"{protocol}-{name}" for name in models],
        "no-such-model",
    )

    good = outcomes[f"{protocol}-good"]
    assert ("All is well.", None) == (good["text"], good["error"])
    assert good["terminal"]
    for name in broken:
        row = outcomes[f"{protocol}-{name}"]
        assert "The upstream " in row["error"]["message"], row
        assert "request id: " in row["error"]["message"]
        assert row["text"] in ("", "All is ") and not row["terminal"]
    dead = outcomes[f"{protocol}-z-dead"]["error"]
    assert 502 == dead["status"] and "The upstream broke" in dead["message"]
    unknown = outcomes["no-such-model"]["error"]
    assert 404 == unknown["status"] and "No account serves" in unknown["message"]
