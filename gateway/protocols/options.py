"""
What a server takes where its protocol does not say it: the settings of a conversion.

Rule 1: the defaults here are those of the vendor's own server. What other servers
        differ in is a row of ``dialects``; what one account differs in is in its
        ``[account.convert]``.
Rule 2: every field is a key of ``[account.convert]``, by the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
"""Every reasoning effort that a client can ask for, in ascending order."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    "auto" goes by the name of the upstream model.

    Attributes:
        default_max_tokens: Messages wants ``max_tokens``: written when the client
            gave none; lowered to the model's own limit where that is known.
        max_output_tokens: the largest output limit that the models take; a larger
            wish is lowered to it. 0: as the model's name says.
        thinking: Messages: "adaptive", "manual" (budgets). All: "none" leaves every
            wish to think out.
        efforts: the reasoning efforts that the models take; another becomes the
            nearest of them, the lower of two. (): every effort.
        no_effort: what becomes of the wish not to think where "none" is no effort
            of the server's: "nearest", or "omit" (nothing is said).
        thinking_back: send earlier thinking back although nothing proves it:
            ``reasoning_content`` in Chat, unsigned thinking blocks in Messages.
        chat_reasoning: Chat: the older name of ``thinking_back``.
        chat_thinking: Chat: how thinking is asked for. "effort":
            ``reasoning_effort``; "switch": ``thinking.type``, and the effort where
            ``efforts`` has it; "enable": ``enable_thinking``.
        thinks_when_forced: whether the models think although a call is forced; else
            thinking is turned off for such a request (Chat, Messages).
        sampling: whether ``temperature``, ``top_p``, ``top_k`` are sent.
        system_messages: system turns inside the conversation are kept, or hoisted:
            one system message leads, later ones become marked turns of the user
            (Messages: all move up to ``system``).
        roles: "free", or "alternate": an assistant's turn comes between a tool's
            result and the user's next turn, neighbours of one role are one turn.
        prefill: a conversation that ends with the assistant: "keep" (as it is),
            "prefix" (marked ``prefix: true``), "turn" (a turn of the user follows).
        ids: the call ids that the server takes: "narrow" (64 of A-Z a-z 0-9 _ -),
            "short" (40 of any character), "nine" (9 of A-Z a-z 0-9), "verbatim".
        unsigned_calls: Chat: calls that lack the signature that Gemini 3 wants: "keep"
            (as they are), or "fill" (Google's filler takes its place).
        cache: Messages: mark the end of the prompt for caching; "auto": when the
            client named a cache key and set no marks of its own.
        responses_cache_marks: Responses: write cache marks as breakpoints on parts.
        chat_max_tokens_field: the name older servers know is ``max_tokens``.
        chat_extras: whether OpenAI's own Chat fields are known (service_tier,
            prompt_cache_key, verbosity, safety_identifier, efforts above high).
        chat_user: how the end user is named; "auto": by ``chat_extras``.
        chat_cache_marks: Chat: the same.
        chat_system_role: what instructions and developer turns are written as.
        stream_options: Chat: whether ``stream_options`` is a known field.
        parallel_tool_calls: whether ``parallel_tool_calls`` is a known field.
        strict: whether ``strict`` is a known field of a tool and of a schema.
        max_tools: the most tools that the server takes; 0: any number.
        max_tool_description: the longest description of a tool, in characters; a
            longer one goes on in the instructions. 0: as the model's name says.
        schema: the kind of JSON schema that the server takes for tools and answers;
            "auto": as the protocol's vendor.
        json_schema: whether the server can force a JSON schema.
        images: whether the models see images.
        image_urls: whether the server fetches images by their URL.
        files: whether the models read documents.
        fill_missing_results: answer calls without result by an error result.
    """

    default_max_tokens: int = 32000
    max_output_tokens: int = 0
    thinking: Literal["auto", "adaptive", "manual", "none"] = "auto"
    efforts: tuple[str, ...] = ()
    no_effort: Literal["nearest", "omit"] = "nearest"
    thinking_back: bool = False
    chat_reasoning: bool = False
    chat_thinking: Literal["effort", "switch", "enable"] = "effort"
    thinks_when_forced: bool = True
    sampling: Literal["auto", "keep", "drop"] = "auto"
    system_messages: Literal["auto", "keep", "hoist"] = "auto"
    roles: Literal["free", "alternate"] = "free"
    prefill: Literal["auto", "keep", "prefix", "turn"] = "auto"
    ids: Literal["narrow", "short", "nine", "verbatim"] = "narrow"
    unsigned_calls: Literal["keep", "fill"] = "keep"
    cache: Literal["auto", "always", "never"] = "auto"
    responses_cache_marks: bool = True
    chat_max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = (
        "max_completion_tokens"
    )
    chat_extras: bool = True
    chat_user: Literal["auto", "safety_identifier", "user", "none"] = "auto"
    chat_cache_marks: bool = False
    chat_system_role: Literal["system", "developer"] = "system"
    stream_options: bool = True
    parallel_tool_calls: bool = True
    strict: bool = True
    max_tools: int = 0
    max_tool_description: int = 0
    schema: Literal["auto", "openai", "anthropic", "gemini", "kimi", "open"] = "auto"
    json_schema: bool = True
    images: bool = True
    image_urls: bool = True
    files: bool = True
    fill_missing_results: bool = False

    def schema_kind(self, vendor: str) -> str:
        """
        The kind of JSON schema that the server takes.

        Args:
            vendor: the kind that the protocol's vendor takes.
        """
        return vendor if self.schema == "auto" else self.schema


OptionsOf = Callable[[str], Options]
"""What a server takes of requests for a model, which it knows by that name."""
