"""
The table of failures, by the words in which upstreams tell them.

Providers hide overload, used-up quotas and refusals inside 200 streams, in plain JSON
where a stream should be, and once in a while in the answer's own text. A failure is
read into ``Told`` whatever its form; ``meaning`` looks its words up.

Rule 1: one row a word; protocols share the rows, since gateways in between mix them.
Rule 2: a strong word decides. A weak one (``invalid_request_error``) may be bettered
        by the beginning of the message, never by its middle: clients can make an
        upstream quote them.
Rule 3: an unknown failure is the upstream's.

Sources: the vendors' error references and SDK types; reports of users of comparable
gateways for what is told inside streams and for the texts.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Literal, NamedTuple


class Kind(Enum):
    """What a failure says, whoever is to blame for it."""

    OVERLOADED = "overloaded"  # no capacity at the moment
    RATE_LIMITED = "rate_limited"  # too much in a short time
    QUOTA = "quota"  # the account's money or window is used up
    REFUSED = "refused"  # the account's credential or permission
    FAILED = "failed"  # the upstream broke
    NO_MODEL = "no_model"  # this account has no such model
    FOREIGN = "foreign"  # reasoning that another account encrypted or signed
    CLIENT = "client"  # the request itself


class Told(NamedTuple):
    """
    A failure in the upstream's words; empty or None where it said nothing.

    Attributes:
        status: an HTTP status told inside the body, 0 if none.
        fields: the whole error object, for waits and reset times.
    """

    code: str = ""
    type: str = ""
    message: str = ""
    param: str | None = None
    status: int = 0
    fields: dict[str, Any] = {}


class Meaning(NamedTuple):
    """What a failure says; *sure* if a strong word or the message decided it."""

    kind: Kind
    sure: bool


STRONG: dict[Kind, tuple[str, ...]] = {
    Kind.OVERLOADED: (
        "server_is_overloaded",
        "overloaded_error",
        "overloaded",
        "engine_overloaded",
        "engine_overloaded_error",
        "model_overloaded",
        "model_at_capacity",
        "capacity_exceeded",
        "service_unavailable_error",
        "service_unavailable",
        "unavailable",
    ),
    Kind.RATE_LIMITED: (
        "rate_limit_exceeded",
        "slow_down",
        "too_many_requests",
        "resource_exhausted",
        "requests",
        "tokens",
        "concurrency_limit_exceeded",
    ),
    Kind.QUOTA: (
        "insufficient_quota",
        "usage_limit_reached",
        "usage_not_included",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "enforced_spend_limit_reached",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "payment_required",
        "quota_exceeded",
        "insufficient_balance",
        "insufficient_credits",
    ),
    Kind.REFUSED: (
        "authentication_error",
        "invalid_api_key",
        "invalid_authentication",
        "account_deactivated",
        "organization_disabled",
        "token_expired",
        "token_invalidated",
        "unauthorized",
        "unsupported_country_region_territory",
    ),
    Kind.FAILED: (
        "internal_error",
        "internal_server_error",
        "timeout_error",
        "upstream_error",
        "bad_gateway",
        "gateway_timeout",
        "model_error",
        "vector_store_timeout",
        "stream_error",
    ),
    Kind.NO_MODEL: (
        "model_not_found",
        "model_not_available",
        "model_not_supported",
        "unsupported_model",
        "deploymentnotfound",
    ),
    Kind.FOREIGN: ("invalid_encrypted_content",),
    Kind.CLIENT: (
        "context_length_exceeded",
        "string_above_max_length",
        "invalid_prompt",
        "content_policy_violation",
        "content_filter",
        "cyber_policy",
        "bio_policy",
        "misalignment_policy_violation",
        "data_residency_mismatch",
        "previous_response_not_found",
        "invalid_value",
        "invalid_type",
        "invalid_json",
        "invalid_json_schema",
        "invalid_function_parameters",
        "missing_required_parameter",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        "request_too_large",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "invalid_image_mode",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    ),
}

WEAK: dict[Kind, tuple[str, ...]] = {
    Kind.CLIENT: (
        "invalid_request_error",
        "invalid_request",
        "not_found_error",
        "not_found",
        "conflict_error",
    ),
    Kind.REFUSED: ("permission_error", "permission_denied"),
    Kind.RATE_LIMITED: ("rate_limit_error",),
    Kind.FAILED: ("server_error", "api_error"),
}

TEXTS: tuple[tuple[Kind, str], ...] = (
    (
        Kind.OVERLOADED,
        r"(selected |the |this |that )?(requested )?model\b[^.]{0,80}?"
        r"\b(is|are) (currently |temporarily )?(at capacity|overloaded)",
    ),
    (
        Kind.OVERLOADED,
        r"(sorry, )?((our|the) )?(servers?|engine|service)( is| are)? "
        r"(currently |temporarily )?(overloaded|at capacity|unavailable)",
    ),
    (Kind.OVERLOADED, r"(upstream )?overloaded\b"),
    (Kind.RATE_LIMITED, r"rate limit (reached|exceeded)\b"),
    (Kind.RATE_LIMITED, r"(sorry, )?too many (concurrent )?requests\b"),
    (Kind.QUOTA, r"your credit balance is too low\b"),
    (Kind.QUOTA, r"you exceeded your current quota\b"),
    (Kind.QUOTA, r"you('ve| have) (hit|reached) your (\w+ )?usage limits?\b"),
    (Kind.REFUSED, r"(this|your) organization has been disabled\b"),
    (Kind.REFUSED, r"incorrect api key\b|invalid x-api-key\b"),
    (Kind.FAILED, r"an error occurred while processing your request\b"),
    (Kind.FAILED, r"the server had an error\b|internal server error\b"),
    (Kind.NO_MODEL, r"the model .{1,200} (does not exist|is not supported)\b"),
    (Kind.NO_MODEL, r"model: \S+$"),
    (Kind.NO_MODEL, r"project .{1,200} does not have access to model\b"),
    (Kind.FOREIGN, r"(the )?encrypted content\b.* could not be (verified|decrypted)"),
    (Kind.FOREIGN, r"(\S+: )?invalid `?signature`? in `?thinking`? block\b"),
    (Kind.FOREIGN, r"\S+\.thinking\.signature(\.\S+)?: "),
    (Kind.FOREIGN, r"\S+\.redacted_thinking\.data(\.\S+)?: "),
    (
        Kind.FOREIGN,
        r"(\S+: )?expected `?thinking`? or `?redacted_thinking`?, but found",
    ),
    (
        Kind.FOREIGN,
        r"(\S+: )?`?thinking`? or `?redacted_thinking`? blocks in the latest assistant "
        r"message cannot be modified",
    ),
    (Kind.FOREIGN, r"item with id '?(rs|cmp)_\S+ not found"),
    (Kind.CLIENT, r"prompt is too long\b"),
)

ANSWERS: tuple[str, ...] = (
    "Selected model is at capacity. Please try a different model.",
    "The model is currently overloaded. Please try again later.",
    "The server is currently overloaded. Please try again later.",
    "The service is temporarily overloaded. Please try again later.",
)
"""Sentences that upstreams were seen to give as a whole answer when overloaded."""


def _by_word(table: dict[Kind, tuple[str, ...]]) -> dict[str, Kind]:
    return {word: kind for kind, words in table.items() for word in words}


_STRONG = _by_word(STRONG)
_WEAK = _by_word(WEAK)
_TEXTS = tuple((kind, re.compile(text, re.I | re.S)) for kind, text in TEXTS)
_ANSWERS = frozenset(text.casefold() for text in ANSWERS)
_BEGINNINGS = frozenset(text[:end] for text in _ANSWERS for end in range(len(text)))

MAX_OPENING_CHARS = 1024
"""A longer text is an answer, whatever it says; all of those above are shorter."""


def told_in(data: object) -> Told | None:
    """
    Read the failure in *data*, an event's or a body's JSON; None if there is none.

    Forms: ``response.failed``, the nested and the flat ``error`` event, Chat's error
    chunk (also inside a choice), Messages' error, ``{"detail": …}``, an array of one.
    """
    if isinstance(data, list):
        return told_in(data[0]) if data else None
    if not isinstance(data, dict):
        return None
    for holder in (data.get("response"), data, _first_choice(data)):
        if isinstance(holder, dict) and (error := holder.get("error")):
            return _read(error, data)
    if data.get("type") == "error":
        return _read(data, {})
    if data.get("type") in ("response.failed", "response.cancelled"):
        return Told()
    detail = data.get("detail")
    return _read(detail, data) if detail and "choices" not in data else None


def meaning(told: Told) -> Meaning:
    """What *told* says."""
    words = [word.lower() for word in (told.code, told.type) if word]
    for word in words:
        if word in _STRONG:
            return Meaning(_STRONG[word], True)
    for kind, text in _TEXTS:
        if text.match(told.message):
            return Meaning(kind, True)
    for word in words:
        if word in _WEAK:
            return Meaning(_WEAK[word], False)
    return Meaning(Kind.FAILED, False)


def answer_so_far(text: str) -> Literal["no", "maybe", "yes"]:
    """
    Whether the whole answer *text* is an overload told as plain text.

    "maybe": it could still become one, hold it back; "yes": it is one if the
    answer ends here, without a tool call. Anything longer is a real answer.
    """
    if len(text) > MAX_OPENING_CHARS:
        return "no"
    said = text.strip().casefold()
    if said in _ANSWERS:
        return "yes"
    return "maybe" if said in _BEGINNINGS else "no"


def _first_choice(data: dict[str, Any]) -> object:
    choices = data.get("choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _read(error: object, around: dict[str, Any]) -> Told:
    if not isinstance(error, dict):
        return Told(message=str(error), status=_status(around), fields=around)
    code = error.get("code")
    kind = error.get("type") or error.get("status")
    details = error.get("details")
    if not code and isinstance(details, dict):  # Anthropic's finer code
        code = details.get("error_code")
    param = error.get("param")
    return Told(
        code=_word(code),
        type="" if error is around or kind == "error" else _word(kind),
        message=str(error.get("message") or ""),
        param=param if isinstance(param, str) else None,
        status=_status(error) or _status(around),
        fields=error,
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) and not value.isdigit() else ""


def _status(holder: dict[str, Any]) -> int:
    """An HTTP error status that stands where others put a word."""
    for key in ("status", "status_code", "code"):
        value = str(holder.get(key) or "")
        if len(value) == 3 and value.isdecimal() and "400" <= value <= "599":
            return int(value)
    return 0
