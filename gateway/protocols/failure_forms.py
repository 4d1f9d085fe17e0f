"""
How upstreams write a failure down, read into one shape.

Rule 1: what holds an answer is no failure: ``choices``, ``content``, ``output``.
Rule 2: a form without ``error`` counts only where nothing says that it is a typed
        event of a stream; protocols grow events that are not known here.

    {"error": {…}}  {"error": "…"}  {"errors": […]}  [{"error": {…}}]  "…"
    {"type": "error", …}  {"object": "error", "message": …}  {"detail": …}
    {"code": …, "msg": …}  {"success": false, …}  {"base_resp": {"status_code": …}}
    {"message": …}  {"__type": …, "message": …}  {"throttlingException": {…}}

Sources: the error references of OpenAI, Azure OpenAI, Anthropic, Gemini (also its
OpenAI-compatible endpoint), DeepSeek, OpenRouter, Mistral, Zhipu (GLM), Moonshot
(Kimi), DashScope (Qwen), MiniMax and Amazon Bedrock; FastAPI and what is built with
it (vLLM, SGLang, TGI); RFC 9457.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_MESSAGE_CHARS = 4096  # of an upstream's words: an error may quote a whole prompt

_MESSAGES = (
    *("message", "msg", "Message", "error_message", "errorMessage", "error_msg"),
    *("status_msg", "error_description", "description", "title"),
)
_CODES = ("code", "error_code", "errorCode", "err_code", "Code", "__type")
_TYPES = ("type", "status", "error_type")
_STATUSES = ("status", "status_code", "statusCode", "http_status", "code", "error_code")
_ANSWER = ("choices", "output", "content", "candidates", "delta")
_GOOD = ("", "0", "200", "ok", "success", "none", "true", "false")
_BAD = ("error", "fail", "failed", "failure")
# A bare message beside one of them is an event, or says that all is well.
_NOT_BARE = ("id", "object", "role", "event", "success", "ok", *_CODES)


class FailureWords(NamedTuple):
    """
    A failure in the upstream's words; empty or None where it said nothing.

    Attributes:
        reasons: the finest words, from ``details[].reason`` and their like.
        status: an HTTP status inside the body, 0 if none.
        fields: the whole error object, for waits and reset times.
    """

    code: str = ""
    type: str = ""
    message: str = ""
    param: str | None = None
    status: int = 0
    fields: dict[str, Any] = {}
    reasons: tuple[str, ...] = ()


def stated_error(data: object) -> FailureWords | None:
    """Read the failure in *data*, an event's or a body's JSON; None if it has none."""
    if isinstance(data, list):
        return stated_error(data[0]) if data else None
    if isinstance(data, str):
        return FailureWords(message=_cut(data)) if data.strip() else None
    if not isinstance(data, dict):
        return None
    for holder in (data.get("response"), data, _first_choice(data)):
        if isinstance(holder, dict) and (error := holder.get("error")):
            return _read(error, data)
    if data.get("type") == "error" or data.get("object") == "error":
        return _read(data, {})
    if data.get("type") in ("response.failed", "response.cancelled"):
        return FailureWords()
    return _without_error(data)


def failure_in(value: object) -> dict[str, Any] | None:
    """
    *value*, an event's JSON, as an object that ``stated_error`` reads; None if it
    states no failure.
    """
    if stated_error(value) is None:
        return None
    if isinstance(value, list):
        return failure_in(value[0])
    return value if isinstance(value, dict) else {"error": value}


def stated_headers(data: object) -> dict[str, str]:
    """
    The headers inside a failure, which a stream cannot bear: beside the error, or in it
    (``{"error": {"headers": {"retry-after": "2"}}}``).
    """
    if not isinstance(data, dict):
        return {}
    response = data.get("response")
    holder = response if isinstance(response, dict) else data
    error = holder.get("error")
    inner = error.get("headers") if isinstance(error, dict) else None
    headers = data.get("headers") or inner
    if not isinstance(headers, dict):
        return {}
    plain = (str, int, float)
    return {str(k): str(v) for k, v in headers.items() if isinstance(v, plain)}


def may_be_failure(kind: object) -> bool:
    """Whether the *kind* that an event gives itself is missing, or one of failures."""
    if not isinstance(kind, str):
        return True
    # RFC 9457 puts a URI there.
    return kind.lower().endswith(("error", "exception")) or ":" in kind


def _without_error(data: dict[str, Any]) -> FailureWords | None:
    """The forms that have no member ``error``."""
    base = data.get("base_resp")
    if isinstance(base, dict) and _is_bad(base.get("status_code")):
        code = f"base_resp_{base['status_code']}"
        message = _cut(_message(base))
        return FailureWords(message=message, fields=base, reasons=(code,))
    if any(data.get(member) is not None for member in _ANSWER):
        return None
    if detail := data.get("detail"):
        return _read(detail, data)
    kind = data.get("type")
    if not may_be_failure(kind):
        return None
    if errors := data.get("errors"):
        return _read(errors, data)
    if isinstance(kind, str) or _says_failure(data):
        return _read(data, {})
    for name, value in data.items():  # Bedrock's event streams
        if name.endswith("Exception") and isinstance(value, dict):
            words = _read(value, data)
            return words._replace(code=words.code or name)
    if _message(data) and not any(member in data for member in _NOT_BARE):
        return _read(data, {})
    return None


def _says_failure(data: dict[str, Any]) -> bool:
    """Whether a flat object says by a member of its own that something failed."""
    if data.get("success") is False or data.get("ok") is False:
        return True
    if str(data.get("status")).lower() in _BAD:
        return True
    bad_code = any(_is_bad(data.get(name)) for name in (*_CODES, "statusCode"))
    return bad_code and bool(_message(data))


def _is_bad(code: object) -> bool:
    """Whether *code* is one, and says something else than that all is well."""
    if isinstance(code, bool) or not isinstance(code, (str, int)):
        return False
    return str(code).lower() not in _GOOD


def _first_choice(data: dict[str, Any]) -> object:
    choices = data.get("choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _read(error: object, around: dict[str, Any]) -> FailureWords:
    if isinstance(error, list):
        return _read_list(error, around)
    if error is True:
        error = {**around, "error": None}
    if not isinstance(error, dict):
        return FailureWords(
            message=_cut(str(error)), status=_status(around), fields=around
        )
    code = _first(error, _CODES)
    kind = _first(error, _TYPES)
    details = error.get("details")
    if code is None and isinstance(details, dict):  # Anthropic's finer code
        code = details.get("error_code")
    param = error.get("param")
    return FailureWords(
        code=_word(code),
        type="" if kind == "error" else _word(kind),
        message=_cut(_message(error) or _message(around)),
        param=param if isinstance(param, str) else None,
        status=_status(error) or _status(around),
        fields=error,
        reasons=tuple(_reasons(error)),
    )


def _read_list(errors: list[Any], around: dict[str, Any]) -> FailureWords:
    """
    Several failures: the first decides, the words are all of them's.

    FastAPI's have a place in the request: such a one is the request's own fault.
    """
    objects = [error for error in errors if isinstance(error, dict)]
    words = [_placed(error) if isinstance(error, dict) else error for error in errors]
    message = _cut("; ".join(str(word) for word in words if word))
    if not objects:
        return FailureWords(message=message, status=_status(around), fields=around)
    first = _read(objects[0], around)
    if "loc" in objects[0]:
        return first._replace(code="", type="validation_error", message=message)
    return first._replace(message=message)


def _placed(error: dict[str, Any]) -> str:
    """FastAPI's ``{"loc": ["body", "model"], "msg": …}`` as "body.model: …"."""
    place, message = error.get("loc"), _message(error)
    if not isinstance(place, list):
        return message
    return f"{'.'.join(str(part) for part in place)}: {message}"


def _reasons(error: dict[str, Any]) -> list[str]:
    """Words of ``details[].reason`` (Google) and of ``innererror`` (Azure)."""
    found: list[object] = []
    details = error.get("details")
    if isinstance(details, list):
        found += [one.get("reason") for one in details if isinstance(one, dict)]
    inner = error.get("innererror") or error.get("inner_error")
    if isinstance(inner, dict):
        found.append(inner.get("code"))
    return [word for word in found if isinstance(word, str) and word]


def _first(holder: dict[str, Any], names: tuple[str, ...]) -> object:
    """The first of *names* that holds something."""
    return next((holder[name] for name in names if holder.get(name)), None)


def _message(holder: dict[str, Any]) -> str:
    """The words of a failure, under whatever name."""
    for name in _MESSAGES:
        value = holder.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _word(value: object) -> str:
    """*value* as a code: a word, or a vendor's own number of four digits or more."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    word = str(value).rpartition("#")[2]  # Amazon: "com.amazon.coral#Throttling…"
    return "" if word.lstrip("-").isdigit() and len(word) < 4 else word


def _status(holder: dict[str, Any]) -> int:
    """An HTTP error status in a place where others put a word."""
    for key in _STATUSES:
        value = str(holder.get(key) or "")
        if len(value) == 3 and value.isdecimal() and "400" <= value <= "599":
            return int(value)
    return 0


def _cut(message: str) -> str:
    return message[:MAX_MESSAGE_CHARS]
