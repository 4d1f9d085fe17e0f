"""
Accounts that seal their reasoning and refuse what others sealed, and clients that
carry on a conversation with such reasoning in it.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.kit import plays
from tests.kit.answer import Answer, Tool
from tests.kit.asking import Client, Reply
from tests.kit.scripted import Exchange, Play, ScriptedUpstream

_NUMBERS = itertools.count(1)


def seal(account: str) -> str:
    """A proof that only *account* can read; longer than what the gateway keeps."""
    return f"sealed-by-{account}-" + "x" * 60 + f"-{account}-{next(_NUMBERS)}"


def maker(proof: str) -> str:
    """The account that sealed *proof*; "" if it is not sealed."""
    head, mark, rest = proof.partition("sealed-by-")
    return rest.partition("-xxx")[0] if mark and not head else ""


def proofs_in(protocol: str, body: dict[str, Any]) -> list[str]:
    """What the reasoning in a request is sealed with; "" where it is not sealed."""
    if protocol == "responses":
        items = body["input"] if isinstance(body["input"], list) else []
        kinds = ("reasoning", "compaction")
        return [
            item.get("encrypted_content") or ""
            for item in items
            if item.get("type") in kinds
        ]
    return [
        block.get("signature") or block.get("data") or ""
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] in ("thinking", "redacted_thinking")
    ]


def broken_loop(body: dict[str, Any]) -> bool:
    """Whether Anthropic misses the thinking before the last call of a tool."""
    if (body.get("thinking") or {}).get("type") != "enabled":
        return False
    said = [turn for turn in body["messages"] if turn["role"] == "assistant"]
    if not said or not isinstance(said[-1]["content"], list):
        return False
    kinds = [block["type"] for block in said[-1]["content"]]
    return "tool_use" in kinds and "thinking" not in kinds[0]


def refusal(protocol: str, words: str = "") -> Play:
    """What the vendor says of reasoning that it did not make."""
    error = {"type": "invalid_request_error"}
    if protocol == "responses":
        error |= {"code": "invalid_encrypted_content"}
        error |= {"message": "The encrypted content could not be verified."}
        return plays.status(400, {"error": error})
    words = words or "messages.1.content.0: Invalid `signature` in `thinking` block"
    return plays.status(400, {"type": "error", "error": {**error, "message": words}})


def sealing(tool: Tool | None = None) -> Play:
    """Answers with reasoning that it seals; refuses foreign and unsealed reasoning."""

    async def play(exchange: Exchange) -> None:
        request = exchange.request
        account, protocol, body = request.account, request.protocol, request.json
        proofs = proofs_in(protocol, body)
        if any(maker(proof) != account for proof in proofs):
            return await refusal(protocol)(exchange)
        if protocol == "messages" and broken_loop(body):
            words = (
                "messages.1.content.0.type: Expected `thinking` or "
                "`redacted_thinking`, but found `tool_use`."
            )
            return await refusal(protocol, words)(exchange)
        answer = Answer(reasoning="hm", proof=seal(account), tool=tool)
        await plays.ok(answer)(exchange)

    return play


@dataclass
class Talk:
    """
    One conversation: its history grows by what is answered, reasoning and all.

    Attributes:
        headers: name the session.
        extra: more of the body, in every turn.
    """

    client: Client
    protocol: str
    session: str
    history: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    stream: bool = True
    sent: bytes = b""

    async def turn(self, model: str, said: Any = "say something") -> Reply:
        """Ask *said*; the answer must be whole."""
        reply = await self.ask(model, said)
        assert 200 == reply.status, reply.body
        if self.stream and self.protocol == "messages":
            assert "message_stop" == reply.last.kind
        self.history += answered(self.protocol, reply)
        return reply

    async def ask(self, model: str, said: Any = "say something") -> Reply:
        """Ask *said*, whatever comes of it."""
        self.history.append({"role": "user", "content": said})
        key = "input" if self.protocol == "responses" else "messages"
        body = {"model": model, key: self.history, "stream": self.stream, **self.extra}
        if self.protocol == "messages":
            body.setdefault("max_tokens", 4096)
        self.sent = json.dumps(body).encode()  # with blanks: others would not write it
        header = "session-id"
        if self.protocol == "messages":
            header = "x-claude-code-session-id"
        path = "/v1/responses" if self.protocol == "responses" else "/v1/messages"
        headers = {header: self.session, "content-type": "application/json"}
        return await self.client.send(path, self.sent, headers=headers)

    def made_by(self) -> list[str]:
        """Who sealed the reasoning in the history, in order."""
        said = {"input": self.history, "messages": self.history}
        proofs = proofs_in(self.protocol, said)
        return [maker(proof) for proof in proofs]


def answered(protocol: str, reply: Reply) -> list[dict[str, Any]]:
    """What a client adds to its history of an answer."""
    if protocol == "messages":
        return [{"role": "assistant", "content": _blocks(reply)}]
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return list(reply.json["output"])
    events = [one.json for one in reply.events if one.data != "[DONE]"]
    return [one["item"] for one in events if one["type"] == "response.output_item.done"]


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    """The content blocks of a Messages answer."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return list(reply.json["content"])
    blocks: dict[int, dict[str, Any]] = {}
    texts: dict[int, str] = {}
    for event in (one.json for one in reply.events):
        if event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"]
        if event["type"] == "content_block_delta":
            at, delta = event["index"], event["delta"]
            for key in ("thinking", "text", "signature"):
                if key in delta:
                    blocks[at][key] = (blocks[at].get(key) or "") + delta[key]
            texts[at] = texts.get(at, "") + delta.get("partial_json", "")
    for at, text in texts.items():
        if text:
            blocks[at]["input"] = orjson.loads(text)
    for block in blocks.values():
        block.pop("citations", None)
    return list(blocks.values())


def sent_to(upstream: ScriptedUpstream, account: str = "") -> list[list[str]]:
    """Who sealed the reasoning in each request that was received."""
    return [
        [maker(proof) for proof in proofs_in(request.protocol, request.json)]
        for request in upstream.received(account)
    ]
