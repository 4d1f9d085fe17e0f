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


NAME = r"[A-Za-z0-9_-]{1,64}"
IMAGE_TYPES = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
UNIONS = ("anyOf", "oneOf", "allOf")

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
_ANTHROPIC = (
    (
        "text_blank",
        "messages[].content[].text",
        None,
        "mended",
        "text content blocks must contain non-whitespace text",
    ),
    (
        "turn_empty",
        "messages[].content",
        None,
        "mended",
        "user messages must have non-empty content",
    ),
    (
        "tool_name",
        "tools[].name",
        NAME,
        "mended",
        "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    (
        "tool_twice",
        "tools[].name",
        None,
        "dropped",
        "tools: Tool names must be unique.",
    ),
    (
        "tool_schema_object",
        "tools[].input_schema.type",
        "object",
        "mended",
        "input_schema.type: Field required; Input should be 'object'",
    ),
    (
        "tool_schema_union",
        "tools[].input_schema",
        UNIONS,
        "mended",
        "input_schema does not support oneOf, allOf, or anyOf at the top level",
    ),
    (
        "tool_schema_keys",
        "tools[].input_schema.properties",
        r"[a-zA-Z0-9_.-]{1,64}",
        "dropped",
        "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'",
    ),
    (
        "format_open",
        "output_config.format.schema.**",
        None,
        "mended",
        "For 'object' type, 'additionalProperties' must be explicitly set to false",
    ),
    (
        "format_keywords",
        "output_config.format.schema.**",
        frozenset(
            "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength "
            "maxLength maxItems uniqueItems contains minContains maxContains "
            "prefixItems "
            "minProperties maxProperties patternProperties propertyNames "
            "dependentRequired dependentSchemas unevaluatedProperties unevaluatedItems "
            "oneOf not if then else".split()
        ),
        "mended",
        "For 'integer' type, property 'minimum' is not supported",
    ),
    (
        "format_recursive",
        "output_config.format.schema",
        None,
        "refused",
        "Recursive schemas are not supported",
    ),
    (
        "image_type",
        "messages[].content[].source.media_type",
        IMAGE_TYPES,
        "refused",
        "Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
    ),
    (
        "image_type_true",
        "messages[].content[].source.media_type",
        None,
        "mended",
        "The image was specified using the image/png media type, but the image "
        "appears to be a image/jpeg image",
    ),
    (
        "image_bytes",
        "messages[].content[].source.data",
        10 * 1024 * 1024,
        "refused",
        "image exceeds 10 MB maximum (of base64)",
    ),
    (
        "image_pixels",
        "messages[].content[].source.data",
        8000,
        "refused",
        "At least one of the image dimensions exceed max allowed size: 8000 pixels",
    ),
    (
        "document_type",
        "messages[].content[].source.media_type",
        frozenset(("application/pdf", "text/plain")),
        "refused",
        "Input should be 'application/pdf'",
    ),
    (
        "file_bytes",
        "messages[].content[].source.data",
        32 * 1024 * 1024,
        "refused",
        "Maximum request size: 32 MB (PDF support)",
    ),
    (
        "call_id",
        "messages[].content[].id",
        NAME,
        "mended",
        "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    (
        "temperature",
        "temperature",
        1,
        "mended",
        "temperature: range: 0..1",
    ),
    (
        "stop_blank",
        "stop_sequences[]",
        None,
        "mended",
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    (
        "user_id",
        "metadata.user_id",
        256,
        "mended",
        "metadata.user_id: String should have at most 256 characters",
    ),
    (
        "cache_marks",
        "cache_control",
        4,
        "dropped",
        "A maximum of 4 blocks with cache_control may be provided.",
    ),
    (
        "cache_order",
        "cache_control.ttl",
        None,
        "mended",
        "a ttl='1h' cache_control block must not come after a ttl='5m' one",
    ),
    (
        "thinking_forced",
        "thinking",
        None,
        "dropped",
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    (
        "ends_with_assistant",
        "messages[-1]",
        None,
        "mended",
        "This model does not support assistant message prefill. The conversation "
        "must end with a user message.",
    ),
    (
        "begins_with_assistant",
        "messages[0]",
        None,
        "mended",
        'messages: first message must use the "user" role',
    ),
)

REFUSALS: dict[tuple[str, str], VendorLimit] = {
    (protocol, row[0]): VendorLimit(protocol, *row)  # type: ignore[arg-type]
    for protocol, rows in (
        ("chat", (*_OPENAI, *_CHAT)),
        ("responses", (*_OPENAI, *_RESPONSES)),
        ("messages", _ANTHROPIC),
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
