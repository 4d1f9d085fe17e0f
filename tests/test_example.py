"""The example of CONTRIBUTING.md: one account fails, and another one answers."""

from tests.conftest import Serve
from tests.kit import endings, plays
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account


async def test_another_account_answers(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    accounts = [account(upstream, f"chat-{n}", priority=n) for n in (1, 2)]
    gateway = await serve(accounts=accounts)
    upstream.next(plays.status(503), account="chat-1")

    reply = await gateway.client("alice").ask("chat", "chat-model")

    endings.whole("chat", reply)
    line = await gateway.finished(reply)
    assert (line["account"], line["attempts"]) == ("chat-2", 2)
