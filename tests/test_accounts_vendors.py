"""
What the vendors' documented errors mean: whose failure each one is.

A row is what a vendor's reference (or a user's report, where it documents nothing)
shows, word for word. The expected kind is ``scope reason``: "client" stays the
client's, everything else is never shown to it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.accounts.verdict import Verdict, judge_event, judge_status

NOW = 1_800_000_000.0


def openai(message: str, kind: str = "", code: object = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def gemini(
    code: int, status: str, message: str, reason: str = "", *, compatible: bool = False
) -> Any:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if reason:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        error["details"] = [{"@type": kind, "reason": reason, "domain": "x.com"}]
    return [{"error": error}] if compatible else {"error": error}


def glm(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def qwen(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "9b1c"}


def minimax(code: int, message: str) -> dict[str, Any]:
    base = {"status_code": code, "status_msg": message}
    return {"id": "1", "choices": None, "created": 0, "base_resp": base}


INVALID = "invalid_request_error"
KEY_INVALID = "API key not valid. Please pass a valid API key."
LIMITS = (
    "You have reached your specified API usage limits. You will regain access on "
    "2027-02-01 at 00:00 UTC."
)
ACCOUNTS: list[Any] = [
    # OpenAI
    (429, openai("You exceeded your current quota", "insufficient_quota"), "quota"),
    (401, openai("Incorrect API key provided: sk-x.", INVALID, "x"), "refused"),
    (
        401,
        openai("no", INVALID, "mismatched_organization"),
        "refused",
    ),
    (
        400,
        openai("Billing hard limit has been reached", INVALID, "x"),
        "quota",
    ),
    (
        429,
        openai("Your account is not active, please check your billing details", "x"),
        "quota",
    ),
    (403, openai("Country, region, or territory not supported", "x"), "refused"),
    (503, openai("The engine is currently overloaded", "server_error"), "overloaded"),
    # Azure OpenAI
    (
        401,
        {"statusCode": 401, "message": "Unauthorized. Access token is missing"},
        "refused",
    ),
    (
        401,
        {
            "error": {
                "code": "401",
                "message": "Access denied due to invalid subscription key or wrong "
                "API endpoint.",
            }
        },
        "refused",
    ),
    (
        429,
        {"error": {"code": "429", "message": "Requests have exceeded token limit"}},
        "rate_limited",
    ),
    (503, {"error": {"code": "NoCapacity", "message": "x"}}, "overloaded"),
    (404, {"error": {"code": "DeploymentNotFound", "message": "x"}}, "no_model"),
    # Anthropic
    (
        400,
        anthropic(INVALID, "Your credit balance is too low to access the API."),
        "quota",
    ),
    (400, anthropic(INVALID, LIMITS), "quota"),
    (400, anthropic(INVALID, "You're out of extra usage. Add more."), "quota"),
    (
        400,
        anthropic(INVALID, "Third-party apps now draw from your extra usage, not x"),
        "quota",
    ),
    (400, anthropic(INVALID, "This organization has been disabled."), "refused"),
    (
        400,
        anthropic(
            INVALID,
            "This credential is only authorized for use with Claude Code and cannot",
        ),
        "refused",
    ),
    (403, anthropic("permission_error", "OAuth token has expired."), "refused"),
    (
        429,
        anthropic(
            "rate_limit_error",
            "This request would exceed your account's rate limit. Try again later.",
        ),
        "rate_limited",
    ),
    (402, anthropic("billing_error", "x"), "quota"),
    (529, anthropic("overloaded_error", "Overloaded"), "overloaded"),
    (500, anthropic("overloaded_error", "Overloaded"), "overloaded"),
    # Gemini, natively and through its OpenAI-compatible endpoint
    (400, gemini(400, "INVALID_ARGUMENT", KEY_INVALID, "API_KEY_INVALID"), "refused"),
    (400, gemini(400, "INVALID_ARGUMENT", KEY_INVALID), "refused"),
    (
        400,
        gemini(400, "INVALID_ARGUMENT", KEY_INVALID, compatible=True),
        "refused",
    ),
    (
        400,
        gemini(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."),
        "refused",
    ),
    (
        400,
        gemini(400, "INVALID_ARGUMENT", "API Key not found. Please pass a valid one"),
        "refused",
    ),
    (
        403,
        gemini(403, "PERMISSION_DENIED", "Your API key was reported as leaked."),
        "refused",
    ),
    (
        400,
        gemini(
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
        ),
        "refused",
    ),
    (
        403,
        gemini(403, "PERMISSION_DENIED", "x", "CONSUMER_SUSPENDED"),
        "refused",
    ),
    (
        403,
        gemini(403, "PERMISSION_DENIED", "x", "BILLING_DISABLED"),
        "quota",
    ),
    (
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted"),
        "rate_limited",
    ),
    (
        503,
        gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "overloaded",
    ),
    (500, gemini(500, "INTERNAL", "An internal error has occurred."), "failed"),
    # DeepSeek
    (402, openai("Insufficient Balance", "unknown_error", INVALID), "quota"),
    (400, openai("Insufficient Balance", "unknown_error"), "quota"),
    (
        401,
        openai("Authentication Fails (no such user)", "authentication_error"),
        "refused",
    ),
    # OpenRouter
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, "quota"),
    (400, {"error": {"code": 402, "message": "Provider returned error"}}, "quota"),
    (
        400,
        {"error": {"code": 400, "message": "This request requires more credits, or x"}},
        "quota",
    ),
    (
        401,
        {"error": {"code": 401, "message": "No auth credentials found"}},
        "refused",
    ),
    # Mistral
    (401, {"message": "Unauthorized", "request_id": "x"}, "refused"),
    (401, {"detail": "Unauthorized"}, "refused"),
    (
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
        },
        "rate_limited",
    ),
    (
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "code": "3505",
        },
        "overloaded",
    ),
    (
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model"},
        "no_model",
    ),
    # GLM
    (401, glm("1000", "身份验证失败。"), "refused"),
    (400, glm("1003", "Authentication Token expired"), "refused"),
    (429, glm("1113", "余额不足或无可用资源包,请充值。"), "quota"),
    (400, glm("1113", "Insufficient balance or no resource package."), "quota"),
    (429, glm("1302", "API 调用并发过高"), "rate_limited"),
    (429, glm("1308", "Usage limit reached for 5 hour."), "quota"),
    (400, glm("1305", "该模型当前访问量过大,请您稍后再试"), "overloaded"),
    (400, glm("1211", "Unknown Model, please check the model code."), "no_model"),
    (200, {"code": 500, "msg": "404 NOT_FOUND", "success": False}, "failed"),
    # Kimi
    (
        429,
        openai(
            "Your account <ak> is suspended, check x", "exceeded_current_quota_error"
        ),
        "quota",
    ),
    (
        429,
        openai("The engine is currently overloaded", "engine_overloaded_error"),
        "overloaded",
    ),
    (
        429,
        openai("max RPM reached", "rate_limit_reached_error"),
        "rate_limited",
    ),
    (404, openai("Not found the model", "resource_not_found_error"), "no_model"),
    (401, openai("Invalid Authentication", "invalid_authentication_error"), "refused"),
    # Qwen (DashScope)
    (401, qwen("InvalidApiKey", "Invalid API-key provided."), "refused"),
    (
        400,
        qwen("Arrearage", "Access denied, please make sure your account is"),
        "quota",
    ),
    (
        403,
        qwen("AllocationQuota.FreeTierOnly", "The free tier of the model has been x"),
        "quota",
    ),
    (429, qwen("Throttling.RateQuota", "Requests rate limit exceeded"), "rate_limited"),
    (403, qwen("Model.AccessDenied", "Model access denied."), "no_model"),
    (500, qwen("InternalError.Algo", "x"), "failed"),
    # MiniMax, always with status 200
    (200, minimax(1004, "login fail: Please carry the API secret key"), "refused"),
    (200, minimax(1008, "insufficient balance"), "quota"),
    (200, minimax(1002, "rate limit"), "rate_limited"),
    (200, minimax(1000, "unknown error"), "failed"),
    (200, minimax(2049, "invalid api key"), "refused"),
    # Amazon
    (400, {"__type": "com.amazon#ThrottlingException", "message": "x"}, "rate_limited"),
    (403, {"Message": "User is not authorized"}, "refused"),
    (400, {"__type": "ExpiredTokenException", "message": "x"}, "refused"),
    (200, {"throttlingException": {"message": "Too many"}}, "rate_limited"),
    # servers that people run themselves, and what is in front of them
    (503, {"error": {"code": 503, "message": "Loading model"}}, "failed"),
    (
        503,
        {"error": {"code": 503, "message": "x", "type": "unavailable_error"}},
        "overloaded",
    ),
    (
        403,
        {"success": False, "errors": [{"code": 10000, "message": "Authentication"}]},
        "refused",
    ),
    (500, {"object": "error", "message": "x", "type": "InternalServerError"}, "failed"),
]


def judged(status: int, body: object, model: str = "gpt-x") -> Verdict:
    """The verdict of *body*, with *status* or inside a 200."""
    if status == 200:
        return judge_event(body, NOW, model)
    return judge_status(status, {}, json.dumps(body).encode(), NOW, model)


def names(rows: list[Any]) -> list[Any]:
    return [
        pytest.param(*row, id=f"{n}-{row[0]}-{row[-1]}") for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize(("status", "body", "reason"), names(ACCOUNTS))
def test_an_accounts_failure_is_the_accounts(
    status: int, body: object, reason: str
) -> None:
    verdict = judged(status, body)

    assert reason == verdict.reason
    assert verdict.switch
    assert "client" != verdict.scope
    if reason != "no_model":
        assert not verdict.pass_on
        assert "upstream" == verdict.error.origin


@pytest.mark.parametrize(("status", "body", "reason"), names(ACCOUNTS))
def test_so_it_is_inside_a_200(status: int, body: object, reason: str) -> None:
    """In a stream or a whole body no status helps; what its words say still counts."""
    verdict = judged(200, body)

    assert "client" != verdict.scope
    assert verdict.switch
    if status == 400:
        assert reason == verdict.reason


CLIENTS: list[Any] = [
    # The words stand in what the upstream quotes.
    (400, openai("Invalid value: 'Your credit balance is too low'.", INVALID)),
    (400, openai("Unknown parameter: 'API key not valid'.", INVALID)),
    (400, anthropic(INVALID, "messages.0.content: API key not valid")),
    (400, anthropic(INVALID, "messages: Your credit balance is too low")),
    (400, gemini(400, "INVALID_ARGUMENT", "Invalid value at 'x': API key expired")),
    (400, {"detail": [{"loc": ["body", "x"], "msg": "insufficient balance"}]}),
    (422, {"detail": [{"loc": ["body", "key"], "msg": "API key not valid."}]}),
    # A parameter of the request is called so.
    (
        400,
        {
            "error": {
                "message": "Invalid API key.",
                "type": INVALID,
                "param": "tools[0].server.api_key",
            }
        },
    ),
    (400, openai("Invalid API key format in the tool 'deploy'", INVALID)),
    (400, openai("API key not valid for the tool 'deploy'", INVALID)),
    (400, openai("api_key: Extra inputs are not permitted", INVALID)),
    (400, openai("Unauthorized field 'x' in messages[0]", INVALID)),
    (400, openai("Quota is not a property of this schema", INVALID)),
    # The vendors' words for a client's mistake.
    (400, openai("too long", INVALID, "context_length_exceeded")),
    (400, {"error": {"code": "content_filter", "message": "x", "status": 400}}),
    (
        400,
        {
            "error": {
                "code": "x",
                "message": "x",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    (413, anthropic("request_too_large", "Request exceeds the maximum size")),
    (400, gemini(400, "INVALID_ARGUMENT", "The input token count exceeds the maximum")),
    (400, glm("1210", "API 调用参数有误")),
    (400, glm("1261", "Prompt exceeds max length")),
    (400, qwen("DataInspectionFailed", "Input data may contain x")),
    (400, qwen("InvalidParameter", "Range of input length should be [1, 129024]")),
    (400, {"object": "error", "message": "x", "type": "BadRequestError", "code": 400}),
    (422, {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}),
    (400, {"__type": "ValidationException", "message": "x"}),
    (200, minimax(2013, "invalid params")),
    (200, minimax(1026, "input new_sensitive")),
]


@pytest.mark.parametrize(
    ("status", "body"), [pytest.param(*row, id=str(n)) for n, row in enumerate(CLIENTS)]
)
def test_a_clients_mistake_stays_the_clients(status: int, body: object) -> None:
    verdict = judged(status, body)

    assert ("client", "", False) == (verdict.scope, verdict.reason, verdict.switch)
    assert verdict.pass_on


def test_the_day_on_which_access_returns_is_taken_over() -> None:
    body = anthropic(INVALID, LIMITS)
    day_s = 1_801_440_000.0 - NOW  # 2027-02-01T00:00Z

    assert day_s == judged(400, body).until_s


@pytest.mark.parametrize("status", [401, 402, 429])
def test_a_clients_word_does_not_beat_our_key_our_money_or_a_limit(status: int) -> None:
    """Else an upstream's words about a request would hide a key that is dead."""
    body = openai("too long", INVALID, "context_length_exceeded")
    verdict = judged(status, body)

    assert "account" == verdict.scope
    assert verdict.switch and not verdict.pass_on


@pytest.mark.parametrize(
    ("status", "body", "doubtful"),
    [
        (401, {}, True),
        (403, {}, True),
        (400, gemini(400, "INVALID_ARGUMENT", KEY_INVALID), True),
        (402, {}, False),
        (429, {}, False),
        (500, {}, False),
    ],
)
def test_what_one_users_request_may_have_brought_about(
    status: int, body: object, doubtful: bool
) -> None:
    assert doubtful is judged(status, body).doubtful


def test_a_guard_before_the_api_may_have_disliked_a_prompt() -> None:
    page = b"<html>are you a robot?</html>"

    assert judge_status(403, {}, page, NOW).doubtful
    assert not judge_status(502, {}, page, NOW).doubtful
