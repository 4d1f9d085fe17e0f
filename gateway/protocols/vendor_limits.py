"""
What the vendors refuse of all that a conversion can produce.

Rule 1: a refusal is a row; the code and the tests' strict servers have their limits
        from here.
Rule 2: what can be mended without another meaning is mended; a hint is dropped and
        named; what would mean something else is refused by ourselves, with the path
        in the client's body.

Sources: OpenAI's API reference and guides (function calling, structured outputs,
images, files), Anthropic's (Messages, vision, PDF support, structured outputs, extended
thinking, prompt caching), and the words of their 400s as users report them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from gateway.protocols.anthropic_limits import ANTHROPIC
from gateway.protocols.limit_values import IMAGE_TYPES, NAME, UNIONS


class VendorLimit(NamedTuple):
    """
    One thing that the server of a protocol's vendor answers with 400.

    Attributes:
        protocol: the vendor's: "messages" is Anthropic, the others are OpenAI.
        where: the place in the upstream's body.
        limit: the largest or smallest value, or what is allowed; None: a rule.
        answer: what the conversion does.
        source: the vendor's words.
    """

    protocol: Literal["responses", "chat", "messages"]
    name: str
    where: str
    limit: Any
    answer: Literal["mended", "dropped", "refused"]
    source: str


_OPENAI = (
    (
        "tool_name",
        "tools[].name",
        NAME,
        "mended",
        "does not match '^[a-zA-Z0-9_-]+$'; maximum length 64",
    ),
    (
        "tools",
        "tools",
        128,
        "refused",
        "Invalid 'tools': array too long. Expected an array with maximum length 128",
    ),
    (
        "tool_description",
        "tools[].description",
        1024,
        "mended",
        "Expected a string with maximum length 1024 (gpt-4o, o3; Azure)",
    ),
    (
        "tool_schema_object",
        "tools[].parameters",
        "object",
        "mended",
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'",
    ),
    (
        "tool_schema_properties",
        "tools[].parameters",
        None,
        "mended",
        "Invalid schema for function: object schema missing properties",
    ),
    (
        "tool_schema_items",
        "tools[].parameters.**",
        None,
        "mended",
        "Invalid schema for function: array schema missing items",
    ),
    (
        "tool_schema_union",
        "tools[].parameters",
        (*UNIONS, "enum", "not"),
        "mended",
        "must not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level",
    ),
    (
        "tool_strict",
        "tools[].strict",
        None,
        "mended",
        "'required' is required to be supplied and to be an array including every key",
    ),
    (
        "format_name",
        "response_format.json_schema.name",
        NAME,
        "mended",
        "does not match '^[a-zA-Z0-9_-]+$'; maximum length 64",
    ),
    (
        "format_strict",
        "response_format.json_schema.strict",
        None,
        "mended",
        "'additionalProperties' is required to be supplied and to be false",
    ),
    (
        "image_type",
        "messages[].content[].image_url",
        IMAGE_TYPES,
        "refused",
        "You uploaded an unsupported image. Please make sure your image has of one the "
        "following formats: ['png', 'jpeg', 'gif', 'webp']",
    ),
    (
        "image_bytes",
        "messages[].content[].image_url",
        50_000_000,
        "refused",
        "Images: up to 50 MB total payload size per request",
    ),
    (
        "file_bytes",
        "messages[].content[].file",
        50_000_000,
        "refused",
        "Each file must be less than 50 MB",
    ),
)
_CHAT = (
    (
        "image_detail",
        "messages[].content[].image_url.detail",
        frozenset(("auto", "low", "high")),
        "mended",
        "Supported values are: 'low', 'high', and 'auto'",
    ),
    (
        "file_type",
        "messages[].content[].file",
        "application/pdf",
        "refused",
        "Invalid file data: Expected a base64-encoded data URL with an "
        "application/pdf MIME type",
    ),
    (
        "stop",
        "stop",
        4,
        "mended",
        "Invalid 'stop': array too long. Expected an array with maximum length 4",
    ),
    (
        "stop_thinking",
        "stop",
        None,
        "mended",
        "Unsupported parameter: 'stop' is not supported with this model (o3, gpt-5)",
    ),
    (
        "call_id",
        "messages[].tool_calls[].id",
        40,
        "mended",
        "string too long. Expected a string with maximum length 40",
    ),
)
_RESPONSES = (
    (
        "image_detail",
        "input[].content[].detail",
        frozenset(("auto", "low", "high", "original")),
        "dropped",
        "Supported values are: 'low', 'high', 'auto' and 'original'",
    ),
    (
        "max_output_tokens",
        "max_output_tokens",
        16,
        "mended",
        "integer below minimum value. Expected a value >= 16",
    ),
    (
        "call_id",
        "input[].call_id",
        64,
        "mended",
        "string too long. Expected a string with maximum length 64",
    ),
)
REFUSALS: dict[tuple[str, str], VendorLimit] = {
    (protocol, row[0]): VendorLimit(protocol, *row)  # type: ignore[arg-type]
    for protocol, rows in (
        ("chat", (*_OPENAI, *_CHAT)),
        ("responses", (*_OPENAI, *_RESPONSES)),
        ("messages", ANTHROPIC),
    )
    for row in rows
}


def limit(protocol: str, name: str) -> Any:
    """The limit of one row."""
    return REFUSALS[protocol, name].limit


def maybe_limit(protocol: str, name: str) -> Any:
    """The limit of one row; None if the vendor has no such limit."""
    row = REFUSALS.get((protocol, name))
    return row and row.limit
