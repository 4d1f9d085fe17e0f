"""What a client wants to be thought, in the words that the server takes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.protocols import dialects
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request

BODIES: dict[str, dict[str, Any]] = {
    "responses": {"input": "x"},
    "chat": {"messages": [{"role": "user", "content": "x"}]},
    "messages": {"max_tokens": 99_999, "messages": [{"role": "user", "content": "x"}]},
}


def convert(
    source: str, target: str, model: str, options: Options, **fields: Any
) -> Converted:
    body = {"model": model, **BODIES[source], **fields}
    return convert_request(
        source, target, body, model=model, upstream_model=model, options=options
    )


def wish(source: str, effort: str) -> dict[str, Any]:
    if source == "responses":
        return {"reasoning": {"effort": effort, "summary": "auto"}}
    if source == "chat":
        return {"reasoning_effort": effort}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}


def effort_in(target: str, converted: Converted) -> str:
    body = converted.body
    if target == "responses":
        return str(body.get("reasoning", {}).get("effort", ""))
    if target == "chat":
        return str(body.get("reasoning_effort", ""))
    return str(body.get("output_config", {}).get("effort", ""))


def row(dialect: str, **overrides: Any) -> Options:
    return dialects.options(dialect, overrides)


PAIRS = [(source, target) for source in BODIES for target in BODIES if source != target]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("effort", ["low", "high", "none"])
def test_a_model_that_does_not_think_is_not_asked_to(
    source: str, target: str, effort: str
) -> None:
    options = Options(thinking="none")
    converted = convert(source, target, "m", options, **wish(source, effort))

    asks = {"reasoning", "reasoning_effort", "thinking", "output_config", "include"}
    assert set() == asks & converted.body.keys()
    assert 1 == len(converted.dropped)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "low"),  # as far from both: not more than was asked for
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
        ("ultra", "high"),
    ],
)
def test_an_effort_becomes_the_nearest_that_the_account_takes(
    source: str, target: str, asked: str, taken: str
) -> None:
    options = row("other", efforts=("low", "high"))
    converted = convert(source, target, "m", options, **wish(source, asked))

    assert taken == effort_in(target, converted)


@pytest.mark.parametrize("target", ["responses", "chat"])
@pytest.mark.parametrize(
    ("options", "model", "asked", "taken"),
    [
        (row("other", efforts=("low", "high")), "m", "none", "low"),
        (row("other", efforts=("none", "high")), "m", "none", "none"),
        (row("other", efforts=("none", "high")), "m", "low", "high"),
        (row("other", efforts=("max",)), "m", "minimal", "max"),
        # Ollama: "minimal" and "xhigh" are 400 (ollama/ollama#18121).
        (row("ollama"), "gpt-oss:20b", "minimal", "low"),
        (row("ollama"), "gpt-oss:20b", "xhigh", "high"),
        (row("ollama"), "qwen3", "none", "none"),
        # OpenAI's model pages: what each model takes.
        (row("openai"), "gpt-5.5", "ultra", "xhigh"),
        (row("openai"), "gpt-5.5", "max", "xhigh"),
        (row("openai"), "gpt-5.5", "minimal", "low"),
        (row("openai"), "gpt-5.1", "xhigh", "high"),
        (row("openai"), "gpt-5", "none", "minimal"),
        (row("openai"), "gpt-5-mini-2025-08-07", "max", "high"),
        (row("openai"), "o3", "none", "low"),
        (row("openai"), "gpt-6-astra", "none", "low"),
        (row("openai"), "gpt-6-sol", "none", "none"),
        (row("openai"), "gpt-6-sol", "ultra", "max"),
        (row("azure"), "gpt-5.1", "max", "high"),
        (row("openai"), "gpt-4o", "high", ""),
        (row("mistral"), "mistral-small", "medium", "high"),
        # The upstream judges an unknown word.
        (row("openai"), "gpt-5.5", "gigantic", "gigantic"),
    ],
)
def test_efforts_of_a_server(
    target: str, options: Options, model: str, asked: str, taken: str
) -> None:
    converted = convert("messages", target, model, options, **_messages(asked))

    assert taken == effort_in(target, converted)
    assert bool(taken) != bool(
        {"thinking", "output_config.effort"} & _dropped(converted)
    )


def _messages(effort: str) -> dict[str, Any]:
    return wish("messages", effort)


def _dropped(converted: Converted) -> set[str]:
    return set(converted.dropped)


@pytest.mark.parametrize(
    ("model", "asked", "taken"),
    [
        ("claude-opus-4-6", "xhigh", "high"),
        ("claude-opus-4-7", "xhigh", "xhigh"),
        ("claude-opus-4-6", "ultra", "max"),
        ("claude-opus-4-7", "minimal", "low"),
    ],
)
def test_efforts_of_claude(model: str, asked: str, taken: str) -> None:
    converted = convert(
        "responses", "messages", model, Options(), **wish("responses", asked)
    )

    assert taken == effort_in("messages", converted)


@pytest.mark.parametrize(
    ("dialect", "asked", "fields", "dropped"),
    [
        # A server that follows OpenAI knows three words, and none for "not at all".
        ("other", "none", {}, ["reasoning.effort"]),
        ("other", "max", {"reasoning_effort": "high"}, []),
        ("vllm", "none", {"reasoning_effort": "none"}, []),
        ("qwen", "none", {"enable_thinking": False}, []),
        ("qwen", "low", {"enable_thinking": True}, []),
        ("glm", "none", {"thinking": {"type": "disabled"}}, []),
        ("glm", "max", {"thinking": {"type": "enabled"}}, []),
        ("kimi", "none", {"thinking": {"type": "disabled"}}, []),
        (
            "deepseek",
            "ultra",
            {"thinking": {"type": "enabled"}, "reasoning_effort": "max"},
            [],
        ),
        ("deepseek", "none", {"thinking": {"type": "disabled"}}, []),
    ],
)
def test_thinking_is_asked_for_in_the_servers_own_way(
    dialect: str, asked: str, fields: dict[str, Any], dropped: list[str]
) -> None:
    wanted = {"reasoning": {"effort": asked}}
    converted = convert("responses", "chat", "m", row(dialect), **wanted)

    keys = ("reasoning_effort", "enable_thinking", "thinking")
    found = {key: converted.body[key] for key in keys if key in converted.body}
    assert (fields, dropped) == (found, list(converted.dropped))


@pytest.mark.parametrize("target", list(BODIES))
@pytest.mark.parametrize(
    ("limit", "model", "asked", "written"),
    [
        (8192, "m", 32000, 8192),
        (8192, "m", 100, 100),
        (0, "m", 32000, 32000),
        (64, "gpt-4o", 32000, 64),
    ],
)
def test_a_wish_for_output_is_lowered_to_the_accounts_limit(
    target: str, limit: int, model: str, asked: int, written: int
) -> None:
    source = "chat" if target != "chat" else "responses"
    field = {"chat": "max_tokens", "responses": "max_output_tokens"}[source]
    options = Options(max_output_tokens=limit)
    body = convert(source, target, model, options, **{field: asked}).body

    fields = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert [written] == [body[name] for name in fields if name in body]


@pytest.mark.parametrize(
    ("target", "model", "limit"),
    [
        # "max_tokens is too large: … This model supports at most 16384 …" (OpenAI)
        ("chat", "gpt-4o-mini", 16384),
        ("chat", "openai/gpt-4.1", 32768),
        ("responses", "gpt-4o", 16384),
        # "max_tokens: … > 8192, which is the maximum allowed number …" (Anthropic)
        ("messages", "claude-3-5-haiku-20241022", 8192),
        ("messages", "claude-opus-4-1", 32000),
        ("messages", "claude-sonnet-4-5-20250929", 64000),
    ],
)
def test_a_wish_for_output_is_lowered_to_the_models_limit(
    target: str, model: str, limit: int
) -> None:
    source = "messages" if target != "messages" else "chat"
    body = convert(source, target, model, Options(), max_tokens=999_999).body

    fields = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert [limit] == [body[name] for name in fields if name in body]
