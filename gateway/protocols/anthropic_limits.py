"""
What Anthropic refuses of all that a conversion can produce: rows of ``vendor_limits``.

Source: see ``vendor_limits``.
"""

from __future__ import annotations

from gateway.protocols.limit_values import IMAGE_TYPES, NAME, UNIONS

ANTHROPIC = (
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
