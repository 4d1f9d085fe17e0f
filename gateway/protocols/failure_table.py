"""
The table of failures, by the words in which upstreams state them.

Rule 1: one row a word; protocols and vendors share the rows, since gateways in between
        mix them.
Rule 2: a strong word decides, the finest first: ``details[].reason``, code, type. A
        weak one (``invalid_request_error``) may be bettered by the beginning of the
        message, never by its middle: clients can make an upstream quote them. A
        failure that names a parameter is about the request, whatever its message.
Rule 3: an unknown failure is the upstream's.

Sources: see ``failure_forms``; reports of users of comparable gateways for what
streams contain and for the texts.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from gateway.protocols.failure_forms import FailureWords


class FailureKind(Enum):
    """What a failure says; who caused it is judged elsewhere."""

    OVERLOADED = "overloaded"  # no capacity at the moment
    RATE_LIMITED = "rate_limited"  # too much in a short time
    QUOTA = "quota"  # the account's money or window is used up
    REFUSED = "refused"  # the account's credential or permission
    FAILED = "failed"  # the upstream broke
    NO_MODEL = "no_model"  # this account has no such model
    FOREIGN = "foreign"  # reasoning that another account encrypted or signed
    CLIENT = "client"  # the request itself


class FailureMeaning(NamedTuple):
    """What a failure says; *sure* if a strong word or the message decided it."""

    kind: FailureKind
    sure: bool


STRONG: dict[FailureKind, tuple[str, ...]] = {
    FailureKind.OVERLOADED: (
        # OpenAI, Anthropic
        *("server_is_overloaded", "overloaded_error", "overloaded"),
        *("engine_overloaded", "model_overloaded", "model_at_capacity"),
        *("capacity_exceeded", "service_unavailable_error", "service_unavailable"),
        *("unavailable",),  # Gemini
        *("engine_overloaded_error",),  # Kimi
        *("nocapacity", "serviceunavailable", "server_busy"),  # Azure, others
        *("service_tier_capacity_exceeded", "3505"),  # Mistral
        *("1305", "1312"),  # GLM: too many ask for this model
        *("modelservingerror", "modelserviceunavailable"),  # DashScope
        *("serviceunavailableexception", "modelnotreadyexception"),  # Bedrock
        *("unavailable_error",),  # llama.cpp: it loads the model
    ),
    FailureKind.RATE_LIMITED: (
        *("rate_limit_exceeded", "slow_down", "too_many_requests", "requests"),
        *("tokens", "concurrency_limit_exceeded", "rate_limit_reached"),
        *("resource_exhausted",),  # Gemini
        *("rate_limit_reached_error",),  # Kimi
        *("rate_limited", "1300"),  # Mistral
        *("1302", "1303"),  # GLM: at once, a minute
        *("throttling", "throttling.ratequota", "throttling.burstrate"),  # DashScope
        *("throttling.allocationquota", "limitrequests"),
        *("base_resp_1002", "base_resp_1039", "base_resp_1041"),  # MiniMax
        *("base_resp_2045",),
        *("throttlingexception", "toomanyrequestsexception"),  # Bedrock
    ),
    FailureKind.QUOTA: (
        # OpenAI, Codex
        *("insufficient_quota", "usage_limit_reached", "usage_not_included"),
        *("usage_limit_exceeded", "quota_exceeded", "monthly_quota_exceeded"),
        *("billing_hard_limit_reached", "billing_not_active", "payment_required"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
        # Anthropic
        *("billing_error", "credit_balance_exhausted", "enforced_spend_limit_reached"),
        *("organization_usage_limit_exceeded", "spend_limit_exceeded"),
        *("out_of_credits", "credits_exhausted"),
        *("billing_disabled", "consumer_overdue"),  # Google
        *("insufficient_balance", "insufficient_credits"),  # DeepSeek, OpenRouter
        *("insufficient_balance_error", "exceeded_current_quota_error"),  # Kimi
        *("1113", "1304", "1308", "1309", "1310"),  # GLM: money, day, plan
        *("arrearage", "allocationquota.freetieronly"),  # DashScope
        *("prepaidbilloverdue", "postpaidbilloverdue", "commoditynotpurchased"),
        *("base_resp_1008", "base_resp_2056"),  # MiniMax
        *("servicequotaexceededexception",),  # Bedrock
    ),
    FailureKind.REFUSED: (
        *("authentication_error", "invalid_api_key", "invalid_authentication"),
        *("account_deactivated", "organization_disabled", "organization_deactivated"),
        *("token_expired", "token_invalidated", "unauthorized", "api_key_disabled"),
        *("mismatched_organization", "invalid_organization", "mismatched_project"),
        *("unsupported_country_region_territory", "ip_not_authorized"),
        # Google
        *("unauthenticated", "api_key_invalid", "api_key_expired"),
        *("api_key_service_blocked", "api_key_http_referrer_blocked"),
        *("api_key_ip_address_blocked", "access_token_expired"),
        *("access_token_type_unsupported", "access_token_scope_insufficient"),
        *("consumer_suspended", "consumer_invalid", "service_disabled"),
        *("user_project_denied", "credentials_missing", "account_state_invalid"),
        # Kimi
        *("invalid_authentication_error", "incorrect_api_key_error"),
        *("access_terminated_error",),
        *("permissiondenied",),  # Azure
        # GLM: the token, the account
        *("1000", "1001", "1002", "1003", "1004", "1110", "1111", "1112"),
        *("1120", "1121", "1220", "1313"),
        # DashScope
        *("invalidapikey", "invalid_apikey", "accessdenied", "workspace.accessdenied"),
        *("accessdenied.unpurchased", "app.accessdenied"),
        *("base_resp_1004", "base_resp_2049"),  # MiniMax
        # Amazon
        *("accessdeniedexception", "unrecognizedclientexception"),
        *("expiredtokenexception", "invalidsignatureexception"),
        *("missingauthenticationtokenexception", "invalidclienttokenid"),
        *("incompletesignatureexception", "incompletesignature"),
        *("10000", "10001"),  # Cloudflare
    ),
    FailureKind.FAILED: (
        *("internal_error", "internal_server_error", "timeout_error"),
        *("upstream_error", "bad_gateway", "gateway_timeout", "model_error"),
        *("vector_store_timeout", "stream_error"),
        *("internalerror", "internalservererror", "internalserverexception"),
        *("modelerrorexception", "modeltimeoutexception"),
        *("modelstreamerrorexception",),
        *("deadline_exceeded", "internal", "internalerror.algo"),
        *("1230", "1234"),  # GLM
        *("base_resp_1000", "base_resp_1001", "base_resp_1013"),
        *("base_resp_1024", "base_resp_1033"),
    ),
    FailureKind.NO_MODEL: (
        *("model_not_found", "model_not_available", "model_not_supported"),
        *("unsupported_model", "model_not_found_error", "model_not_exist"),
        *("deploymentnotfound",),  # Azure
        *("invalid_model", "1500"),  # Mistral
        *("1211", "1311"),  # GLM: none such, not in this plan
        *("resource_not_found_error",),  # Kimi
        *("modelnotfound", "model.accessdenied"),  # DashScope
        *("base_resp_2061",),  # MiniMax
    ),
    FailureKind.FOREIGN: ("invalid_encrypted_content",),
    FailureKind.CLIENT: (
        *("context_length_exceeded", "string_above_max_length", "invalid_prompt"),
        *("array_above_max_length", "integer_above_max_value"),
        *("content_policy_violation", "content_filter", "cyber_policy", "bio_policy"),
        *("misalignment_policy_violation", "data_residency_mismatch"),
        *("previous_response_not_found", "invalid_value", "invalid_type"),
        *("invalid_json", "invalid_json_schema", "invalid_function_parameters"),
        *("missing_required_parameter", "unknown_parameter", "unsupported_parameter"),
        *("unsupported_value", "request_too_large", "invalid_image"),
        *("invalid_image_format", "invalid_base64_image", "invalid_image_url"),
        *("invalid_image_mode", "image_too_large", "image_too_small"),
        *("image_parse_error", "image_content_policy_violation"),
        *("image_file_too_large", "unsupported_image_media_type"),
        *("empty_image_file", "failed_to_download_image", "image_file_not_found"),
        *("validation_error",),  # FastAPI
        *("responsibleaipolicyviolation",),  # Azure
        *("exceed_context_size_error",),  # llama.cpp
        *("1210", "1213", "1214", "1215", "1261", "1301"),  # GLM
        # DashScope
        *("datainspectionfailed", "data_inspection_failed", "invalidparameter"),
        *("invalid_parameter_error",),
        *("base_resp_1026", "base_resp_1027", "base_resp_1042"),  # MiniMax
        *("base_resp_2013",),
        *("validationexception",),  # Bedrock
    ),
}

WEAK: dict[FailureKind, tuple[str, ...]] = {
    FailureKind.CLIENT: (
        *("invalid_request_error", "invalid_request", "not_found_error", "not_found"),
        *("conflict_error", "bad_request", "bad_request_error", "badrequest"),
        *("invalid_argument", "failed_precondition", "out_of_range"),  # Gemini
        *("badrequesterror", "notfounderror", "unprocessableentityerror"),  # vLLM
        *("validationerror", "invalidrequesterror", "unprocessable_entity"),
    ),
    FailureKind.REFUSED: (
        *("permission_error", "permission_denied", "forbidden", "access_denied"),
        *("request_forbidden", "permission_denied_error"),
    ),
    FailureKind.RATE_LIMITED: ("rate_limit_error", "ratelimiterror"),
    FailureKind.FAILED: (
        "server_error",
        "api_error",
        "unknown",
        "invalid_response_error",
    ),
}

_KEY = r"(?:the |your |this |provided )*(?:api|access|subscription)[ _-]?key"
_END = r"\s*(?:[.,:;!(]|$)"
_WHOSE = r"(?:the |your |this )?(?:account|organization|organisation|project|team)\b"

TEXTS: tuple[tuple[FailureKind, str], ...] = (
    (
        FailureKind.OVERLOADED,
        r"(?:selected |the |this |that )?(?:requested )?model\b[^.]{0,80}?"
        r"\b(?:is|are) (?:currently |temporarily )?(?:at capacity|overloaded)",
    ),
    (
        FailureKind.OVERLOADED,
        r"(?:sorry, )?(?:(?:our|the) )?(?:servers?|engine|service)(?: is| are)? "
        r"(?:currently |temporarily )?(?:overloaded|at capacity|unavailable)",
    ),
    (FailureKind.OVERLOADED, r"(?:upstream )?overloaded\b"),
    (FailureKind.OVERLOADED, r"该模型当前访问量过大"),
    (FailureKind.RATE_LIMITED, r"rate limit (?:reached|exceeded)\b"),
    (FailureKind.RATE_LIMITED, r"(?:sorry, )?too many (?:concurrent )?requests\b"),
    (
        FailureKind.RATE_LIMITED,
        r"(?:this request would exceed|(?:you|request)[^.]{0,40} (?:hit|reached|"
        r"exceeded)) (?:your |the )?(?:account'?s? |organization'?s? )?"
        r"(?:[\w-]+ ){0,3}rate limits?\b",
    ),
    (FailureKind.RATE_LIMITED, r"resource (?:has been )?exhausted\b"),
    (FailureKind.QUOTA, r"(?:your )?credit balance is too low\b"),
    (FailureKind.QUOTA, r"you (?:have )?exceeded your (?:[\w-]+ ){0,3}quota\b"),
    (
        FailureKind.QUOTA,
        r"you(?:'ve| have)? (?:hit|reached|exceeded|used up) (?:your|the) "
        r"(?:[\w'-]+ ){0,4}(?:usage|spend|spending|credit|monthly|weekly|daily) "
        r"(?:[\w'-]+ )?limits?\b",
    ),
    (FailureKind.QUOTA, r"usage limit (?:reached|exceeded)\b"),
    (FailureKind.QUOTA, r"(?:weekly|monthly|daily|weekly/monthly) (?:usage )?limit\b"),
    (
        FailureKind.QUOTA,
        r"(?:you(?:'re| are) )?out of (?:extra usage|usage|credits?|quota)\b",
    ),
    (FailureKind.QUOTA, r"third-party apps now draw from your extra usage\b"),
    (
        FailureKind.QUOTA,
        r"insufficient (?:account )?(?:credits?|balance|quota|funds)\b",
    ),
    (FailureKind.QUOTA, r"this request requires more credits\b"),
    (FailureKind.QUOTA, r"(?:your )?billing (?:hard )?limit\b|billing is not active\b"),
    (FailureKind.QUOTA, r"(?:free )?(?:allocated )?quota (?:has been )?exceeded\b"),
    (
        FailureKind.QUOTA,
        _WHOSE + r"[^.]{0,120}\b(?:billing details|balance|in arrears)\b",
    ),
    (
        FailureKind.QUOTA,
        r"access denied, please make sure your account is in good stand",
    ),
    (FailureKind.QUOTA, r"余额不足|账户已欠费|您的账户已欠费"),
    (
        FailureKind.REFUSED,
        _WHOSE + r"[^.]{0,80}\b(?:has been|is|was) (?:currently )?"
        r"(?:disabled|deactivated|suspended|restricted|terminated|not active)\b",
    ),
    (
        FailureKind.REFUSED,
        r"(?:incorrect|invalid) (?:x-)?api[ -]?key(?: provided)?" + _END,
    ),
    (FailureKind.REFUSED, r"invalid x-api-key\b"),
    (
        FailureKind.REFUSED,
        _KEY
        + r" (?:is )?(?:not valid|invalid|not found|expired|disabled|revoked)"
        + _END,
    ),
    (
        FailureKind.REFUSED,
        _KEY + r" (?:has|was)(?: been)? "
        r"(?:expired|disabled|revoked|suspended|deleted|reported)\b",
    ),
    (
        FailureKind.REFUSED,
        r"authentication (?:error|failed|fails)\b|unauthori[sz]ed" + _END,
    ),
    (FailureKind.REFUSED, r"invalid (?:authentication|bearer token)" + _END),
    (FailureKind.REFUSED, r"oauth (?:token|authentication)\b"),
    (FailureKind.REFUSED, r"this credential is only authorized\b"),
    (FailureKind.REFUSED, r"access denied due to invalid subscription key\b"),
    (FailureKind.REFUSED, r"user location is not supported\b"),
    (FailureKind.REFUSED, r"country, region, or territory not supported\b"),
    (FailureKind.REFUSED, r"身份验证失败|令牌已过期"),
    (FailureKind.FAILED, r"an error occurred while processing your request\b"),
    (FailureKind.FAILED, r"the server had an error\b|internal server error\b"),
    (FailureKind.NO_MODEL, r"the model .{1,200} (?:does not exist|is not supported)\b"),
    (FailureKind.NO_MODEL, r"model: \S+$"),
    (FailureKind.NO_MODEL, r"project .{1,200} does not have access to model\b"),
    (
        FailureKind.FOREIGN,
        r"(?:the )?encrypted content\b.* could not be (?:verified|decr)",
    ),
    (FailureKind.FOREIGN, r"(?:\S+: )?invalid `?signature`? in `?thinking`? block\b"),
    (FailureKind.FOREIGN, r"\S+\.thinking\.signature(?:\.\S+)?: "),
    (FailureKind.FOREIGN, r"\S+\.redacted_thinking\.data(?:\.\S+)?: "),
    (
        FailureKind.FOREIGN,
        r"(?:\S+: )?expected `?thinking`? or `?redacted_thinking`?, but found",
    ),
    (
        FailureKind.FOREIGN,
        r"(?:\S+: )?`?thinking`? or `?redacted_thinking`? blocks in the latest "
        r"assistant message cannot be modified",
    ),
    (FailureKind.FOREIGN, r"item with id '?(?:rs|cmp)_\S+ not found"),
    (FailureKind.CLIENT, r"prompt is too long\b"),
)

_ACCOUNTS = frozenset({FailureKind.QUOTA, FailureKind.REFUSED})
# What gateways in between put before a vendor's words.
_PREFIX = r"(?:(?:api |upstream |provider )?error(?: code)?: ?)?"


def _by_word(table: dict[FailureKind, tuple[str, ...]]) -> dict[str, FailureKind]:
    return {word: kind for kind, words in table.items() for word in words}


_STRONG = _by_word(STRONG)
_WEAK = _by_word(WEAK)
WORDS = frozenset((*_STRONG, *_WEAK))
_TEXTS = tuple((kind, re.compile(_PREFIX + text, re.I | re.S)) for kind, text in TEXTS)


def meaning(failure: FailureWords) -> FailureMeaning:
    """What *failure* says."""
    stated = (*failure.reasons, failure.code, failure.type)
    words = [word.lower() for word in stated if word]
    for word in words:
        if word in _STRONG:
            return FailureMeaning(_STRONG[word], True)
    for kind, text in _TEXTS:
        if text.match(failure.message) and not (failure.param and kind in _ACCOUNTS):
            return FailureMeaning(kind, True)
    for word in words:
        if word in _WEAK:
            return FailureMeaning(_WEAK[word], False)
    return FailureMeaning(FailureKind.FAILED, False)
